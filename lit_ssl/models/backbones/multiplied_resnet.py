"""ResNet-50 with every width multiplied, as the evaluations of SimCLR and PAWS use it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

__all__ = ["MultipliedResNet50", "resnet50w2", "resnet50w4"]


class MultipliedResNet50(nn.Module):
    """ResNet-50 whose widths, the stem's included, are all multiplied; no classifier.

    Not torchvision's or timm's ``wide_resnet50_2``, where only the inner 3×3 convolutions are
    wider. The names of the parameters are torchvision's.

    Args:
        width: the multiple: 1 is ResNet-50, 2 has 93.9 and 4 has 375.4 million parameters.
        in_chans: channels of the images.
    """

    def __init__(self, width: int = 2, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 64 * width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.layer1 = _stage(64 * width, 64 * width, blocks=3, stride=1)
        self.layer2 = _stage(256 * width, 128 * width, blocks=4, stride=2)
        self.layer3 = _stage(512 * width, 256 * width, blocks=6, stride=2)
        self.layer4 = _stage(1024 * width, 512 * width, blocks=3, stride=2)
        self.num_features = 2048 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[B, 2048 * width]`` of images ``[B, in_chans, H, W]``.

        Args:
            x: the images, float, normalised.
        """
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(-2, -1))


def _stage(in_width: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    out_width = planes * Bottleneck.expansion
    downsample = nn.Sequential(
        nn.Conv2d(in_width, out_width, 1, stride, bias=False), nn.BatchNorm2d(out_width)
    )
    layers = [Bottleneck(in_width, planes, stride, downsample)]
    layers += [Bottleneck(out_width, planes) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


def resnet50w2(in_chans: int = 3) -> MultipliedResNet50:
    """ResNet-50 of twice the width: 4096 features.

    Args:
        in_chans: channels of the images.
    """
    return MultipliedResNet50(2, in_chans)


def resnet50w4(in_chans: int = 3) -> MultipliedResNet50:
    """ResNet-50 of four times the width: 8192 features.

    Args:
        in_chans: channels of the images.
    """
    return MultipliedResNet50(4, in_chans)
