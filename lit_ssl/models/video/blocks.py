"""Residual blocks of BigGAN's generator and discriminator, over frames and over clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.models.video.batch_norm import ConditionalBatchNorm2d
from lit_ssl.models.video.layers import sn_conv

__all__ = ["DiscriminatorBlock", "GeneratorBlock", "TemporalBlock"]


class GeneratorBlock(nn.Module):
    """Residual block of a generator, which may enlarge the frames.

        h   = conv3(nearest(ReLU(CBN(x, c))))
        h   = conv3(ReLU(CBN(h, c)))
        out = h + nearest(conv1(x))          conv1 only where width or size changes

    The last line is BigGAN's conv1(nearest(x)), computed on fewer pixels.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        condition_dim: size of c.
        scale: how many times the sides grow.

    Source: arXiv 1809.11096, appendix B.
    """

    def __init__(
        self, in_channels: int, out_channels: int, condition_dim: int, scale: int = 1
    ) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = ConditionalBatchNorm2d(in_channels, condition_dim)
        self.conv1 = sn_conv(in_channels, out_channels)
        self.norm2 = ConditionalBatchNorm2d(out_channels, condition_dim)
        self.conv2 = sn_conv(out_channels, out_channels)
        changes = in_channels != out_channels or scale > 1
        self.shortcut = sn_conv(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        """Frames ``[B · T, in, H, W]``, c ``[B, condition_dim]`` → ``[B · T, out, H', W']``.

        Args:
            inputs: the frames of one video after the other.
            condition: one vector per video.
        """
        h = self.conv1(self._enlarged(self.norm1(inputs, condition).relu()))
        h = self.conv2(self.norm2(h, condition).relu())
        return h + self._enlarged(self.shortcut(inputs))

    def _enlarged(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale) if self.scale > 1 else x


class TemporalBlock(nn.Module):
    """Residual convolution over three neighbouring frames: ``x + conv(ReLU(x))``.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = sn_conv(channels, channels, (3, 1, 1), dims=3)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` → the same shape.

        Args:
            inputs: feature maps of clips.
        """
        return inputs + self.conv(inputs.relu())


class DiscriminatorBlock(nn.Module):
    """Residual block of a discriminator, which may halve the size.

        h   = pool(conv3(ReLU(conv3(ReLU(x)))))      without the first ReLU: preactivation=False
        out = h + conv1(pool(x))                     conv1 only where width or size changes

    BigGAN has pool(conv1(x)) in all blocks but the first; the two are equal.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        down: whether the sides are halved; over clips the time, too, unless there is one frame. Of
            an odd number of frames the last one stays alone.
        preactivation: False for the first block, which sees pixels.
        dims: 2 for frames, 3 for clips ``[B, C, T, H, W]``.

    Source: arXiv 1809.11096, appendix B; over clips arXiv 1907.06571.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        down: bool,
        preactivation: bool = True,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.down = down
        self.preactivation = preactivation
        self.conv1 = sn_conv(in_channels, out_channels, 3, dims)
        self.conv2 = sn_conv(out_channels, out_channels, 3, dims)
        changes = in_channels != out_channels or down
        self.shortcut = sn_conv(in_channels, out_channels, 1, dims) if changes else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """``[N, in, (T,) H, W]`` → ``[N, out, (T',) H', W']``.

        Args:
            inputs: feature maps of frames or, where the block is for them, of clips.
        """
        h = self.conv1(inputs.relu() if self.preactivation else inputs)
        h = self.conv2(h.relu())
        return self._pooled(h) + self.shortcut(self._pooled(inputs))

    def _pooled(self, x: Tensor) -> Tensor:
        if not self.down:
            return x
        if x.ndim == 4:
            return F.avg_pool2d(x, 2)
        return _paired(F.avg_pool2d(x.flatten(1, 2), 2).unflatten(1, x.shape[1:3]))


def _paired(x: Tensor) -> Tensor:
    """Means of pairs of frames; torch's pooling over clips has no deterministic gradient."""
    pairs, rest = divmod(x.shape[2], 2)
    means = x[:, :, : 2 * pairs].unflatten(2, (pairs, 2)).mean(dim=3)
    return torch.cat([means, x[:, :, -1:]], dim=2) if rest else means
