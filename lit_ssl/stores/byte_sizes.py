"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

from lit_ssl.errors import InputError, quoted

__all__ = ["byte_count"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_FORM = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)b?")


def byte_count(size: str | int, name: str) -> int:
    """Return the number of bytes that a size stands for.

    Args:
        size: A number of bytes, or a text such as ``64MB`` (10^6 bytes) or ``1.5 GB``.
        name: Name of the option, for messages.

    Raises:
        InputError: It is no such size, or below 1.
    """
    match = _FORM.fullmatch(str(size).strip().lower())
    count = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if isinstance(size, bool) or count < 1:
        raise InputError(f"{name} must be a size such as 64MB or 10GB, not {quoted(size)}")
    return count
