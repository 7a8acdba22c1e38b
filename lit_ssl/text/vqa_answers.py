"""Answers of VQA: one spelling for what means the same, and what an answer is worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["normalize_answer", "score_answer", "soft_score"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_ARTICLES = ("a", "an", "the")
_NUMBERS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
            "ten")  # fmt: skip
_NUMERALS = {word: str(max(0, place - 1)) for place, word in enumerate(_NUMBERS)}
# The official evaluation mends these where an apostrophe is lacking, and no others: not "shes".
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, sign in enumerate(word) if sign == "'"]


_MENDED = {
    lacking: word for word in _CONTRACTIONS.split() for lacking in _without_one_apostrophe(word)
}
_MENDED["somebody'd"] = "somebodyd"  # so it stands in the official table


def normalize_answer(answer: str) -> str:
    """Return the spelling of an answer by which VQA compares it.

    Lower case, numbers up to ten as numerals, without articles and most punctuation, apostrophes
    put back into known contractions. A mark that touches a blank vanishes, one inside of a word
    becomes a blank (``black/white`` → ``black white``), and all vanish where a comma stands between
    digits. The rules are those of VQA's evaluation (arXiv 1505.00468), as ViLT uses them
    (dandelin/ViLT at 762fd39).

    Args:
        answer: Any text.

    Examples:
        >>> normalize_answer("The two T-shirts!")
        '2 t shirts'
    """
    text = answer
    in_number = _COMMA_IN_NUMBER.search(answer) is not None
    for mark in _PUNCTUATION:
        at_edge = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if at_edge or in_number else " ")
    words = (_NUMERALS.get(word, word) for word in _PERIOD.sub("", text).lower().split())
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def soft_score(count: int, annotators: int = 10) -> float:
    """Return what an answer is worth that so many of the annotators gave.

    The mean of ``min(1, matches / 3)`` over the sets of annotators without one of them (VQA's
    evaluation): 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more of 10.

    Args:
        count: Annotators who gave it, from 0 to ``annotators``.
        annotators: All of them, from 1.
    """
    without_one_of_them = count * min(3, count - 1) + (annotators - count) * min(3, count)
    return without_one_of_them / (3 * annotators)


def score_answer(answer: str, given: Sequence[str]) -> float:
    """Return what an answer is worth, in [0, 1], all spelled by ``normalize_answer``.

    Args:
        answer: The answer to judge.
        given: Answers of the annotators, at least one; usually 10.
    """
    counts = Counter(map(normalize_answer, given))
    return soft_score(counts[normalize_answer(answer)], len(given))
