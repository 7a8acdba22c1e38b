"""From predictions of several models to a table and a plot of their errors by kind of image.

    python examples/imagenet_x_report.py resnet50.csv dino.csv --out runs/factors
    python examples/imagenet_x_report.py --synthetic            # makes its own data; runs anywhere

The first reads ImageNet-X's annotations (`pip install 'lit-ssl[imagenet-x]'`, or --annotations) and
predictions in its official format: file_name,predicted_class,predicted_probability. The same from
the command line: `lit-ssl imagenetx compare resnet50.csv dino.csv --out runs/factors`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lit_ssl.imagenet_x.annotations import FactorAnnotations, read_annotations
from lit_ssl.imagenet_x.output import write_report
from lit_ssl.imagenet_x.predictions import Predictions, read_predictions
from lit_ssl.imagenet_x.report import build_report
from lit_ssl.imagenet_x.text import print_report
from lit_ssl.metrics import FactorScores

# factor: share of the images, error of a first model, error of a second one
SYNTHETIC = {
    "pose": (0.45, 0.15, 0.14),
    "background": (0.33, 0.25, 0.20),
    "smaller": (0.14, 0.40, 0.40),
    "texture": (0.06, 0.60, 0.45),
    "style": (0.02, 0.50, 0.45),
}


def synthetic(size: int = 5000) -> tuple[FactorAnnotations, list[Predictions]]:
    """Annotations of images that do not exist, and two models that fail on known factors."""
    rng = np.random.default_rng(0)
    share, *errors = np.array(list(SYNTHETIC.values())).T
    factor = rng.choice(len(share), size, p=share)
    annotations = FactorAnnotations(
        factors=tuple(SYNTHETIC),
        numbers=np.arange(1, size + 1),
        members=factor[:, None] == np.arange(len(share)),
        labels=rng.integers(0, 10, size),
        kind="own",
        source="synthetic annotations",
    )
    models = []
    for name, error in zip(("first", "second"), errors, strict=True):
        wrong = rng.random(size) < error[factor]
        classes = (annotations.labels + wrong * rng.integers(1, 10, size)) % 10
        probability = np.clip(rng.normal(0.85 - 0.3 * wrong, 0.1), 0.1, 1)
        models.append(Predictions(name, np.r_[-1, classes], np.r_[np.nan, probability]))
    return annotations, models


def main() -> None:
    """Print the tables and write all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predictions", nargs="*", help="CSV files; the file's name is the model's")
    parser.add_argument("--annotations", default="auto", help="folder, or your own CSV file")
    parser.add_argument("--factors", choices=("top", "multi"), default="top")
    parser.add_argument("--synthetic", action="store_true", help="make annotations and predictions")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenet_x_report"))
    options = parser.parse_args()
    if options.synthetic == bool(options.predictions):
        parser.error("give files of predictions, or --synthetic")
    if options.synthetic:
        annotations, models = synthetic()
    else:
        annotations = read_annotations(options.annotations, options.factors)
        models = [read_predictions(path, annotations) for path in options.predictions]
    report = build_report([FactorScores(model, annotations) for model in models])
    print_report(report)
    for kind, path in write_report(report, options.out).items():
        print(f"{kind + ':':<13}{path}")


if __name__ == "__main__":
    main()
