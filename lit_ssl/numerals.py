"""Numbers as text: what files of others may call one.

Python's ``int`` and ``float`` also read ``1_000``, ``+5``, digits of all scripts and blanks around
them, and refuse more than 4,300 digits with an error of their own. Files mean plain digits.
"""

from __future__ import annotations

import math
import re

__all__ = ["finite_number", "whole_number"]

_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)  # all of them fit into int64
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST = 400  # digits of the largest float, and more


def whole_number(text: str) -> int | None:
    """Return the whole number that a text is, at most 18 digits; None where it is none.

    Args:
        text: Digits from 0 to 9, perhaps behind a minus, and nothing else.
    """
    return int(text) if _WHOLE.fullmatch(text) else None


def finite_number(text: str) -> float | None:
    """Return the finite number that a text is; None where it is none.

    Args:
        text: As ``12``, ``-0.5`` or ``1e-3``, and nothing else.
    """
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    found = float(text)
    return found if math.isfinite(found) else None
