"""Drawing of captions with masked words, the guesses, and where words lie in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from lit_ssl.callbacks.pictures.text_block import TextBlock
from lit_ssl.drawing.lettering import Colour

__all__ = ["CaptionPicture", "Guess", "WordMap", "draw_captions", "fitted", "tinted"]

_GAP = 12
_IMAGE, _OTHER, _MAP = 224, 104, 192  # longest edge, pixels
_TEXT = 470
_LINE = 22
_MOST_WORDS = 10  # masked words of a caption in the table
_BLACK, _GREY = (20, 20, 20), (115, 115, 115)
_RIGHT, _WRONG = (0, 120, 50), (200, 25, 25)
_TINT = np.array([255.0, 130.0, 0.0])
_LEGEND = (
    "in boxes: masked words; green: guessed right, red: wrong, with the probability of the guess; "
    "orange: patches with more than an even share of a word"
)


class Guess(NamedTuple):
    """What stands in place of a masked word.

    Attributes:
        word: The pieces that are most probable.
        probability: Product of theirs.
        is_right: Whether all pieces are.
    """

    word: str
    probability: float
    is_right: bool


class WordMap(NamedTuple):
    """Where a word lies.

    Attributes:
        word: It.
        shares: ``[h, w]``, how much of it goes to each patch, as multiples of an even share.
    """

    word: str
    shares: np.ndarray


class CaptionPicture(NamedTuple):
    """An image with its caption, and what a model makes of both.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        other: Another image, uint8 ``[H', W', 3]``; None: there is none.
        words: Of the caption.
        guesses: For each word the guesses with the image and with the other one; None for words
            that are not masked. Without another image the second is None.
        matches: Probabilities that the caption belongs to the image, and to the other one; without
            another image the second is None. None of a model that does not tell.
        maps: Of some words.
    """

    image: np.ndarray
    other: np.ndarray | None
    words: Sequence[str]
    guesses: Sequence[tuple[Guess, Guess | None] | None]
    matches: tuple[float, float | None] | None = None
    maps: Sequence[WordMap] = ()


def draw_captions(pictures: Sequence[CaptionPicture], title: str = "") -> np.ndarray:
    """Draw pairs below each other.

    Args:
        pictures: At least one.
        title: Above them.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    rows = [_row(picture) for picture in pictures]
    width = max(row.width for row in rows) + 2 * _GAP
    header = TextBlock(width - 2 * _GAP)
    header.line([(title, _BLACK)], 15)
    header.wrapped(_LEGEND.split(" "), _GREY, 12)
    parts = [header.drawn(), *rows]
    height = sum(part.height + _GAP for part in parts) + _GAP
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    top = _GAP
    for number, part in enumerate(parts):
        if number > 0:
            pen.line([(_GAP, top - _GAP // 2), (width - _GAP, top - _GAP // 2)], fill=(215,) * 3)
        canvas.paste(part, (_GAP, top))
        top += part.height + _GAP
    return np.array(canvas)


def fitted(pixels: np.ndarray, edge: int) -> Image.Image:
    """Bring an image to a size: small ones enlarged by a whole factor without smoothing.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        edge: The longest edge that it may have.
    """
    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest <= edge:
        factor = edge // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * edge / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def tinted(image: Image.Image, shares: np.ndarray, most: float) -> Image.Image:
    """Paint patches orange that have more than an even share; the image is grey and darker.

    Args:
        image: RGB, of any size.
        shares: ``[h, w]``, as multiples of an even share.
        most: The share that is painted most, > 1.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)[:, :, None].repeat(3, axis=2)
    strength = np.clip((np.nan_to_num(shares) - 1) / (most - 1), 0, 1)
    cells = Image.fromarray((255 * strength).round().astype(np.uint8))
    alpha = np.asarray(cells.resize(image.size, Image.Resampling.NEAREST)) / 255 * 0.8
    drawn = 0.65 * grey * (1 - alpha[:, :, None]) + _TINT * alpha[:, :, None]
    return Image.fromarray(drawn.round().astype(np.uint8))


def _row(picture: CaptionPicture) -> Image.Image:
    blocks = [_images(picture), _text(picture)]
    # One scale for the words of an image; what is nearly even is not made to look uneven.
    most = max([2.0, *(float(np.nan_to_num(each.shares).max()) for each in picture.maps)])
    blocks += [_map(picture.image, each, most) for each in picture.maps]
    widths = [_IMAGE, _TEXT] + [_MAP] * len(picture.maps)
    canvas = Image.new(
        "RGB",
        (sum(widths) + _GAP * (len(widths) - 1), max(block.height for block in blocks)),
        "white",
    )
    left = 0
    for block, width in zip(blocks, widths, strict=True):
        canvas.paste(block, (left, 0))
        left += width + _GAP
    return canvas


def _images(picture: CaptionPicture) -> Image.Image:
    image = fitted(picture.image, _IMAGE)
    if picture.other is None:
        return image
    other = fitted(picture.other, _OTHER)
    label = TextBlock(_IMAGE - _OTHER - _GAP)
    label.wrapped(["the", "other", "image"], _GREY, 12)
    canvas = Image.new("RGB", (_IMAGE, image.height + 6 + other.height), "white")
    canvas.paste(image, (0, 0))
    canvas.paste(other, (0, image.height + 6))
    canvas.paste(label.drawn(), (other.width + 8, image.height + 6))
    return canvas


def _map(pixels: np.ndarray, each: WordMap, most: float) -> Image.Image:
    label = TextBlock(_MAP)
    largest = float(np.nan_to_num(each.shares).max())
    label.line([(each.word, _BLACK), (f"up to {largest:.1f} ×", _GREY)], 12)
    drawn = tinted(fitted(pixels, _MAP), each.shares, most)
    above = label.drawn()
    canvas = Image.new("RGB", (_MAP, above.height + drawn.height), "white")
    canvas.paste(above, (0, 0))
    canvas.paste(drawn, (0, above.height))
    return canvas


def _text(picture: CaptionPicture) -> Image.Image:
    block = TextBlock(_TEXT)
    is_masked = [guess is not None for guess in picture.guesses]
    block.wrapped(picture.words, _BLACK, 16, is_masked)
    if picture.matches is not None:
        own, apart = picture.matches
        line = [("belongs to its image:", _GREY), (f"{own:.2f}", _colour(own > 0.5))]
        if apart is not None:
            line += [("to the other one:", _GREY), (f"{apart:.2f}", _colour(apart <= 0.5))]
        block.line(line, 13)
    masked = [
        (word, guess)
        for word, guess in zip(picture.words, picture.guesses, strict=True)
        if guess is not None
    ]
    columns = 2 if picture.other is None else 3
    headers = ["masked", "with its image", "with the other image"][:columns]
    block.cells([[(header, _GREY)] for header in headers], 12)
    for word, (guess, other) in masked[:_MOST_WORDS]:
        row = [[(word, _BLACK)], _guessed(guess)]
        block.cells(row if other is None else [*row, _guessed(other)], 14)
    if len(masked) > _MOST_WORDS:
        block.line([(f"and {len(masked) - _MOST_WORDS} more", _GREY)], 12)
    return block.drawn()


def _guessed(guess: Guess) -> list[tuple[str, Colour]]:
    colour = _colour(guess.is_right)
    return [(f"{guess.probability:.2f}", _GREY), (guess.word, colour)]


def _colour(is_right: bool) -> Colour:
    return _RIGHT if is_right else _WRONG
