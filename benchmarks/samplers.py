"""What samplers and subsets cost on the CPU at the size of ImageNet and beyond.

Beside each stands the plain way to the same result, which sorts or compares all rows: results are
checked to be equal, and both are timed in turns. Where there is no second way, the time alone.

    OMP_NUM_THREADS=1 python benchmarks/samplers.py
    OMP_NUM_THREADS=1 python benchmarks/samplers.py --rows 14000000 --classes 10000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules import ClassStratifiedSampler, EpochSampler, ShardSampler
from lit_ssl.datamodules.loading.class_batches import ClassesPerBatchSampler
from lit_ssl.datamodules.reading.images import FileImages, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.lists import find_listed
from lit_ssl.datamodules.selection.stratified_split import choose_per_class, stratified_split
from lit_ssl.seeding import Stream, hash_integers, keyed_permutation

IMAGES_PER_CLASS = 7


def plain_draw(sampler: ClassStratifiedSampler, labels: np.ndarray) -> Callable[[], np.ndarray]:
    """Draw the images of a batch by sorting all of its classes."""
    members = [np.flatnonzero(labels == name) for name in sampler.classes]

    def draw() -> np.ndarray:
        order = keyed_permutation(len(members), sampler.seed, Stream.SUPPORT_CLASSES, 0, 0)
        chosen = [members[number] for number in order[: sampler.classes_per_batch]]
        together = np.concatenate(chosen)
        column = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
        keys = hash_integers(sampler.seed, Stream.SUPPORT_IMAGES, 0, 0, together)
        ends = np.cumsum([len(rows) for rows in chosen])[:-1]
        images = np.split(together[np.lexsort((keys, column))], ends)
        return np.stack([np.resize(rows, sampler.images_per_class) for rows in images], axis=1)

    return draw


def plain_choice(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose so many of each class by looking for each class among all rows."""
    order = keyed_permutation(len(labels), 0)
    shuffled = labels[order]
    return np.sort(np.concatenate([order[shuffled == name][:count] for name in np.unique(labels)]))


def cpu_ms(action: Callable[[], Any]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    action()
    return 1e3 * (time.process_time() - start)


def report(
    name: str, ours: Callable[[], Any], plain: Callable[[], Any] | None, repeats: int
) -> None:
    """Time one or two ways in turns and print their medians."""
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        times.append((cpu_ms(ours), cpu_ms(plain) if plain else 0.0))
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    beside = f"{other:10.1f} {other / mine:8.1f}" if plain else f"{'':10} {'':8}"
    print(f"{name:<44} {mine:10.1f} {beside}")


def named_rows(labels: np.ndarray, folder: Path) -> tuple[Rows, str]:
    """Rows with names like ImageNet's, and a list of one per cent of them."""
    names = PackedStrings(f"n{c:08d}/n{c:08d}_{n}.JPEG" for n, c in enumerate(labels.tolist()))
    path = folder / "list.txt"
    picked = keyed_permutation(len(labels), 5)[: max(1, len(labels) // 100)]
    path.write_text("\n".join(names[row] for row in picked.tolist()))
    return Rows(FileImages("train", names), {"label": labels}), str(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    count = options.rows
    labels = np.sort(np.arange(count, dtype=np.int64) % options.classes)
    print(f"{count:,} rows of {options.classes:,} classes, NumPy {np.__version__}, one thread")
    print(f"{'median CPU-ms':<44} {'ours':>10} {'plain':>10} {'ratio':>8}")

    support = ClassStratifiedSampler(labels, IMAGES_PER_CLASS, num_batches=1)
    plain = plain_draw(support, labels)
    assert np.array_equal(support.draw(0, 0)[0], plain().ravel())
    report("support batch of all classes", lambda: support.draw(0, 0), plain, options.repeats)
    chosen = [choose_per_class(labels, lambda _: 13, 0), plain_choice(labels, 13)]
    assert np.array_equal(*chosen)
    report(
        "13 images per class (subset)",
        lambda: choose_per_class(labels, lambda _: 13, 0),
        lambda: plain_choice(labels, 13),
        options.repeats,
    )
    held_out = count // 100
    few = ClassesPerBatchSampler(labels, 4, 256)
    epoch, shard = EpochSampler(range(count)), ShardSampler(range(count), 8, 0)
    epoch.start_at(0, count // 2)
    alone = {
        "hold out 1 %": lambda: stratified_split(labels, held_out, 0),
        "support sampler: start": lambda: ClassStratifiedSampler(labels, IMAGES_PER_CLASS),
        "epoch: first sample": lambda: next(iter(epoch)),
        "epoch: all samples": lambda: sum(1 for _ in epoch),
        "epoch: resumed at its last sample": lambda: next(epoch._pairs(0, count - 1)),
        "epoch of few classes per batch: order": lambda: few.order(0),
        "shard of 8: all samples": lambda: sum(1 for _ in shard),
    }
    for name, action in alone.items():
        report(name, action, None, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        rows, path = named_rows(labels, Path(folder))
        for name, action in {
            "list of 1 % of the names": lambda: find_listed(path, rows),
            "select every second row": lambda: rows.select(np.arange(0, count, 2)),
        }.items():
            report(name, action, None, min(options.repeats, 3))


if __name__ == "__main__":
    main()
