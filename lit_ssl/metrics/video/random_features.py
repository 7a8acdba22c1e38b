"""A distance of videos without trained weights, for watching a training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError
from lit_ssl.metrics.video.distances import VideoDistance
from lit_ssl.metrics.video.frechet import frechet_distance_from_features
from lit_ssl.seeding import Stream, uniform

__all__ = ["RandomFeatureDistance", "RandomVideoFeatures"]

_CHANNELS = (6, 16, 32, 64)  # of which 3 are frames, 3 their changes
_STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
_CELLS = 2  # of the last map in time, height and width, whose means are the features
_CHANGES = 4.0  # weight of the changes from frame to frame, which are small
_AT_ONCE = 32  # clips; bounds the memory of one call


class RandomFeatureDistance(VideoDistance):
    """Fréchet distance of the features of a fixed network that nobody trained; not FVD.

    It needs no file and about 20 MFLOP for a clip of 16 × 32 × 32, and tells noise, frozen and
    blurred videos from real ones. Compare it only between epochs and runs with one data set, clip
    size and number of clips; it says nothing about published numbers.

    The weights are a pure function of the seed, the same on every machine; the global generators of
    torch and NumPy are neither read nor moved.

    Args:
        num_features: of a clip. Use several times more clips.
        seed: of the weights.
        max_items: clips of each set that count; None: all.
        reset_real_features: as of ``FrechetVideoDistance``.
        kwargs: Passed to ``torchmetrics.Metric``.

    Examples:
        >>> import torch
        >>> distance = RandomFeatureDistance(num_features=8)
        >>> video = torch.randint(256, (4, 3, 3, 16, 16)).byte()
        >>> distance.update(video, real=True)
        >>> distance.update(video // 2, real=False)
        >>> distance.compute().item() > 0
        True
    """

    def __init__(
        self,
        num_features: int = 128,
        seed: int = 0,
        max_items: int | None = None,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            RandomVideoFeatures(num_features, seed),
            num_features,
            clip_length=None,
            max_items=max_items,
            reset_real_features=reset_real_features,
            **kwargs,
        )
        self.seed = seed

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Fréchet distance of two sets of rows, with covariances divided by N − 1."""
        return frechet_distance_from_features(real, fake, unbiased=True)

    def warn_about(self, num_real: int, num_fake: int) -> None:
        """Nothing: no protocol asks for a number of clips."""

    def card(self) -> dict[str, Any]:
        """What makes the number what it is, for ``score_card``."""
        return {
            "protocol": "random features, not FVD",
            "num_features": self.num_features,
            "seed": self.seed,
            **self.extractor_card(),
        }


class RandomVideoFeatures(nn.Module):
    """Three random 3-D convolutions, means over an eighth of the clip each, a random projection.

    Args:
        num_features: F >= 1.
        seed: of the weights.

    Raises:
        ValueError: ``num_features`` is below 1.
    """

    projection: Tensor

    def __init__(self, num_features: int = 128, seed: int = 0) -> None:
        super().__init__()
        if num_features < 1:
            raise InputError(f"num_features must be at least 1, not {num_features}")
        for layer, sizes in enumerate(pairwise(_CHANNELS)):
            shape = (sizes[1], sizes[0], 3, 3, 3)
            weight = _normal(shape, seed, layer) * (2 / (sizes[0] * 27)) ** 0.5
            self.register_buffer(f"weight_{layer}", weight.float())
        pooled = _CHANNELS[-1] * _CELLS**3
        projection = _normal((num_features, pooled), seed, len(_STRIDES)) * num_features**-0.5
        self.register_buffer("projection", projection.float())

    def forward(self, video: Tensor) -> Tensor:
        """Features of clips of any size.

        Args:
            video: uint8 ``[B, 3, T, H, W]``.

        Returns:
            float32 ``[B, F]``.
        """
        return torch.cat([self._features(clips) for clips in video.split(_AT_ONCE)])

    def _features(self, video: Tensor) -> Tensor:
        x = video.to(self.projection.dtype) / 127.5 - 1
        changes = F.pad(x.diff(dim=2), (0, 0, 0, 0, 1, 0))
        x = torch.cat([x, _CHANGES * changes], dim=1)
        for layer, stride in enumerate(_STRIDES):
            weight = self.get_buffer(f"weight_{layer}")
            x = F.leaky_relu(F.conv3d(x, weight, stride=stride, padding=1), 0.2)
        return F.adaptive_avg_pool3d(x, _CELLS).flatten(1) @ self.projection.T


def _normal(shape: tuple[int, ...], *keys: int) -> Tensor:
    """Normal numbers by the Box-Muller transform, float64."""
    counter = np.arange(int(np.prod(shape)), dtype=np.int64)
    radius, angle = (uniform(Stream.RANDOM_FEATURES, *keys, counter, half) for half in (0, 1))
    values = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return torch.from_numpy(values.reshape(shape))
