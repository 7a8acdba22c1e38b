"""The kinds of harm, and which try gets which: a pure function of the seed and its number."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from soak.scenarios import Scenario

__all__ = ["KINDS", "Kind", "Plan", "plan"]


class Kind(NamedTuple):
    """A row of the table.

    Args:
        family: what is done.
        weight: how many of a round of tries are of this kind.
        is_for_two: whether it needs two processes.
    """

    family: Literal["signal", "write", "numbers", "damage"]
    weight: int
    is_for_two: bool = False


KINDS: dict[str, Kind] = {
    "SIGKILL at any time": Kind("signal", 4),
    "SIGKILL in a step, a validation, a save": Kind("signal", 3),
    "SIGKILL, and again while it goes on": Kind("signal", 2),
    "SIGKILL of one of two processes": Kind("signal", 2, is_for_two=True),
    "killed within the write of a checkpoint": Kind("write", 3),
    "SIGTERM at any time": Kind("signal", 2),
    "SIGTERM in a step, a validation, a save": Kind("signal", 1),
    "SIGTERM to one of two processes": Kind("signal", 1, is_for_two=True),
    "no room for a checkpoint": Kind("write", 1),
    "a weight becomes NaN": Kind("numbers", 1),
    "a gradient becomes infinite": Kind("numbers", 1),
    "newest damaged, go on from the last": Kind("damage", 8),
    "damaged and named, go on from it": Kind("damage", 6),
    "damaged and named, validate it": Kind("damage", 4),
    "all damaged, go on from the last": Kind("damage", 3),
}


class Plan(NamedTuple):
    """A try: its number, kind and scenario, and the generator of all else that is drawn."""

    number: int
    kind: str
    scenario: str
    rng: random.Random

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"try_{self.number:04d}"


def plan(
    seed: int, number: int, kinds: Collection[str], scenarios: Mapping[str, Scenario]
) -> Plan | None:
    """Which harm is done to which training.

    Kinds come in rounds, in each of which a kind has its weight; scenarios come in rounds, too.

    Args:
        seed: of the soak.
        number: of the try, from 0.
        kinds: those that are tried.
        scenarios: those that are tried.

    Returns:
        None where the kind needs two processes and no scenario has them.
    """
    deck = [name for name in KINDS if name in kinds for _ in range(KINDS[name].weight)]
    kind = _dealt(deck, f"{seed}/kinds", number)
    fitting = [n for n, s in scenarios.items() if s.ranks == 2 or not KINDS[kind].is_for_two]
    if not fitting:
        return None
    scenario = _dealt(fitting, f"{seed}/scenarios/{len(fitting)}", number)
    return Plan(number, kind, scenario, random.Random(f"{seed}/{number}/{kind}/{scenario}"))


def _dealt(deck: list[str], seed: str, number: int) -> str:
    """The card of this number, where the deck is shuffled anew for each round."""
    turn, place = divmod(number, len(deck))
    cards = list(deck)
    random.Random(f"{seed}/{turn}").shuffle(cards)
    return cards[place]
