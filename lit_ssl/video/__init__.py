"""Videos: files, the index of their clips, clips of frames, a cache, writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.video.sheet import contact_sheet as contact_sheet
    from lit_ssl.video.sheet import write_png as write_png
    from lit_ssl.video.writing import write_video as write_video

__all__, __getattr__, __dir__ = lazy_names(__name__)
