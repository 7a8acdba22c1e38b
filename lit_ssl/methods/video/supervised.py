"""Supervised classification of videos by a network for images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_ssl.contracts.batches import inputs_of, labelled_clips
from lit_ssl.contracts.data import clips_per_video
from lit_ssl.errors import InputError, by_name
from lit_ssl.methods.classification.image_classifier import ImageClassifier

__all__ = ["SupervisedVideo"]


class SupervisedVideo(ImageClassifier):
    """Classifies clips by a network for images, over the frames of a clip, and a linear layer.

    Features of a clip are the mean of those of its frames, so that the order of the frames does not
    count: the baseline that shows what motion adds, and a probe of encoders that were trained on
    frames. Where the data module evaluates several clips of each video (``clips_per_video``), their
    features are averaged too: accuracies and predictions are those of videos.

    Batches are ``(videos, labels)``; everything else, from the schedule to ``pretrained`` and
    ``freeze_backbone``, is that of [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
    ``forward(videos)`` gives the features, ``logits`` the scores of the classes.

    Arguments and errors are those of [`ImageClassifier`][lit_ssl.methods.ImageClassifier].

    Source: the mean over frames and clips as in TSN, arXiv 1608.00859, section 3.1, where it is one
    of scores; those of a linear layer are the same.
    """

    def forward(self, videos: Tensor) -> Tensor:
        """Features: ``[B, T, C, H, W]`` → ``[B, embed_dim]``.

        Args:
            videos: float, normalised.

        Raises:
            InputError: if they have another number of dimensions.
        """
        if videos.ndim != 5:
            raise InputError(
                f"SupervisedVideo takes videos [B, T, C, H, W], got {list(videos.shape)}"
            )
        frames = super().forward(videos.flatten(0, 1))
        return frames.unflatten(0, videos.shape[:2]).mean(dim=1)

    def labelled(self, batch: Any, look: bool = False) -> tuple[Tensor, Tensor]:
        """Videos ``[B, T, C, H, W]`` and labels ``[B]``; ``look`` as in ``check_labels``.

        Args:
            batch: of clips.
            look: check values on accelerators, too, where the host has to wait.
        """
        return labelled_clips(batch, self.num_classes, look)

    def evaluated(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Features ``[N, embed_dim]`` and labels ``[N]`` of the N videos of a batch of clips.

        Args:
            batch: as many clips of each video as the data module says, one after the other.
        """
        features, labels = super().evaluated(batch)
        videos = self._of_videos(features)
        return videos, labels[:: len(labels) // len(videos)]

    @by_name
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[N, num_classes]`` of the N videos of a batch of clips."""
        features = self._of_videos(self(inputs_of(batch)))
        return self.classifier(features).float().softmax(dim=1)

    def _of_videos(self, features: Tensor) -> Tensor:
        """Mean over the clips of each video: ``[N · clips, embed_dim]`` → ``[N, embed_dim]``."""
        clips = clips_per_video(self.trainer)
        if len(features) % clips:
            raise InputError(
                f"got a batch of {len(features)} clips where the data module says that"
                f" {clips} in a row are of one video (clips_per_video)"
            )
        return features.unflatten(0, (-1, clips)).mean(dim=1)
