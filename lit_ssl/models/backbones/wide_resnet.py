"""Wide residual networks for small images, as PAWS uses them (arXiv 1605.07146)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = ["WideResNet", "wide_resnet28_2"]


class WideBlock(nn.Module):
    """Pre-activation block of two 3×3 convolutions; the second one has the stride.

    Args:
        in_width: channels of the input.
        width: channels of the output.
        stride: by which rows and columns become fewer.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != width:
            self.shortcut.append(nn.Conv2d(in_width, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_width, H, W]`` → ``[B, width, H / stride, W / stride]``.

        Args:
            x: feature maps.
        """
        out = self.conv1(F.relu(self.bn1(x)))
        return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Wide residual network: 3×3 stem, three stages, BatchNorm, average pooling; no classifier.

    The names of its parameters are those of PAWS' released code, whose convolutions have a bias.

    Args:
        depth: number of layers, 6n + 4 with n blocks per stage.
        width: multiple of 16, 32 and 64 channels.
        in_chans: channels of the images.
        bn_momentum_last: momentum of the last BatchNorm's running statistics. The reference's 0.99
            keeps almost only those of the last batch, which are those of the small crops; 0.1 is
            PyTorch's usual value.

    Raises:
        ValueError: if there is no network of this depth.

    Source: arXiv 1605.07146; facebookresearch/suncet for bias, stride and the last BatchNorm.

    Examples:
        >>> WideResNet()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 2,
        in_chans: int = 3,
        bn_momentum_last: float = 0.99,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"the depth of a WideResNet is 10, 16, 22, 28, …, not {depth}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1)
        self.layer1 = _stage(16, 16 * width, blocks, stride=1)
        self.layer2 = _stage(16 * width, 32 * width, blocks, stride=2)
        self.layer3 = _stage(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width, momentum=bn_momentum_last)
        self.num_features = 64 * width

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[B, num_features]`` of images ``[B, in_chans, H, W]``.

        Args:
            x: the images, float, normalised.
        """
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return F.relu(self.bn1(x)).mean(dim=(-2, -1))


def _stage(in_width: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    layers = [WideBlock(in_width, width, stride)]
    layers += [WideBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


def wide_resnet28_2(in_chans: int = 3, bn_momentum_last: float = 0.99) -> WideResNet:
    """WRN-28-2 with 1.5 million parameters and 128 features.

    Args:
        in_chans: channels of the images.
        bn_momentum_last: see [`WideResNet`][lit_ssl.models.WideResNet].
    """
    return WideResNet(28, 2, in_chans, bn_momentum_last)
