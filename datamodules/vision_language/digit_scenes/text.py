"""What is said of scenes of digits: captions, foils, and the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_ssl.datamodules.vision_language.digit_scenes.world import (
    COLOURS,
    DIGITS,
    Combination,
    Dice,
    Digit,
)

__all__ = [
    "PIECES",
    "Caption",
    "colour_word",
    "digit_word",
    "draw_caption",
    "draw_foil",
    "is_content",
    "spoken",
]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
_SYNONYMS = {
    "red": "scarlet",
    "green": "emerald",
    "blue": "cobalt",
    "yellow": "golden",
    "purple": "violet",
    "cyan": "turquoise",
    "small": "little",
    "large": "big",
    "top": "upper",
    "bottom": "lower",
}
_FUNCTION_WORDS = frozenset(("a", "and", "at", "in", "of", "than", "the", "with"))

_PIECES = """
    [PAD] [UNK] [CLS] [SEP] [MASK]
    a and at the in corner with of than above below higher lower left right top upper bottom one two
    digit digits six red green blue small large big image images more both total
    ze ##ro th ##ree fo ##ur fi ##ve se ##ven ei ##ght ni ##ne scar ##let emer ##ald cob ##alt yel
    ##low gol ##den pur ##ple vio cy ##an tur ##quo ##ise lit ##tle
"""
PIECES = tuple(_PIECES.split())


class Caption(NamedTuple):
    """A caption, and which of its words tell colours and digits.

    Attributes:
        words: its words.
        colours: places of words that name a colour.
        digits: places of words that name a digit.
    """

    words: tuple[str, ...]
    colours: tuple[int, ...]
    digits: tuple[int, ...]

    @property
    def text(self) -> str:
        """The caption as one string."""
        return " ".join(self.words)


def spoken(number: int) -> str:
    """Return the word for a number from 0 to 7.

    Args:
        number: 0 to 7.
    """
    return _NUMBERS[number]


def is_content(words: Sequence[str]) -> list[bool]:
    """Say of each word of a caption or statement whether it is a content word.

    Args:
        words: as the vocabulary has them.
    """
    return [word not in _FUNCTION_WORDS for word in words]


def _or_synonym(dice: Dice, word: str) -> str:
    return dice.one_of((word, _SYNONYMS[word]), (0.6, 0.4))


def colour_word(dice: Dice, colour: int) -> str:
    """Return a word for a colour (its place in ``COLOURS``), a synonym in 2 of 5 cases.

    Args:
        dice: says whether it is a synonym.
        colour: from 0.
    """
    return _or_synonym(dice, list(COLOURS)[colour])


def digit_word(digit: int) -> str:
    """Return the word for a digit (its place in ``DIGITS``).

    Args:
        digit: from 0.
    """
    return spoken(DIGITS[digit])


class _Writer:
    """Puts a caption together, and remembers where colours and digits are."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.words: list[str] = []
        self.colours: list[int] = []
        self.digits: list[int] = []

    def say(self, text: str) -> None:
        self.words += text.split()

    def name(self, digit: Digit) -> None:
        """A noun phrase: a small red three."""
        self.say("a")
        if self.dice.number() < 0.25:
            self.say(_or_synonym(self.dice, "small" if digit.is_small else "large"))
        self.colours.append(len(self.words))
        self.say(colour_word(self.dice, digit.combination.colour))
        if self.dice.number() < 0.3:
            self.say("digit")
        else:
            self.digits.append(len(self.words))
            self.say(digit_word(digit.combination.digit))

    def place(self, digit: Digit) -> None:
        """Where it is: top left."""
        form = self.dice.one_of(("{} {}", "at the {} {}", "in the {} {} corner"), (0.5, 0.25, 0.25))
        row, column = divmod(digit.cell, 2)
        self.say(form.format(_or_synonym(self.dice, ("top", "bottom")[row]), _side(column)))

    def caption(self) -> Caption:
        return Caption(tuple(self.words), tuple(self.colours), tuple(self.digits))


def _side(column: int) -> str:
    return ("left", "right")[column]


def _relations(one: Digit, other: Digit) -> list[str]:
    """What is true of where the first is, seen from the second."""
    (row, column), (other_row, other_column) = divmod(one.cell, 2), divmod(other.cell, 2)
    true = []
    if row != other_row:
        true += ["above", "higher than"] if row < other_row else ["below", "lower than"]
    if column != other_column:
        true.append("left of" if column < other_column else "right of")
    return true


def draw_caption(dice: Dice, scene: Sequence[Digit]) -> Caption:
    """Return a true caption of a scene.

    Args:
        dice: Where chance comes from.
        scene: One or two digits.
    """
    writer = _Writer(dice)
    if len(scene) == 1:
        form = dice.one_of(("where", "first_where", "count"), (0.5, 0.25, 0.25))
    else:
        form = dice.one_of(
            ("where", "first_where", "relation", "both", "count"), (0.25, 0.1, 0.25, 0.25, 0.15)
        )
    one, *others = scene  # which are in random order
    if form == "where":
        writer.name(one)
        writer.place(one)
    elif form == "first_where":
        writer.place(one)
        writer.name(one)
    elif form == "count":
        writer.say("two digits with" if others else "one digit with")
        writer.name(one)
    else:
        (other,) = others
        writer.name(one)
        writer.say("and" if form == "both" else dice.one_of(_relations(one, other)))
        writer.name(other)
    return writer.caption()


def draw_foil(dice: Dice, scene: Sequence[Digit], caption: Caption) -> str:
    """Return the caption with one word for a colour or a digit that the scene does not have.

    Args:
        dice: Where chance comes from.
        scene: What the caption is about.
        caption: A true caption.
    """
    place = dice.one_of((*caption.colours, *caption.digits))
    words = list(caption.words)
    there: list[Combination] = [digit.combination for digit in scene]
    if place in caption.colours:
        absent = [c for c in range(len(COLOURS)) if all(one.colour != c for one in there)]
        words[place] = colour_word(dice, dice.one_of(absent))
    else:
        absent = [d for d in range(len(DIGITS)) if all(one.digit != d for one in there)]
        words[place] = digit_word(dice.one_of(absent))
    return " ".join(words)
