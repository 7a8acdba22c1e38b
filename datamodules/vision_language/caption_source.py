"""What gives images with captions: a data set by its layout, whatever is trained on it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split

__all__ = ["CaptionSource"]


class CaptionSource(ABC):
    """Images with captions, in the layout of one data set."""

    name: str  # what lines about a run call it

    @abstractmethod
    def load_rows(self, split: Split) -> Rows | None:
        """Return the captions of a split; None if there is no such split.

        Args:
            split: Of the data set's own.

        Returns:
            Rows whose source is a ``CaptionedImages``, with the columns ``image_number`` (int64,
            from 0, equal for captions of one image) and ``label`` (−1).

        Raises:
            InputError: Files are missing or laid out otherwise.
        """
