"""Videos: files, the index of their clips, clips of frames, a cache, writing."""

from __future__ import annotations

from lit_ssl.lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(__name__)
