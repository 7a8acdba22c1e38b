"""Ways in which a file is damaged: by a disk, a crash, a copy that was cut off."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

__all__ = ["DAMAGE"]


def _flip(path: Path, rng: random.Random) -> None:
    """Turn one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, rng: random.Random) -> None:
    """Keep only the beginning."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def _zero(path: Path, rng: random.Random) -> None:
    """Fill a piece with zeros, as a file system does that lost a page."""
    content = bytearray(path.read_bytes())
    begin = rng.randrange(len(content))
    end = min(len(content), begin + rng.choice([16, 512, 4096]))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)


def _mix(path: Path, rng: random.Random) -> None:
    """Exchange two pieces of equal length."""
    content = bytearray(path.read_bytes())
    length = rng.choice([16, 512, 2048])
    first, second = sorted(rng.sample(range(0, len(content) - length, length), 2))
    piece = content[first : first + length]
    content[first : first + length] = content[second : second + length]
    content[second : second + length] = piece
    path.write_bytes(content)


def _empty(path: Path, rng: random.Random) -> None:
    """Leave the name, without content."""
    os.truncate(path, 0)


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit flipped": _flip,
    "cut short": _truncate,
    "a piece of zeros": _zero,
    "two pieces exchanged": _mix,
    "emptied": _empty,
}
