"""The generator of a cascade's upper levels, convolutional in time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.video.blocks import GeneratorBlock, TemporalBlock
from lit_ssl.models.video.inputs import check_counts, check_labels, check_latents, check_videos
from lit_ssl.models.video.layers import class_embedding, sn_conv
from lit_ssl.models.video.sizes import widths
from lit_ssl.precision import widened
from lit_ssl.video.resampling import upsample_condition

__all__ = ["UpsamplingGenerator"]


class _Level(nn.Module):
    """A convolution over time, then a block for each frame."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, scale: int) -> None:
        super().__init__()
        self.temporal = TemporalBlock(in_channels)
        self.frames = GeneratorBlock(in_channels, out_channels, condition_dim, scale)

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        """``[B, in, T, H, W]`` → ``[B, out, T, H', W']``."""
        x = self.temporal(inputs).transpose(1, 2)
        frames = self.frames(x.flatten(0, 1), condition)
        return frames.unflatten(0, x.shape[:2]).transpose(1, 2)


class UpsamplingGenerator(nn.Module):
    """Longer and larger videos from the videos of the level below.

        x = conv3x3x3(condition, each frame repeated r_t times)
        for each block:  x = x + conv3x1x1(ReLU(x));  x = GeneratorBlock(x, [z; embed(y)])
        video = tanh(conv3(ReLU(BN(x))))            the middle block makes the sides r_s x longer

    There is no recurrence, so that it trains on short windows and samples any length; frames
    farther apart than ``receptive_radius`` do not see each other (but for batch statistics, in
    training). Windows and full videos are padded with zeros at their ends.

    Args:
        num_classes: 1 for unconditional videos, labels 0.
        z_dim: size of z, one per video.
        embed_dim: size of embed(y).
        channels: ch, unit of the widths.
        channel_multipliers: of the blocks' outputs; the input of the first block is as wide as its
            output. The middle one of them enlarges the frames.
        temporal_factor: r_t, frames for each frame of the condition.
        spatial_factor: r_s, of both sides.
        residual_output: add the enlarged condition before the tanh.

    Attributes:
        receptive_radius: how many frames of the output a frame of the output sees, at either side.

    Raises:
        ValueError: if a value lies outside its range.

    Source: the outline of arXiv 2206.00735 and 2106.02719; layers and widths are our own choice,
        with blocks of arXiv 1809.11096.

    Examples:
        >>> g = UpsamplingGenerator(channels=2)
        >>> coarse = torch.zeros(1, 2, 3, 8, 8)
        >>> g(torch.randn(1, 120), torch.tensor([0]), coarse).shape
        torch.Size([1, 4, 3, 16, 16])
    """

    def __init__(
        self,
        num_classes: int = 1,
        z_dim: int = 120,
        embed_dim: int = 120,
        channels: int = 64,
        channel_multipliers: Sequence[int] = (4, 4, 4, 2, 2),
        temporal_factor: int = 2,
        spatial_factor: int = 2,
        residual_output: bool = False,
    ) -> None:
        super().__init__()
        check_counts(
            num_classes=num_classes,
            z_dim=z_dim,
            embed_dim=embed_dim,
            temporal_factor=temporal_factor,
            spatial_factor=spatial_factor,
        )
        if not channel_multipliers:
            raise InputError("channel_multipliers must name at least one block")
        sizes = widths(channels, channel_multipliers, channel_multipliers)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.residual_output = residual_output
        self.receptive_radius = 1 + len(sizes)
        self.embed = class_embedding(num_classes, embed_dim)
        self.stem = sn_conv(3, sizes[0], 3, dims=3)
        middle = len(sizes) // 2
        self.levels = nn.ModuleList(
            _Level(before, after, z_dim + embed_dim, spatial_factor if i == middle else 1)
            for i, (before, after) in enumerate(zip(sizes[:1] + sizes, sizes, strict=False))
        )
        self.out_norm = nn.BatchNorm2d(sizes[-1])
        self.out_conv = sn_conv(sizes[-1], 3)

    def forward(self, z: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        """Enlarge videos.

        Args:
            z: standard normal, ``[B, z_dim]``.
            y: labels, int64 ``[B]``.
            condition: videos of the level below in [−1, 1], ``[B, w, 3, h, w']``.

        Returns:
            float32 ``[B, r_t · w, 3, r_s · h, r_s · w']`` in [−1, 1].

        Raises:
            ValueError: if shapes differ.
        """
        check_latents(z, y, self.z_dim)
        check_videos(condition, "the condition", channels=3)
        check_labels(y, len(condition))
        embedded = self.embed(y)
        style = torch.cat([z.to(embedded.dtype), embedded], dim=1)
        slow = upsample_condition(condition, self.temporal_factor, 1)
        x = self.stem(slow.transpose(1, 2).to(embedded.dtype))
        for level in self.levels:
            x = level(x, style)
        folded = x.transpose(1, 2).flatten(0, 1)
        frames = widened(self.out_conv(self.out_norm(folded).relu())).unflatten(0, slow.shape[:2])
        if self.residual_output:
            frames = frames + upsample_condition(slow, 1, self.spatial_factor)
        return frames.tanh()
