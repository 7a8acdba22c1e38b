"""Chunks to write, each by whichever process is free."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from lit_ssl.datamodules.reading.boxes import BoxImages
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, Images
from lit_ssl.datamodules.streaming.chunk_bytes import ChunkFile, packed
from lit_ssl.datamodules.streaming.encoded import encoded
from lit_ssl.datamodules.streaming.manifest import chunk_name
from lit_ssl.datamodules.vision_language.shards.tar_pairs import TarImages
from lit_ssl.errors import InputFileNotFoundError
from lit_ssl.files import write_file, write_json
from lit_ssl.json_text import parse_json

__all__ = ["ChunkJobs", "Written", "image_stamps"]

_THREADS = 16  # network file systems answer many questions at once
_UNFINISHED = "unfinished"
Job = tuple[str, int, Images, np.ndarray, np.ndarray, np.ndarray]


class Written(NamedTuple):
    """A chunk that is whole.

    Attributes:
        file: what its split lists.
        offsets: int64 ``[N]``, where each image begins.
        sizes: int64 ``[N]``, bytes of each image.
        crcs: int64 ``[N]``, CRC-32 of each image.
    """

    file: ChunkFile
    offsets: np.ndarray
    sizes: np.ndarray
    crcs: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size


def image_stamps(images: Images) -> np.ndarray:
    """Return the bytes of each image, about, and what changes when it does: int64 ``[N, 2]``.

    Args:
        images: in memory, in files or in tars; of others nothing is known, and all have one stamp.

    Raises:
        InputFileNotFoundError: A file is not there.
    """
    if isinstance(images, ArrayImages):
        pixels = images.pixels.flatten(1).numpy()
        crcs = [zlib.crc32(image.tobytes()) for image in pixels]
        size = pixels.shape[1] if len(pixels) else 0
        return np.array([[size, crc] for crc in crcs], dtype=np.int64).reshape(-1, 2)
    if isinstance(images, TarImages):
        times = np.array([_stat(tar, tar).st_mtime_ns for tar in images.tars], dtype=np.int64)
        return np.stack([images.sizes, times[images.tar_of]], axis=1)
    if not isinstance(images, FileImages):
        return np.tile(np.array([[200_000, 0]], dtype=np.int64), (len(images), 1))

    def stamp(row: int) -> tuple[int, int]:
        path = os.path.join(images.folder, images.names[row])
        found = _stat(path, f"image {path}")
        box = zlib.crc32(images.boxes[row].tobytes()) if isinstance(images, BoxImages) else 0
        return found.st_size, found.st_mtime_ns ^ box

    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = list(pool.map(stamp, range(len(images)), chunksize=1000))
    return np.array(stamps, dtype=np.int64).reshape(-1, 2)


def _stat(path: str, called: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InputFileNotFoundError(
            f"there is no {called} ({error.strerror}), which the data set names: get it again"
        ) from error


class ChunkJobs(Dataset):
    """Item i writes chunk i, and is what became of it.

    Args:
        out: Folder of the shards.
        jobs: Split, number, images, rows, labels and stamps of each chunk.
    """

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        self.out = out
        self.jobs = list(jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, item: int) -> Written:
        split, number, images, rows, labels, _ = self.jobs[item]
        contents = [encoded(images, int(row)) for row in rows]
        chunk = packed(contents, labels)
        name = chunk_name(number)
        write_file(self.out / split / name, lambda file: file.write(chunk.content), binary=True)
        sha256 = hashlib.sha256(chunk.content).hexdigest()
        written = Written(
            ChunkFile(name, len(chunk.content), len(rows), sha256),
            chunk.offsets,
            chunk.sizes,
            np.array([zlib.crc32(content) for content in contents], dtype=np.int64),
        )
        note = {"of": self._digest(item), "file": written.file}
        note |= {name: getattr(written, name).tolist() for name in ("offsets", "sizes", "crcs")}
        write_json(self._note(item), note)
        return written

    def finished(self) -> dict[int, Written]:
        """Return what is whole already, by item, and was made of what is there now."""
        found = {}
        for item, (split, number, *_) in enumerate(self.jobs):
            try:
                note = parse_json(self._note(item).read_bytes())
                if note["of"] != self._digest(item):
                    continue
                file = ChunkFile(*note["file"])
                if (self.out / split / chunk_name(number)).stat().st_size != file.size:
                    continue
                arrays = (np.array(note[n], dtype=np.int64) for n in ("offsets", "sizes", "crcs"))
                found[item] = Written(file, *arrays)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not there, or not whole: it is written
        return found

    def _note(self, item: int) -> Path:
        split, number, *_ = self.jobs[item]
        return self.out / _UNFINISHED / f"{split}-{number:05d}.json"

    def _digest(self, item: int) -> str:
        """What a chunk is made of: rows, labels, names, and the stamps of the images."""
        _, _, images, rows, labels, stamps = self.jobs[item]
        digest = hashlib.sha256()
        for array in (rows, labels, stamps):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps([images.name(int(row)) for row in rows]).encode())
        return digest.hexdigest()
