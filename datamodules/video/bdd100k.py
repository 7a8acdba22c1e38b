"""BDD100K's videos in their official layout."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.video.files_module import VideoFilesModule

__all__ = ["BDD100KVideoDataModule"]

_NAME = "BDD100K"


class BDD100KVideoDataModule(VideoFilesModule):
    """BDD100K (arXiv 1805.04687): 100,000 videos of about 40 s from cars, without classes.

    Expected: ``videos/{train,val,test}/*.mov`` in ``root``, or these three folders in it; ``val``
    and ``test`` are optional. All videos are of one class, with label 0. Frames are turned upright
    where a phone stored them otherwise.

    Decoding a clip of 1280 x 720 pixels takes about 0.4 s of a processor, and the files 1.9 TB:
    write a cache once (``lit-ssl video-cache``) and train from that (``cache``).

    Args:
        kwargs: Arguments of ``VideoFilesModule`` and ``VideoDataModule``.
    """

    class_names: ClassVar[tuple[str, ...]] = ("driving",)
    reported: ClassVar[Split] = "val"

    def load_rows(self, split: Split) -> Rows | None:
        """Return the videos of a split, None if it has no folder."""
        folder = f"{self._videos}{split}"
        names = self.store.names(folder)
        if names:
            self.store.warn_left_out()
            return self.rows_of(names, [0] * len(names), folder)
        if split == "train":
            raise self.missing(_NAME, f"videos/train/*.mov in {self.root}")
        rank_zero_info(f"{_NAME}: there are no {split} videos in {self.root / folder}")
        return None

    @cached_property
    def _videos(self) -> str:
        """What is before the name of a split: ``videos/``, or nothing."""
        return "videos/" if self.store.names("videos") else ""
