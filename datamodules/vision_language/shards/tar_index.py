"""Where the pairs of a tar on disk are, found in one pass and kept in a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.arrays import read_arrays
from lit_ssl.datamodules.vision_language.shards.tar_members import CorruptShardError, read_pairs
from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.json_text import parse_json
from lit_ssl.opening import open_file

__all__ = ["TarIndex", "index_path", "index_tar", "stored_index"]

_VERSION = 1  # of the format, and of which samples are pairs


class TarIndex(NamedTuple):
    """The pairs of one tar, in its order.

    Attributes:
        keys: N paths inside the tar, without suffix.
        captions: N texts.
        offsets: int64 ``[N]``: where the image files begin in the tar, in bytes.
        sizes: int64 ``[N]``: their bytes.
        left_out: Why samples are no pairs → how many, and the key of the first.
        broken: What is wrong with the tar; its pairs are those before that. Empty: nothing.
    """

    keys: Sequence[str]
    captions: Sequence[str]
    offsets: np.ndarray
    sizes: np.ndarray
    left_out: Mapping[str, tuple[int, str]]
    broken: str


def index_path(tar: Path, caption: str, folder: Path | None) -> Path:
    """Return the file that the index of a tar is kept in.

    Args:
        tar: The tar.
        caption: Where captions are; see ``read_pairs``.
        folder: Where all indices are; None: the folder ``.lit_ssl_index`` beside the tar.
    """
    name = f"{tar.name}.{_digest(caption)}.npz"
    if folder is None:
        return tar.parent / ".lit_ssl_index" / name
    # Shards of different sets have the same names.
    return folder / f"{tar.parent.name}_{_digest(str(tar.parent.resolve()))}" / name


def stored_index(tar: Path, caption: str, path: Path) -> TarIndex | None:
    """Return the index that is kept in a file; None where it is not there, or of another tar.

    Args:
        tar: The tar, which must have the size and the time of change that it had.
        caption: Where captions are.
        path: The file.
    """
    try:
        arrays = read_arrays(path)
        about = parse_json(arrays["about"].tobytes())
        if about["stamp"] != _stamp(tar, caption):
            return None
        left_out = {why: (int(n), str(first)) for why, (n, first) in about["left_out"].items()}
        keys, captions = _unpacked(arrays["keys"]), _unpacked(arrays["captions"])
        offsets, sizes = arrays["offsets"], arrays["sizes"]
        for column in (offsets, sizes):
            if column.dtype != np.int64 or column.shape != (len(keys),) or (column < 0).any():
                return None
        if len(captions) != len(keys):
            return None
        return TarIndex(keys, captions, offsets, sizes, left_out, str(about["broken"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there, or not whole: it is made again


def index_tar(tar: Path, caption: str, path: Path) -> TarIndex:
    """Read a tar once, and keep what was found.

    Args:
        tar: The tar.
        caption: Where captions are.
        path: File to keep it in.

    Raises:
        InputError: The tar cannot be opened, or the file not be written.
    """
    stamp = _stamp(tar, caption)
    left_out: dict[str, tuple[int, str]] = {}

    def count(why: str, key: str) -> None:
        known, first = left_out.get(why, (0, key))
        left_out[why] = (known + 1, first)

    pairs, broken, is_final = [], "", True
    try:
        with open_file(tar) as file:
            for pair in read_pairs(file, str(tar), caption, count, with_images=False):
                pairs.append(pair)
    except CorruptShardError as error:
        broken = str(error)
        # Of a disk that failed, which may work again, nothing is kept.
        is_final = not isinstance(error.__cause__, OSError)
    except OSError as error:
        raise InputError(
            f"{tar} cannot be read ({error.strerror or error}): make it readable, or leave it out"
            " of shards"
        ) from error
    index = TarIndex(
        [pair.key for pair in pairs],
        [pair.caption for pair in pairs],
        np.array([pair.offset for pair in pairs], dtype=np.int64),
        np.array([pair.size for pair in pairs], dtype=np.int64),
        left_out,
        broken,
    )
    if not is_final:
        return index
    about = json.dumps({"stamp": stamp, "left_out": left_out, "broken": broken})

    def write(file: Any) -> None:
        np.savez(
            file,
            about=np.frombuffer(about.encode(), dtype=np.uint8),
            keys=_packed(index.keys),
            captions=_packed(index.captions),
            offsets=index.offsets,
            sizes=index.sizes,
        )

    try:
        write_file(path, write, binary=True)
    except OSError as error:
        raise InputError(
            f"The index of {tar} cannot be written to {path} ({error.strerror or error}): set"
            " index_dir to a folder for such files"
        ) from error
    return index


def _stamp(tar: Path, caption: str) -> list[int | str]:
    found = tar.stat()
    return [_VERSION, caption, found.st_size, found.st_mtime_ns]


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:10]


# JSON escapes what is no UTF-8 in names, and it keeps a list apart from its texts' own line breaks.
def _packed(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)


def _unpacked(array: np.ndarray) -> list[str]:
    texts = parse_json(array.tobytes())
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("no list of texts")
    return texts
