"""Images of several sources, as one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from lit_ssl.datamodules.reading.encoded import Jpeg
from lit_ssl.datamodules.reading.images import Images

__all__ = ["JoinedImages"]


class JoinedImages(Images):
    """The images of several sources, one source after the other.

    Args:
        parts: Name of each source, and its images. Images are called by the name of their source,
            ``/``, and their own name, as several sources may have files of one name.
    """

    def __init__(self, parts: Mapping[str, Images]) -> None:
        self._sources = list(parts)
        self._parts = list(parts.values())
        sizes = [len(part) for part in self._parts]
        self._part = np.repeat(np.arange(len(sizes)), sizes)
        self._row = np.concatenate([np.empty(0, dtype=np.int64), *map(np.arange, sizes)])

    def __len__(self) -> int:
        return len(self._row)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one image; see ``Images``."""
        return self._parts[self._part[index]].read(int(self._row[index]), max_side)

    def read_encoded(self, index: int, max_side: int | None = None) -> Jpeg | Tensor:
        """Return one image, as its file where a device can decode it; see ``Images``."""
        return self._parts[self._part[index]].read_encoded(int(self._row[index]), max_side)

    def name(self, row: int) -> str | None:
        """Return ``source/name``, None where the source has no names."""
        part = self._part[row]
        name = self._parts[part].name(int(self._row[row]))
        return None if name is None else f"{self._sources[part]}/{name}"

    def select(self, rows: np.ndarray) -> JoinedImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        chosen = JoinedImages(dict(zip(self._sources, self._parts, strict=True)))
        chosen._part, chosen._row = self._part[rows], self._row[rows]
        return chosen
