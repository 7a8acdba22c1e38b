"""Damages the bytes of a file as disks, editors and strangers do, by a seeded generator."""

from __future__ import annotations

import random
import re

__all__ = ["mutated"]

EXTREMES = (
    b"0", b"-1", b"-0", b"1", b"255", b"256", b"2147483646", b"4294967296", b"-9223372036854775808",
    b"99999999999999999999", b"9" * 5000, b"1e999", b"-1e308", b"1e-400", b"NaN", b"Infinity",
    b"nan", b"inf", b"1_000", b"+5", b"0x10", b"1.0", b"6.5e+01", "٣".encode(), "²".encode(),
    b"\xc2\xa05", b"", b"null", b"true", b"[]", b"{}", b'""', b"'", b"1e3",
)  # fmt: skip
PIECES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\t", b",", b'"', b"'", b"\\",
    b"\\ud800", b"\\u0000", b"../", b"/etc/passwd", b"[" * 3000, b"{\"a\":" * 3000, b"a" * 100_000,
    b"=1+1", b"\xc2\x85", b"\xe2\x80\xa8", b"<<: *a", b"&a ", b"*a", b"!!python/object:os.system ",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three damages."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(_DAMAGES)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x80"
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut_end(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _cut_middle(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + content[start + rng.choice((1, 2, 8, 512)) :]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + rng.choice(PIECES) + content[start:]


def _random_bytes(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    new = rng.randbytes(rng.choice((1, 4, 8)))
    return content[:start] + new + content[start + rng.choice((0, len(new))) :]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    start = _place(content, rng)
    part = content[start : start + rng.choice((1, 16, 4096))]
    return content[:start] + part + content[start:]


def _lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        lines.insert(second, lines[first])
    elif kind == 1:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        del lines[first]
    return b"\n".join(lines)


def _number(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb"-?[0-9]+(?:\.[0-9]+)?", content, rng)


def _word(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb'"[^"\n]*"|[A-Za-z_]+', content, rng)


def _replaced(pattern: bytes, content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(pattern, content[:200_000]))
    if not found:
        return _flip(content, rng)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(EXTREMES) + content[match.end() :]


def _encoded(content: bytes, rng: random.Random) -> bytes:
    return content.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")


def _other(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\n", b"\x00" * 64, rng.randbytes(200), b"null", b"[]", b"{}", b"1"))


_DAMAGES = (
    _flip, _flip, _cut_end, _cut_middle, _insert, _random_bytes, _doubled, _lines, _number, _number,
    _word, _encoded, _other,
)  # fmt: skip
