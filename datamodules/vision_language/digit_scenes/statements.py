"""Statements on two scenes of digits, true of two pairs and nearly true of two others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lit_ssl.datamodules.vision_language.digit_scenes.text import colour_word, digit_word, spoken
from lit_ssl.datamodules.vision_language.digit_scenes.world import (
    HELD_OUT,
    SEEN,
    Combination,
    Dice,
    Digit,
    draw_scene,
)

__all__ = ["PAIRS", "Pair", "Statement", "draw_statement"]

PAIRS = 4  # of a statement
_KINDS = {
    "colour_side": 0.25,
    "colour_any": 0.25,
    "colour_both": 0.2,
    "digit_side": 0.1,
    "digit_any": 0.1,
    "total": 0.05,
    "more": 0.05,
}
_SIDES = ("left", "right")
Scene = tuple[Digit, ...]


class Pair(NamedTuple):
    """Two scenes, and whether the statement is true of them."""

    left: Scene
    right: Scene
    is_true: bool


class Statement(NamedTuple):
    """A statement and its pairs, in random order.

    Attributes:
        text: the statement.
        kind: what it is about: a key of the table of kinds.
        pairs: four, two of which it is true of.
    """

    text: str
    kind: str
    pairs: tuple[Pair, ...]


def draw_statement(dice: Dice, split: str) -> Statement:
    """Return a statement and its pairs.

    Its colour and digit are seen together in training; elsewhere they are a held-out combination,
    which is then also what makes it true. "In one of the images" is true of pairs with exactly one
    such image. Where it is false, the digit is in the other image, or there is one that differs in
    its colour or in its digit only, or a number is wrong by one, or by the side.

    Args:
        dice: Where chance comes from.
        split: "train", "val" or "test".
    """
    kind = dice.one_of(tuple(_KINDS), tuple(_KINDS.values()))
    if kind in ("total", "more"):
        text, pairs = (_total if kind == "total" else _more)(dice, split)
    else:
        text, pairs = _about_a_digit(dice, split, kind)
    order = sorted(range(PAIRS), key=[dice.number() for _ in pairs].__getitem__)
    return Statement(text, kind, tuple(pairs[place] for place in order))


def _pair(side: int, there: Scene, elsewhere: Scene, is_true: bool) -> Pair:
    """A pair with one scene on a side."""
    return Pair(there, elsewhere, is_true) if side == 0 else Pair(elsewhere, there, is_true)


def _about_a_digit(dice: Dice, split: str, kind: str) -> tuple[str, list[Pair]]:
    target: Combination = dice.one_of(SEEN if split == "train" else HELD_OUT)
    side = dice.below(2)
    about, where = kind.split("_")
    noun = "digit" if about == "colour" else digit_word(target.digit)
    place = {
        "side": f"in the {_SIDES[side]} image",
        "any": "in one of the images",
        "both": "in both images",
    }[where]
    text = f"a {colour_word(dice, target.colour)} {noun} {place}"

    def matches(one: Combination) -> bool:
        return one == target if about == "digit" else one.colour == target.colour

    draw = _Scenes(dice, split, target, matches)
    if where == "both":
        pairs = [Pair(draw.one_with(), draw.one_with(), True) for _ in range(2)]
        pairs += [_pair(dice.below(2), draw.one_with(), draw.near_miss(), False) for _ in range(2)]
    elif where == "any":
        pairs = [_pair(dice.below(2), draw.one_with(), draw.without(), True) for _ in range(2)]
        pairs += [_pair(dice.below(2), draw.near_miss(), draw.without(), False) for _ in range(2)]
    else:
        pairs = [_pair(side, draw.one_with(), draw.without(), True) for _ in range(2)]
        other_image = _pair(1 - side, draw.one_with(), draw.without(), False)
        # A colour is told from the side alone: both false pairs have it in the other image.
        second = (
            _pair(1 - side, draw.one_with(), draw.near_miss(), False)
            if about == "colour"
            else _pair(side, draw.near_miss(), draw.without(), False)
        )
        pairs += [other_image, second]
    return text, pairs


class _Scenes:
    """Scenes with or without what a statement is about."""

    def __init__(
        self,
        dice: Dice,
        split: str,
        target: Combination,
        matches: Callable[[Combination], bool],
    ) -> None:
        self.dice, self.split, self.matches = dice, split, matches
        pool = SEEN if split == "train" else [target]
        self.right = [one for one in pool if matches(one)]
        # One of both is right, and what the statement says is not.
        self.nearly = [
            one
            for one in (SEEN if split == "train" else SEEN + HELD_OUT)
            if not matches(one) and (one.colour == target.colour) != (one.digit == target.digit)
        ]

    def one_with(self) -> Scene:
        return draw_scene(self.dice, self.split, self.dice.one_of(self.right))

    def without(self) -> Scene:
        return draw_scene(self.dice, self.split, allowed=lambda one: not self.matches(one))

    def near_miss(self) -> Scene:
        first = self.dice.one_of(self.nearly)
        return draw_scene(self.dice, self.split, first, lambda one: not self.matches(one))


def _counted(dice: Dice, split: str, counts: tuple[int, int], is_true: bool) -> Pair:
    left, right = (draw_scene(dice, split, count=count) for count in counts)
    return Pair(left, right, is_true)


def _total(dice: Dice, split: str) -> tuple[str, list[Pair]]:
    counts = [(left, right) for left in (1, 2) for right in (1, 2)]
    number = 2 + dice.below(3)
    right = [pair for pair in counts if sum(pair) == number]
    wrong = [pair for pair in counts if abs(sum(pair) - number) == 1]
    pairs = [
        _counted(dice, split, dice.one_of(right if is_true else wrong), is_true)
        for is_true in (True, True, False, False)
    ]
    return f"{spoken(number)} digits in total", pairs


def _more(dice: Dice, split: str) -> tuple[str, list[Pair]]:
    side = dice.below(2)
    text = f"more digits in the {_SIDES[side]} image than in the {_SIDES[1 - side]} image"
    more, fewer = ((2, 1), (1, 2)) if side == 0 else ((1, 2), (2, 1))
    equal = dice.one_of(((1, 1), (2, 2)))
    pairs = [_counted(dice, split, counts, counts == more) for counts in (more, more, fewer, equal)]
    return text, pairs
