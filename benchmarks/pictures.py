"""What maps of features cost: `python benchmarks/pictures.py [--rows 10000] [--width 384]`.

Times on this machine of laying rows out by PCA and by UMAP (its first call, which compiles, and a
second one) and of drawing the map; the pass through the network is not among them.
"""

from __future__ import annotations

import argparse
import platform
from importlib.util import find_spec
from time import perf_counter

import torch

from lit_ssl.drawing.scatter import draw_map, rows_apart
from lit_ssl.metrics import pca_map, umap_map


def timed(name, function):
    """Run a function and print how long it took."""
    start = perf_counter()
    result = function()
    print(f"{name:<34} {perf_counter() - start:7.2f} s", flush=True)
    return result


def main():
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=10)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(args.rows) % args.classes
    centres = torch.randn(args.classes, args.width, generator=generator)
    features = centres[labels] + torch.randn(args.rows, args.width, generator=generator)
    print(f"{args.rows:,} rows of {args.width} numbers, {args.classes} classes; "
          f"{torch.get_num_threads()} threads, {platform.machine()}")  # fmt: skip
    points = timed("PCA", lambda: pca_map(features)).points.numpy()
    timed("drawing points with a legend", lambda: draw_map(points, labels.numpy(), title="PCA"))
    timed("choosing thumbnails", lambda: rows_apart(points))
    if find_spec("umap") is not None:
        timed("UMAP, first call (compiles)", lambda: umap_map(features))
        timed("UMAP, second call", lambda: umap_map(features))


if __name__ == "__main__":
    main()
