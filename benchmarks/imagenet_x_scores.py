"""Scoring 50,000 predictions by factor, with intervals, beside the official package, on one core.

    python benchmarks/imagenet_x_scores.py
    python benchmarks/imagenet_x_scores.py --annotations FOLDER --repeats 20

The predictions are random, right for three of four images. Without the annotations of ImageNet-X
(`pip install 'lit-ssl[imagenet-x]'`) random ones of the same size stand in for them, and the
official package is left out. It gives neither intervals nor p values. Times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotation_files import FACTORS, METACLASSES
from lit_ssl.imagenet_x.annotations import FactorAnnotations, read_annotations
from lit_ssl.imagenet_x.predictions import Predictions, read_predictions, write_predictions
from lit_ssl.metrics import FactorScores

IMAGES, ANNOTATED, CLASSES = 50_000, 46_110, 1000


def stand_in() -> FactorAnnotations:
    """Random annotations of ImageNet-X's size."""
    rng = np.random.default_rng(0)
    return FactorAnnotations(
        factors=FACTORS,
        numbers=np.sort(rng.permutation(IMAGES)[:ANNOTATED]) + 1,
        members=rng.integers(0, 16, ANNOTATED)[:, None] == np.arange(16),
        labels=rng.integers(0, CLASSES, IMAGES),
        kind="top",
        source="random annotations of ImageNet-X's size",
        metaclasses=METACLASSES,
        class_to_metaclass=rng.integers(0, 17, CLASSES),
    )


def random_predictions(annotations: FactorAnnotations, seed: int) -> Predictions:
    """Of a model that is right for three of four images."""
    rng = np.random.default_rng([seed, 1])
    guesses = rng.integers(0, CLASSES, IMAGES)
    classes = np.where(rng.random(IMAGES) < 0.75, annotations.labels, guesses)
    return Predictions(f"model{seed}", np.r_[-1, classes], np.r_[np.nan, rng.random(IMAGES)])


def median(repeats: int, function: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])  # the first warms up


def ours(annotations: FactorAnnotations, path: Path, repeats: int) -> np.ndarray:
    """Print our times; returns the accuracies of the first model."""
    a, b = (random_predictions(annotations, seed) for seed in (0, 1))
    scores = FactorScores(a, annotations)
    other = FactorScores(b, annotations)
    rows = {
        "score in memory: accuracies, error ratios, 10,000 draws": lambda: FactorScores(
            a, annotations
        ).table(),
        "read the CSV file and score": lambda: FactorScores(
            read_predictions(path, annotations), annotations
        ).table(),
        "paired comparison of two models, p values": lambda: scores.compare(other),
        "tables of the 17 metaclasses": scores.metaclasses,
        "calibration errors": scores.calibration,
    }
    for text, function in rows.items():
        print(f"ours      {text:<58}{median(repeats, function):>9.1f} ms")
    return scores.table().accuracy


def official(folder: Path, repeats: int) -> np.ndarray:
    """Print the official package's times; returns the accuracies of the first model."""
    from imagenet_x import FACTORS as NAMES
    from imagenet_x import load_annotations
    from imagenet_x.aggregate import compute_factor_accuracies, error_ratio
    from imagenet_x.utils import augment_model_predictions, load_model_predictions

    annotations = load_annotations()
    models, _ = load_model_predictions(str(folder))

    def score(loaded: dict) -> object:
        table = compute_factor_accuracies(augment_model_predictions(annotations, loaded), NAMES)
        error_ratio(table)
        return table

    def read_and_score() -> object:
        loaded, _ = load_model_predictions(str(folder))
        return score(loaded)

    for text, function in {
        "score in memory: accuracies, error ratios": lambda: score(models),
        "read the CSV file and score": read_and_score,
        "read the annotations": load_annotations,
    }.items():
        print(f"official  {text:<58}{median(repeats, function):>9.1f} ms")
    return score(models).loc["model0", NAMES].to_numpy(dtype=np.float64)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", default="auto", help="folder of ImageNet-X's files")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        annotations = read_annotations(options.annotations)
    except InputError as error:
        print(f"{error}\n")
        annotations = stand_in()
    print(f"{annotations.source}, {len(annotations.numbers):,} images, one thread\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_predictions(
            folder / "model0.csv", random_predictions(annotations, 0), annotations
        )
        if annotations.real is not None:
            times = median(options.repeats, lambda: read_annotations(options.annotations))
            print(f"ours      {'read the annotations (cached arrays)':<58}{times:>9.1f} ms")
        mine = ours(annotations, path, options.repeats)
        if options.annotations != "auto" or annotations.real is None:
            print("official  left out: it only reads its own annotations, of its installed package")
            return
        try:
            theirs = official(folder, options.repeats)
        except ImportError as error:
            print(f"official  left out: {error}")
            return
    print(f"\nlargest difference of the accuracies: {np.abs(mine - theirs).max():.1e}")


if __name__ == "__main__":
    main()
