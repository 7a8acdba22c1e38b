"""Lines of text in pictures: a font that has the letters, and text that is cut to a width."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

__all__ = [
    "Colour", "cut_to", "in_one_line", "line_height", "put_text", "text_width", "wrapped",
]  # fmt: skip

Colour = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Looked for on the machine where a text has letters that the fonts before lack.
_ON_MACHINES = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc",
    "Arial Unicode.ttf", "msgothic.ttc", "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
)  # fmt: skip
_LACKING = "?"
_NO_CHARACTER = "\uffff"  # what fonts draw for it is what they draw for letters that they lack
_SAMPLE = 16  # size at which fonts are asked


def put_text(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int = 13,
    colour: Colour = (20, 20, 20),
    width: int | None = None,
    halo: Colour | None = None,
    keep_end: bool = False,
) -> None:
    """Write one line.

    Args:
        pen: of the picture.
        place: left and top, pixels.
        text: any Unicode; line breaks are spaces, and letters that no font at hand has are "?".
        size: of the letters, pixels.
        colour: of the letters.
        width: pixels at most, beyond which the text is cut; None: as wide as it is.
        halo: colour of a rim around the letters, which stand out from any ground so.
        keep_end: cut it in the middle, as names of files that differ at their end.
    """
    line = in_one_line(text) if width is None else cut_to(text, width, size, keep_end)
    font, shown = _lettered(line, size)
    rim = 0 if halo is None else 2
    pen.text(place, shown, fill=colour, font=font, stroke_width=rim, stroke_fill=halo)


def cut_to(text: str, width: float, size: int = 13, keep_end: bool = False) -> str:
    """One line that is not wider than so many pixels, with an ellipsis where it was cut.

    Args:
        text: any Unicode.
        width: pixels, at least those of the ellipsis.
        size: of the letters, pixels.
        keep_end: cut it in the middle.
    """
    line = in_one_line(text)
    if text_width(line, size) <= width:
        return line
    low, high = 0, len(line)  # how many letters fit
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(_shortened(line, middle, keep_end), size) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return _shortened(line, low, keep_end)


def wrapped(text: str, width: float, size: int = 13) -> list[str]:
    """The lines of a text that stay within a width; words that are wider are cut.

    Args:
        text: any Unicode; its own line breaks are kept.
        width: pixels.
        size: of the letters, pixels.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and text_width(longer, size) > width:
                lines.append(line)
                line = cut_to(word, width, size)
            else:
                line = longer if line else cut_to(word, width, size)
        lines.append(line)
    return lines


def text_width(text: str, size: int = 13) -> int:
    """How many pixels wide a line is.

    Args:
        text: any Unicode.
        size: of the letters, pixels.
    """
    font, shown = _lettered(in_one_line(text), size)
    return int(-(-font.getlength(shown) // 1))


def line_height(size: int = 13) -> int:
    """How many pixels apart lines are.

    Args:
        size: of the letters, pixels.
    """
    return round(size * 1.4)


def _shortened(line: str, count: int, keep_end: bool) -> str:
    """So many letters of a line, and an ellipsis for the others."""
    end = count // 2 if keep_end else 0
    return line[: count - end].rstrip() + "…" + line[len(line) - end :].lstrip()


def in_one_line(text: str) -> str:
    """A text without line breaks, and without halves of characters (undecodable names).

    Args:
        text: any Unicode.
    """
    return " ".join(text.encode(errors="replace").decode().split())


def _lettered(line: str, size: int) -> tuple[_Font, str]:
    """A font for a line, and the line in letters that this font has."""
    letters = set(line)
    number = _font_for(frozenset(letters))
    lacking = {letter for letter in letters if not _has(number, letter)}
    shown = "".join(_replaced(number, letter) if letter in lacking else letter for letter in line)
    return _font(number, size), shown


@cache
def _font_for(letters: frozenset[str]) -> int:
    """The number of the first font that has all letters, else of that which has most."""
    best, most = 0, -1
    for number in range(len(_fonts())):
        had = sum(_has(number, letter) for letter in letters)
        if had == len(letters):
            return number
        if had > most:
            best, most = number, had
    return best


def _replaced(number: int, letter: str) -> str:
    """What stands for a letter that a font lacks: its plain form, nothing, or "?"."""
    if unicodedata.category(letter) in ("Mn", "Me", "Cf", "Cc"):  # marks and signs without width
        return ""
    plain = unicodedata.normalize("NFKD", letter)
    kept = "".join(part for part in plain if part != letter and _has(number, part))
    return kept or _LACKING


@cache
def _has(number: int, letter: str) -> bool:
    font = _font(number, _SAMPLE)
    if letter.isspace():
        return True
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType
        return letter.isascii()
    return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_CHARACTER))


@cache
def _font(number: int, size: int) -> _Font:
    source = _fonts()[number]
    if source is not None:
        try:
            return ImageFont.truetype(source, size)
        except OSError:  # not on this machine: never chosen, since the default has as many letters
            pass
    return ImageFont.load_default(size)


@cache
def _fonts() -> Sequence[str | None]:
    """Fonts in the order in which they are asked; None is Pillow's own, which has no Greek."""
    found = find_spec("matplotlib")
    own: list[str | None] = []
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        own = [str(path)] if path.is_file() else []
    return [*own, None, *_ON_MACHINES]
