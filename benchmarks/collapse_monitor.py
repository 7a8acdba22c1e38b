"""What reading one window of CollapseMonitor costs: singular values of all rows, or a Gram matrix.

    OMP_NUM_THREADS=1 python benchmarks/collapse_monitor.py

Times are CPU seconds of this process, medians of interleaved pairs. *rows*: singular values of the
rows that one process gathers of ``processes`` (each sends its own to all the others). *Gram*: each
process multiplies its own rows and adds up D x D numbers. Bytes are what one process receives by
gathering, or the size of what is reduced.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lit_ssl.metrics import (
    FeatureSums,
    feature_std,
    feature_std_from_sums,
    rankme,
    rankme_from_gram,
)


def of_rows(features: Tensor) -> list[float]:
    """Both values of all rows, as singular values give them."""
    return [rankme(features).item(), feature_std(features).item()]


def of_gram(own: Tensor, flat: Tensor) -> list[float]:
    """Both values of all rows: of one process' rows and the reduced sums of all."""
    FeatureSums.of(own).flat()
    sums = FeatureSums.from_flat(flat, own.shape[1])
    return torch.stack(
        [rankme_from_gram(sums.gram, sums.rows), feature_std_from_sums(sums)]
    ).tolist()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2048, help="of a process")
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 768, 1024])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8])
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {args.rows} rows each")
    for width in args.widths:
        for processes in args.processes:
            generator = torch.Generator().manual_seed(0)
            features = torch.randn(args.rows * processes, width, generator=generator)
            own, flat = features[: args.rows], FeatureSums.of(features).flat()
            pairs = [
                (seconds(partial(of_rows, features)), seconds(partial(of_gram, own, flat)))
                for _ in range(args.rounds)
            ]
            rows, gram = (statistics.median(part) for part in zip(*pairs, strict=True))
            error = max(
                abs(new / old - 1)
                for old, new in zip(of_rows(features), of_gram(own, flat), strict=True)
            )
            received = 4 * width * args.rows * (processes - 1)
            reduced = 8 * flat.numel() if processes > 1 else 0
            print(
                f"D {width:5d}, {processes:3d} processes: rows {1e3 * rows:7.0f} ms, Gram "
                f"{1e3 * gram:6.0f} ms ({rows / gram:.1f} times); {received / 1e6:6.1f} and "
                f"{reduced / 1e6:4.1f} MB; values differ by {error:.0e}"
            )


if __name__ == "__main__":
    main()
