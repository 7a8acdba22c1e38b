"""Ways in which a disk damages a file, each a pure function of a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KINDS = ("flip", "cut", "zeros", "swap", "grow")


def flip_bit(path: Path, where: float = 0.5) -> None:
    """Change one bit of a file in place, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 16
    path.write_bytes(content)


def damaged(content: bytes, seed: int) -> bytes:
    """A file as it was after a fault of the disk; one kind after the other."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    size = len(content)
    changed = bytearray(content)
    start = int(rng.integers(size))
    if kind == "flip":
        changed[start] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del changed[start:]
    elif kind == "zeros":
        length = int(rng.choice([16, 512, 4096]))
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif kind == "swap":
        length = int(rng.choice([8, 64, 512]))
        one, two = sorted(int(x) for x in rng.integers(size // length, size=2) * length)
        a, b = changed[one : one + length], changed[two : two + length]
        changed[one : one + length], changed[two : two + length] = b, a
    else:
        changed += rng.bytes(int(rng.integers(1, 64)))
    return bytes(changed)
