"""Lines with names of files in them, as a terminal can show them."""

from __future__ import annotations

import re
import sys

__all__ = ["say"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey


def say(line: str) -> None:
    """Print a line; what the terminal would obey, or cannot show, is escaped.

    Args:
        line: Text, in which names may stand that are no UTF-8.
    """
    safe = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(safe.encode(encoding, "backslashreplace").decode(encoding), flush=True)
