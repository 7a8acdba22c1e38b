"""Supervised classification of videos by a network for images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_ssl.contracts.batches import labelled_clips
from lit_ssl.errors import InputError
from lit_ssl.methods.classification.image_classifier import ImageClassifier

__all__ = ["SupervisedVideo"]


class SupervisedVideo(ImageClassifier):
    """Classifies clips by a network for images, over the frames of a clip, and a linear layer.

    Features of a clip are the mean of those of its frames, so that the order of the frames does not
    count: the baseline that shows what motion adds, and a probe of encoders that were trained on
    frames. Batches are ``(videos, labels)``; everything else, from the schedule to ``pretrained``
    and ``freeze_backbone``, is that of :class:`ImageClassifier`. ``forward(videos)`` gives the
    features, :meth:`logits` the scores of the classes.

    Arguments and errors are those of :class:`ImageClassifier`.

    Source: the mean over frames as in TSN, arXiv 1608.00859, section 3.1 (there of scores).
    """

    def forward(self, videos: Tensor) -> Tensor:
        """Features: ``[B, T, C, H, W]`` → ``[B, embed_dim]``."""
        if videos.ndim != 5:
            raise InputError(
                f"SupervisedVideo takes videos [B, T, C, H, W], got {list(videos.shape)}"
            )
        frames = super().forward(videos.flatten(0, 1))
        return frames.unflatten(0, videos.shape[:2]).mean(dim=1)

    def labelled(self, batch: Any, look: bool = False) -> tuple[Tensor, Tensor]:
        """Videos ``[B, T, C, H, W]`` and labels ``[B]``; ``look`` as in :func:`check_labels`."""
        return labelled_clips(batch, self.num_classes, look)
