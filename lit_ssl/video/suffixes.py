"""Which files are videos, by their endings."""

from __future__ import annotations

__all__ = ["VIDEO_SUFFIXES"]

# In small letters, with the dot. ``.ts`` and ``.gif`` are more often something else.
VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv",
     ".webm", ".wmv")
)  # fmt: skip
