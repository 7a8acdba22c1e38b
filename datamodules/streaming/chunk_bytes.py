"""Images with labels as one file, in the format of litdata's chunks.

    uint32  N
    uint32  N + 1 places: where each item begins, and where the last one ends
    items   uint32 bytes of the image, uint32 8, the image as it was encoded, int64 label

Numbers are little-endian. litdata calls an item's form ``["bytes", "int"]``; its
``StreamingDataset`` gives ``(bytes, int)``. Nothing in it is a pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.files import write_json

__all__ = ["FORMAT", "Chunk", "ChunkFile", "packed", "write_litdata_index"]

FORMAT = ["bytes", "int"]  # litdata's names of the parts of an item
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_SPEC = f'[1, {{"type": "builtins.tuple", "context": "null", "children_spec": [{_LEAF}, {_LEAF}]}}]'
_HEAD = 8  # bytes of an item before its image
_TAIL = 8  # and behind it
_LARGEST = 2**32 - 1


class Chunk(NamedTuple):
    """The bytes of a chunk, and where its images lie in it.

    Attributes:
        content: The file.
        offsets: int64 ``[N]``: where the images begin, in bytes.
        sizes: int64 ``[N]``: their bytes.
    """

    content: bytes
    offsets: np.ndarray
    sizes: np.ndarray


class ChunkFile(NamedTuple):
    """A chunk as its split lists it.

    Attributes:
        name: of the file.
        size: its bytes.
        images: how many it holds.
        sha256: in hexadecimal.
    """

    name: str
    size: int
    images: int
    sha256: str


def packed(images: Sequence[bytes], labels: np.ndarray) -> Chunk:
    """Put images, at least one, into a chunk.

    Args:
        images: N encoded images.
        labels: int64 ``[N]``.

    Raises:
        InputError: They are more than 4 GiB together.
    """
    sizes = np.array([len(image) for image in images], dtype=np.int64)
    ends = 4 * (len(images) + 2) + np.cumsum(sizes + _HEAD + _TAIL)
    if ends[-1] > _LARGEST:
        raise InputError(
            f"{len(images):,} images of {int(sizes.sum()):,} bytes are too much for one shard,"
            " which has at most 4 GiB: give a smaller size"
        )
    starts = ends - (sizes + _HEAD + _TAIL)
    parts = [
        np.array([len(images), *starts, ends[-1]], dtype="<u4").tobytes(),
    ]
    for image, label in zip(images, labels.tolist(), strict=True):
        parts += [
            np.array([len(image), _TAIL], dtype="<u4").tobytes(),
            image,
            label.to_bytes(_TAIL, "little", signed=True),
        ]
    return Chunk(b"".join(parts), starts + _HEAD, sizes)


def write_litdata_index(folder: Path, chunks: Sequence[ChunkFile]) -> None:
    """Write ``index.json``, by which litdata reads a split; this library does not need it.

    Args:
        folder: of the split.
        chunks: its files, in order.
    """
    write_json(
        folder / "index.json",
        {
            "chunks": [
                {
                    "chunk_bytes": chunk.size,
                    "chunk_size": chunk.images,
                    "dim": None,
                    "filename": chunk.name,
                }
                for chunk in chunks
            ],
            "config": {
                "chunk_bytes": max((chunk.size for chunk in chunks), default=0),
                "chunk_size": None,
                "compression": None,
                "data_format": FORMAT,
                "data_spec": _SPEC,
                "encryption": None,
                "item_loader": "PyTreeLoader",
            },
        },
    )
