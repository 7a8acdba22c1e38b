"""Checksums of a cache of decoded videos, by which it is read out of a store.

    shards.json    of the other files and all shards: bytes, SHA-256, time of change
    blocks.npz     of each shard, the CRC-32 of every block of it, uint32

A shard is fetched whole, and its SHA-256 has to be right; or blocks of it are, each with its own
checksum. Times only spare ``lit-ssl video-cache`` to read a shard again.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.arrays import arrays_in, read_arrays
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import read_bytes, write_file, write_json
from lit_ssl.json_text import parse_json
from lit_ssl.video.cache_files import DAMAGED, CacheSettings, read_index
from lit_ssl.video.cache_shards import shard_name

__all__ = [
    "BLOCK",
    "BLOCKS",
    "CHECKSUMS",
    "Checksum",
    "block_sums",
    "parse_blocks",
    "parse_checksums",
    "take_checksums",
    "write_checksums",
]

CHECKSUMS = "shards.json"
BLOCKS = "blocks.npz"
BLOCK = 1 << 17  # bytes
_VERSION = 1
_SHA256 = re.compile("[0-9a-f]{64}")


class Checksum(NamedTuple):
    """What is known of a file.

    Attributes:
        size: its bytes.
        sha256: in hexadecimal.
        changed: when it was changed, in ns.
    """

    size: int
    sha256: str
    changed: int


def take_checksums(folder: Path) -> dict[str, tuple[Checksum, np.ndarray]]:
    """Return checksums and blocks of the shards as they were, and remove their list.

    So that a cache that is being changed has none. What is damaged counts as unknown.

    Args:
        folder: of the cache.

    Returns:
        By the name of the file of a shard.
    """
    path, known = folder / CHECKSUMS, {}
    if path.is_file():
        try:
            sums = parse_checksums(read_bytes(path), str(path))
            blocks = read_arrays(folder / BLOCKS)
            known = {name: (sums[name], blocks[name]) for name in blocks if name in sums}
        except DAMAGED:
            known = {}
        path.unlink()
    return known


def write_checksums(
    folder: Path, settings: CacheSettings, known: Mapping[str, tuple[Checksum, np.ndarray]]
) -> None:
    """Write the checksums of a cache that is complete.

    Args:
        folder: Of the cache.
        settings: Of the cache.
        known: Of shards that are not read again if they are as long and as old as these say.
    """
    columns = read_index(folder)
    sums: dict[str, Checksum] = {}
    blocks: dict[str, np.ndarray] = {}
    for shard in np.unique(columns.shard[columns.frames > 0]).tolist():
        name = shard_name(shard, settings)
        found = (folder / name).stat()
        before = known.get(name)
        if before is not None and before[0][::2] == (found.st_size, found.st_mtime_ns):
            sums[name], blocks[name] = before
        else:
            sums[name], blocks[name] = _summed(folder / name)
    write_file(folder / BLOCKS, lambda file: np.savez(file, **blocks), binary=True)  # type: ignore[arg-type]
    for name in ("cache.json", "index.npz", BLOCKS):
        sums[name], _ = _summed(folder / name)
    write_json(folder / CHECKSUMS, {"version": _VERSION, "files": sums})


def _summed(path: Path) -> tuple[Checksum, np.ndarray]:
    digest, crcs, size = hashlib.sha256(), [], 0
    changed = path.stat().st_mtime_ns
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            crcs.append(zlib.crc32(block))
            size += len(block)
    return Checksum(size, digest.hexdigest(), changed), np.array(crcs, dtype=np.uint32)


def block_sums(content: bytes) -> np.ndarray:
    """Return the CRC-32 of each block of some bytes, which begin with one: uint32.

    Args:
        content: the bytes; the last block may be shorter.
    """
    view = memoryview(content)
    starts = range(0, len(content), BLOCK)
    return np.array([zlib.crc32(view[at : at + BLOCK]) for at in starts], dtype=np.uint32)


def parse_checksums(content: bytes, path: str) -> dict[str, Checksum]:
    """Return file name → checksum, as the file ``shards.json`` says.

    Args:
        content: The file.
        path: What messages call it.

    Raises:
        InputError: It is damaged or of another version.
    """
    try:
        values = parse_json(content)
        version, sums = values["version"], {}
        for name, (size, sha256, changed) in dict(values["files"]).items():
            if not all(type(number) is int and 0 <= number < 2**63 for number in (size, changed)):
                raise ValueError(f"{quoted(name)} has sizes that no file has")
            if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
                raise ValueError(f"the checksum of {quoted(name)} is none")
            sums[name] = Checksum(size, sha256, changed)
    except DAMAGED as error:
        raise InputError(f"{path} is damaged ({error}): copy the whole cache again") from error
    if version != _VERSION:
        raise InputError(
            f"{path} is of version {quoted(version)}, not {_VERSION}: make the cache anew"
        )
    return sums


def parse_blocks(content: bytes, path: str, sums: Mapping[str, Checksum]) -> dict[str, np.ndarray]:
    """Return shard → CRC-32 of its blocks, uint32, as the file ``blocks.npz`` says.

    Args:
        content: The file.
        path: What messages call it.
        sums: What ``shards.json`` says.

    Raises:
        InputError: It is damaged, or of other shards.
    """
    try:
        blocks = arrays_in(content)
        for name, crcs in blocks.items():
            if crcs.dtype != np.uint32 or crcs.shape != (-(-sums[name].size // BLOCK),):
                raise ValueError(f"it has other blocks than {name}")
    except DAMAGED as error:
        raise InputError(f"{path} is damaged ({error}): copy the whole cache again") from error
    return blocks
