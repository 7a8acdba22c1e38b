"""The score of features, given the class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_ssl.models.video.layers import sn_embedding, sn_linear
from lit_ssl.precision import widened, without_autocast

__all__ = ["ProjectionHead2d"]


class ProjectionHead2d(nn.Module):
    """Projection discriminator's head.

        f = sum over H, W of ReLU(x)
        score = w · f + b + ⟨embed(y), f⟩

    float32 also inside autocast.

    Args:
        channels: C of the features.
        num_classes: of the labels.

    Source: arXiv 1802.05637; the sum as in BigGAN.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = sn_linear(channels, 1)
        self.embed = sn_embedding(num_classes, channels)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.linear.bias.dtype

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        """Features ``[B · T, C, H, W]`` and labels int64 ``[B]`` → scores ``[B, T]``.

        Args:
            features: the frames of one video after the other.
            y: classes, one per video.
        """
        with without_autocast(features.device):
            summed = widened(features).relu().sum(dim=(2, 3)).to(self.dtype)
            summed = summed.unflatten(0, (len(y), -1))
            scores = self.linear(summed).squeeze(-1) + (summed * self.embed(y)[:, None]).sum(-1)
            return widened(scores)
