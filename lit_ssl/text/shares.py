"""Shares of tokens, as they are given by people."""

from __future__ import annotations

from lit_ssl.errors import InputError

__all__ = ["check_rate"]


def check_rate(name: str, rate: float) -> float:
    """Return a share of tokens as a float.

    Args:
        name: Name of the option, for the message.
        rate: The share, in [0, 1].

    Raises:
        InputError: It is no number in this range.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        hint = ""
        if isinstance(rate, int | float) and 1 < rate <= 100:
            hint = f"; for {rate:g} % write {rate / 100:g}"
        raise InputError(f"{name} must be a number from 0 to 1, not {rate!r}{hint}")
    return float(rate)
