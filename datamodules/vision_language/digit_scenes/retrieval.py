"""Scenes of real digits and their captions, to be found by each other; no download."""

from __future__ import annotations

from lit_ssl.datamodules.vision_language.digit_scenes.scenes import DigitScenesDataModule
from lit_ssl.datamodules.vision_language.tasks.retrieval import RetrievalModule

__all__ = ["DigitScenesRetrievalDataModule"]


class DigitScenesRetrievalDataModule(RetrievalModule, DigitScenesDataModule):
    """The scenes of ``DigitScenesDataModule``, served as ``RetrievalDataModule`` does.

    A caption may be true of other scenes too, so that no model finds the right one always.

    Args:
        kwargs: Arguments of ``RetrievalModule`` (num_negatives, max_images) and
            ``DigitScenesDataModule``.
    """
