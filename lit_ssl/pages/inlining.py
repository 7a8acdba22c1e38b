"""Pictures inside a page: as data, at a bounded size."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from lit_ssl.errors import InputError
from lit_ssl.files import read_bytes

__all__ = ["Inlined", "inline_pictures"]

_LIMIT = 20_000_000  # bytes of all pictures of a page, as they stand in it
_KINDS = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}
_TURNED = ("BMP", "PPM", "TIFF")  # into PNG
_SMALLEST = 64  # pixels, of the longer edge


class Inlined(NamedTuple):
    """A picture as it stands in a page.

    Attributes:
        uri: its data, to be shown as it is; empty where it cannot be shown.
        width: in pixels, as shown.
        height: in pixels, as shown.
        note: what was done to it or why it is not there, in words; may be empty.
    """

    uri: str
    width: int
    height: int
    note: str


def inline_pictures(paths: Sequence[Path], limit: int = _LIMIT) -> list[Inlined]:
    """Turn files of pictures into data for a page, together within a limit.

    Each has its share; what small pictures leave over goes to the larger ones. Those that are still
    too large are scaled down, and say so.

    Args:
        paths: PNG, JPEG, GIF or WebP.
        limit: bytes of all of them, as they stand in the page.

    Returns:
        One for each path. A file that cannot be read has a note and no data.
    """
    contents: list[bytes | str] = []
    for path in paths:
        try:
            contents.append(read_bytes(path))
        except InputError as error:
            contents.append(str(error))
    sizes = {n: len(c) for n, c in enumerate(contents) if isinstance(c, bytes)}
    found: dict[int, Inlined] = {}
    left = limit * 3 // 4  # base64 writes four characters for three bytes
    for done, n in enumerate(sorted(sizes, key=lambda n: sizes[n])):
        share = left // (len(sizes) - done)
        found[n], used = _inline(contents[n], share)  # type: ignore[arg-type]
        left -= used
    return [found.get(n) or Inlined("", 0, 0, str(c)) for n, c in enumerate(contents)]


def _inline(content: bytes, share: int) -> tuple[Inlined, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # no other formats, whatever a file is called: for some of them other programs are run
            image = Image.open(BytesIO(content), formats=[*_KINDS, *_TURNED])
            kind = _KINDS.get(image.format or "")
            if kind is not None and len(content) <= share:
                image.load()  # cut short, it would be shown in part
                return Inlined(_uri(kind, content), *image.size, note=""), len(content)
            return _smaller(image, share)
    except UnidentifiedImageError:  # its text is about an object in memory
        return Inlined("", 0, 0, "cannot be shown: it is no picture of a known kind"), 0
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        return Inlined("", 0, 0, f"cannot be shown: {error}"), 0


def _smaller(image: Image.Image, share: int) -> tuple[Inlined, int]:
    width, height = image.size
    drawn = image.convert("RGBA" if image.has_transparency_data else "RGB")
    while True:
        file = BytesIO()
        drawn.save(file, "PNG", optimize=True)
        content = file.getvalue()
        if len(content) <= share:
            break
        # sizes of files follow areas, more or less
        factor = min(0.9, 0.95 * (share / len(content)) ** 0.5)
        edges = max(1, int(drawn.width * factor)), max(1, int(drawn.height * factor))
        if max(edges) < _SMALLEST:
            return Inlined("", 0, 0, "left out: the page holds no more"), 0
        drawn = image.convert(drawn.mode).resize(edges, Image.Resampling.LANCZOS)
    note = "" if drawn.size == image.size else f"scaled down from {width}×{height}"
    return Inlined(_uri("png", content), *drawn.size, note=note), len(content)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
