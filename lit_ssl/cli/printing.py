"""Lines with names of files in them, as a terminal can show them."""

from __future__ import annotations

import re
import sys

__all__ = ["say"]

# What a terminal would obey, what breaks a line, and what turns the direction of writing.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def say(line: str) -> None:
    """Print one line; what the terminal would obey, or cannot show, is escaped, line breaks too.

    Args:
        line: Text, in which names may stand that are no UTF-8.
    """
    safe = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], line)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(safe.encode(encoding, "backslashreplace").decode(encoding), flush=True)
