"""The generator of a cascade's first level: DVD-GAN's, recurrent over frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.video.blocks import GeneratorBlock
from lit_ssl.models.video.conv_gru import CandidateAct, ConvGRUCell
from lit_ssl.models.video.inputs import check_counts, check_latents
from lit_ssl.models.video.layers import class_embedding, sn_conv, sn_linear
from lit_ssl.models.video.sizes import pyramid, widths
from lit_ssl.models.video.spectral_norm import spectral_norm
from lit_ssl.precision import widened

__all__ = ["DVDGenerator", "generator_multipliers"]

_BY_SIZE = (8, 4, 2)


def generator_multipliers(doublings: int) -> tuple[int, ...]:
    """Default widths from the smallest size to the largest, in units of ``channels``.

    ``(8, 8, 8, 4, 2)`` from 4 to 64 pixels, ``(8, 8, 8, 4, 2, 1)`` up to 128, ``(8, 4, 2)`` up
    to 16.

    Args:
        doublings: of the side, from the smallest size to the largest, ≥ 0.

    Returns:
        ``doublings + 1`` widths.
    """
    if doublings <= 4:
        return ((8,) * doublings + _BY_SIZE)[-(doublings + 1) :]
    return (8,) * (doublings - 2) + (4, 2, 1)


class _Stage(nn.Module):
    """Recurrence at one size, a block that keeps the size, and one that doubles it."""

    def __init__(
        self, in_channels: int, out_channels: int, condition_dim: int, candidate_act: CandidateAct
    ) -> None:
        super().__init__()
        self.gru = ConvGRUCell(in_channels, candidate_act=candidate_act)
        for gate in self.gru.gates:
            spectral_norm(gate)
        self.block = GeneratorBlock(in_channels, in_channels, condition_dim)
        self.up = GeneratorBlock(in_channels, out_channels, condition_dim, scale=2)

    def forward(self, inputs: Tensor, condition: Tensor, num_frames: int) -> Tensor:
        """``[B, T or 1, in, H, W]`` → ``[B, T, out, 2H, 2W]``."""
        frames = self.gru.unroll(inputs, num_frames).flatten(0, 1)
        frames = self.up(self.block(frames, condition), condition)
        return frames.unflatten(0, (len(inputs), num_frames))


class DVDGenerator(nn.Module):
    """Videos from noise and a class.

        c = [z; embed(y)]
        x = linear(c) as [8 ch, h_0, w_0], the same at all frames
        for each doubling:  x = ConvGRU over frames(x);  x = up(block(x, c), c) of each frame
        video = tanh(conv3(ReLU(BN(x))))

    All convolutions and the first linear layer are spectrally normalised; they and the class
    embedding start orthogonal. A frame does not depend on later ones (but for batch statistics, in
    training).

    Args:
        num_frames: T.
        resolution: (height, width), or the side of a square. Halved as long as both sides are even
            and at least 8, its shorter side must end at 4 to 15 pixels.
        num_classes: 1 for unconditional videos, labels 0.
        z_dim: size of z.
        embed_dim: size of embed(y).
        channels: ch, unit of the widths.
        channel_multipliers: widths from the smallest size to the largest, one more than there are
            doublings; None: see ``generator_multipliers``.
        candidate_act: of the ConvGRU, ``relu`` or ``tanh``.

    Attributes:
        resolution: (H, W).
        condition_dim: ``z_dim + embed_dim``.

    Raises:
        ValueError: if a size cannot be made by doubling, or a value lies outside its range.

    Source: arXiv 1907.06571 (DVD-GAN), section 3.1; blocks of arXiv 1809.11096.

    Examples:
        >>> g = DVDGenerator(num_frames=3, resolution=16, channels=2)
        >>> g(torch.randn(2, 120), torch.tensor([0, 0])).shape
        torch.Size([2, 3, 3, 16, 16])
    """

    def __init__(
        self,
        num_frames: int,
        resolution: int | tuple[int, int],
        num_classes: int = 1,
        z_dim: int = 120,
        embed_dim: int = 120,
        channels: int = 96,
        channel_multipliers: Sequence[int] | None = None,
        candidate_act: CandidateAct = "relu",
    ) -> None:
        super().__init__()
        check_counts(
            num_frames=num_frames, num_classes=num_classes, z_dim=z_dim, embed_dim=embed_dim
        )
        first = pyramid(resolution)
        if first.doublings == 0:
            raise InputError(
                f"resolution {first.height}x{first.width} is too small for a generator: the "
                "shorter side must have at least 8 pixels, and both sides must be even"
            )
        sizes = widths(channels, channel_multipliers, generator_multipliers(first.doublings))
        self.num_frames = num_frames
        self.resolution = (first.height << first.doublings, first.width << first.doublings)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.condition_dim = z_dim + embed_dim
        self.first_shape = (sizes[0], first.height, first.width)
        self.embed = class_embedding(num_classes, embed_dim)
        self.first = sn_linear(self.condition_dim, sizes[0] * first.height * first.width)
        self.stages = nn.ModuleList(
            _Stage(before, after, self.condition_dim, candidate_act)
            for before, after in pairwise(sizes)
        )
        self.out_norm = nn.BatchNorm2d(sizes[-1])
        self.out_conv = sn_conv(sizes[-1], 3)

    def forward(self, z: Tensor, y: Tensor, num_frames: int | None = None) -> Tensor:
        """Make videos.

        Args:
            z: standard normal, ``[B, z_dim]``.
            y: labels, int64 ``[B]``.
            num_frames: T, where it is another than that of training.

        Returns:
            float32 ``[B, T, 3, H, W]`` in [−1, 1].

        Raises:
            ValueError: if shapes differ.
        """
        check_latents(z, y, self.z_dim)
        length = self.num_frames if num_frames is None else num_frames
        check_counts(num_frames=length)
        embedded = self.embed(y)
        condition = torch.cat([z.to(embedded.dtype), embedded], dim=1)
        x = self.first(condition).unflatten(1, self.first_shape)[:, None]
        for stage in self.stages:
            x = stage(x, condition, length)
        frames = self.out_conv(self.out_norm(x.flatten(0, 1)).relu())
        return widened(frames).tanh().unflatten(0, (len(z), length))
