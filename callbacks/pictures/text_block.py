"""Words in lines, in colours and boxes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import Colour, cut_to, put_text, text_width

__all__ = ["TextBlock"]

_BOX, _EDGE = (228, 232, 240), (120, 130, 160)


class TextBlock:
    """Lines of coloured words, drawn once all are there.

    Args:
        width: Of the picture, pixels.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._top = 0
        self._words: list[tuple[int, int, str, Colour, int, bool]] = []

    def wrapped(
        self,
        words: Sequence[str],
        colour: Colour,
        size: int,
        boxed: Sequence[bool] | None = None,
    ) -> None:
        """Set words one after the other, some in boxes, on as many lines as they need.

        Args:
            words: from left to right; one that is wider than the block is cut.
            colour: of all words.
            size: of the letters, in pixels.
            boxed: which words get a box, one value per word; None: none.
        """
        left, line = 0, _line(size)
        for word, has_box in zip(words, boxed or [False] * len(words), strict=True):
            shown = _shortened(word, size, self.width - 8)
            length = text_width(shown, size) + (8 if has_box else 0)
            if left and left + length > self.width:
                left, self._top = 0, self._top + line
            self._words.append((left + (4 if has_box else 0), self._top, shown, colour, size,
                                has_box))  # fmt: skip
            left += length + size // 3
        self._top += line

    def line(self, words: Sequence[tuple[str, Colour]], size: int) -> None:
        """Set one line; what does not fit is cut.

        Args:
            words: each with its colour, from left to right.
            size: of the letters, in pixels.
        """
        self._set(words, size, 0, self.width)
        self._top += _line(size)

    def cells(self, cells: Sequence[Sequence[tuple[str, Colour]]], size: int) -> None:
        """Set one line of columns of equal width.

        Args:
            cells: up to three columns, each a third of the width: words with their colours.
            size: of the letters, in pixels.
        """
        width = self.width // 3
        for number, words in enumerate(cells):
            self._set(words, size, number * width, (number + 1) * width - 8)
        self._top += _line(size)

    def _set(self, words: Sequence[tuple[str, Colour]], size: int, left: int, end: int) -> None:
        for word, colour in words:
            shown = _shortened(word, size, end - left)
            self._words.append((left, self._top, shown, colour, size, False))
            left += text_width(shown, size) + 6

    def drawn(self) -> Image.Image:
        """Return the picture, as high as its lines."""
        canvas = Image.new("RGB", (self.width, self._top + 2), "white")
        pen = ImageDraw.Draw(canvas)
        for left, top, word, colour, size, has_box in self._words:
            if has_box:
                corners = (left - 3, top, left + text_width(word, size) + 3, top + _line(size) - 4)
                pen.rectangle(corners, fill=_BOX, outline=_EDGE)
            put_text(pen, (left, top + 1), word, size, colour)
        return canvas


def _line(size: int) -> int:
    return round(size * 1.5)


def _shortened(word: str, size: int, width: int) -> str:
    """One line of a word that is not wider than so many pixels."""
    return cut_to(word, width, size) or "–"
