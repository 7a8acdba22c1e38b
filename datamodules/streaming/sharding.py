"""From the images of a data module to shards: planned, written by several processes, gone on with.

While it is written there are, beside the shards:

    OUT/unfinished/plan.json          what is being written; the folder goes at the end
    OUT/unfinished/train-00012.json   a chunk that is whole: checksums, and what it was made of
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from lit_ssl.datamodules.groups.data import GroupedData
from lit_ssl.datamodules.images.part import ImagePart
from lit_ssl.datamodules.loading.batches import as_is
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import Images, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.streaming.chunk_bytes import write_litdata_index
from lit_ssl.datamodules.streaming.chunk_jobs import ChunkJobs, Written, image_stamps
from lit_ssl.datamodules.streaming.encoded import kind_of
from lit_ssl.datamodules.streaming.manifest import MANIFEST, Manifest, SplitFiles
from lit_ssl.datamodules.streaming.row_files import RowTable, rows_content
from lit_ssl.errors import InputError, InputRuntimeError, InputTypeError, listed
from lit_ssl.files import describe_folder, read_bytes, write_file, write_json
from lit_ssl.json_text import parse_json
from lit_ssl.opening import writing
from lit_ssl.parts import remove_leftovers
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["ShardReport", "shard_images"]

_UNFINISHED = "unfinished"
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ShardReport(NamedTuple):
    """What a set of shards holds: images by split, chunks, bytes, and chunks that were there.

    Attributes:
        images: number of images by split.
        chunks: number of all chunks.
        size: bytes of all chunks.
        kept: how many of the chunks were there before.
    """

    images: dict[str, int]
    chunks: int
    size: int
    kept: int


def shard_images(
    data: ImageDataModule,
    out: str | Path,
    *,
    size: int = 64_000_000,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> ShardReport:
    """Write the images of a data module as shards, for ``StreamingImageDataModule``.

    All images of the data set's own splits, with its columns, are written: hold-out and subset are
    for who reads them. Files are kept byte for byte; other images become PNG. Training images are
    spread over the shards by a fixed permutation, so that each has images of many classes.

    Called again after it was killed, it goes on; shards whose images have changed since are written
    again.

    Args:
        data: An image data module, without a subset.
        out: Folder to write: new, empty, or that of an earlier call that was not finished.
        size: Bytes of images per shard, about.
        workers: Processes that write; at most 1: this one.
        progress: Told (shards that are done, all shards, bytes of those that are done).

    Returns:
        What was written.

    Raises:
        InputError: The module or the folder cannot be used, or an image cannot be read.
        OutputError: The disk is full.
    """
    _check_data(data)
    out = _checked_folder(str(out))
    data.prepare_data()
    loaded = {split: data.load_rows(split) for split in _SPLITS}
    plans = [_planned(split, rows, size) for split, rows in loaded.items() if rows is not None]
    _claim(out, data, plans, size)
    jobs = ChunkJobs(out, [job for plan in plans for job in plan.jobs()])
    done = jobs.finished()
    kept = len(done)
    total = sum(written.size for written in done.values())
    left = [number for number in range(len(jobs)) if number not in done]
    for number, written in zip(left, _each(jobs, left, workers), strict=True):
        done[number] = written
        total += written.size
        if progress is not None:
            progress(len(done), len(jobs), total)
    first, splits = 0, {}
    for plan in plans:
        last = first + plan.chunks
        splits[plan.split] = _finish(out, plan, [done[number] for number in range(first, last)])
        first = last
    write_json(out / MANIFEST, _manifest(data, splits).plain())
    shutil.rmtree(out / _UNFINISHED)
    counts = {plan.split: len(plan.images) for plan in plans}
    return ShardReport(counts, len(jobs), total, kept)


@dataclass
class _Plan:
    """Which chunk of a split has which images."""

    split: str
    images: Images
    columns: dict[str, np.ndarray]
    stamps: np.ndarray
    order: np.ndarray
    ends: np.ndarray

    @property
    def chunks(self) -> int:
        return len(self.ends)

    def jobs(self) -> list[tuple[str, int, Images, np.ndarray, np.ndarray, np.ndarray]]:
        """Split, number, images, rows, labels and stamps of each chunk."""
        return [
            (self.split, number, self.images, rows, self.columns["label"][rows], self.stamps[rows])
            for number, rows in enumerate(self.rows())
        ]

    def rows(self) -> list[np.ndarray]:
        """Rows of each chunk."""
        return np.split(self.order, self.ends[:-1]) if self.chunks else []


def _planned(split: Split, rows: Rows, size: int) -> _Plan:
    images = rows.source.images if isinstance(rows.source, ImageReader) else rows.source
    assert isinstance(images, Images)
    kind_of(images)
    stamps = image_stamps(images)
    order = np.arange(len(images), dtype=np.int64)
    if split == "train":
        order = keyed_permutation(len(images), Stream.SHARD_PLACES)
    begins = np.cumsum(stamps[order, 0]) - stamps[order, 0]
    _, counts = np.unique(begins // size, return_counts=True)
    return _Plan(split, images, rows.columns, stamps, order, np.cumsum(counts))


def _each(jobs: ChunkJobs, left: list[int], workers: int) -> DataLoader:
    """Write chunks, and give what became of each, in order."""
    workers = min(workers, len(left)) if workers > 1 else 0
    return DataLoader(jobs, sampler=left, batch_size=None, num_workers=workers, collate_fn=as_is)


def _finish(out: Path, plan: _Plan, written: list[Written]) -> SplitFiles:
    """Write the file of rows and litdata's index of a split."""
    count = len(plan.images)
    places = {name: np.zeros(count, dtype=np.int64) for name in ("chunk", "offset", "size", "crc")}
    for number, (rows, chunk) in enumerate(zip(plan.rows(), written, strict=True)):
        places["chunk"][rows] = number
        places["offset"][rows] = chunk.offsets
        places["size"][rows] = chunk.sizes
        places["crc"][rows] = chunk.crcs
    named = count > 0 and plan.images.name(0) is not None
    names = PackedStrings(plan.images.name(row) or "" for row in range(count)) if named else None
    content = rows_content(RowTable(**places, columns=plan.columns, names=names))
    folder = out / plan.split
    write_file(folder / "rows.npz", lambda file: file.write(content), binary=True)
    chunks = tuple(chunk.file for chunk in written)
    write_litdata_index(folder, chunks)
    remove_leftovers(folder)
    sha256 = hashlib.sha256(content).hexdigest()
    return SplitFiles(kind_of(plan.images), count, chunks, len(content), sha256)


def _manifest(data: ImageDataModule, splits: dict[str, SplitFiles]) -> Manifest:
    transform = data.default_eval_transform()
    return Manifest(
        data=type(data).__name__,
        class_names=tuple(data.class_names),
        mean=tuple(data.mean),
        std=tuple(data.std),
        in_channels=data.in_channels,
        eval_transform={
            "size": transform.size,
            "resize": transform.resize,
            "channels": transform.channels,
            "interpolation": transform.interpolation.value,
        },
        val_size=data.val_size,
        reported=data.reported,
        inputs=data.inputs,
        chosen_by=data.chosen_by,
        splits=splits,
    )


# What cannot be


def _check_data(data: object) -> None:
    if not isinstance(data, ImageDataModule):
        inner = getattr(data, "dataset", None)
        hint = (
            f": shard its dataset, {type(inner).__name__}, and give it a StreamingImageDataModule"
            if isinstance(inner, ImageDataModule)
            else ""
        )
        raise InputTypeError(
            f"{type(data).__name__} is no data module of images, and shards are of images{hint}"
        )
    name = type(data).__name__
    if isinstance(data, ImagePart):
        raise InputTypeError(
            f"{name} takes some images of another data module: shard that one,"
            f" {type(data.data).__name__}, and give {name} a StreamingImageDataModule"
        )
    if isinstance(data, GroupedData) or data.carried != ("label",):
        raise InputTypeError(
            f"batches of {name} carry more than labels, and those of StreamingImageDataModule have"
            " labels only: read this data set from its files"
        )
    if more := getattr(data, "reported_sets", ()):
        raise InputError(f"shards hold one set: leave out {listed(more)} of {name}")
    if data.subset is not None or data.hparams.get("val_file") is not None:
        raise InputError(
            "shards hold all images of a data set: leave out subset and val_file here, and give"
            " them to StreamingImageDataModule"
        )
    if data.eval_transform.channels is not None:
        raise InputError(
            "shards hold images as they are: leave out eval_transform.channels here, and give it"
            " to StreamingImageDataModule"
        )


def _checked_folder(name: str) -> Path:
    if "://" in name:
        raise InputError(
            f"shards are written to a folder of this machine, not to {name}: copy them there"
            " afterwards, by `aws s3 sync` or gsutil"
        )
    out = Path(name)
    if (out / MANIFEST).is_file():
        raise InputError(f"{out} holds a whole set of shards: give another folder")
    if (out / _UNFINISHED / "plan.json").is_file():
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"shards need a new or empty folder: {describe_folder(out)}; give another one"
        )
    return out


def _claim(out: Path, data: ImageDataModule, plans: list[_Plan], size: int) -> None:
    """Note what is written, or go on with the same."""
    path = out / _UNFINISHED / "plan.json"
    plan = {
        "data": type(data).__name__,
        "size": size,
        "images": {plan.split: len(plan.images) for plan in plans},
        "kinds": {plan.split: kind_of(plan.images) for plan in plans},
    }
    if not path.is_file():
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
        return
    try:
        earlier = parse_json(read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): give another folder") from error
    if earlier != plan:
        raise InputRuntimeError(
            f"{out} has unfinished shards of {earlier}, and this would be {plan}: repeat that call,"
            " or give another folder"
        )
