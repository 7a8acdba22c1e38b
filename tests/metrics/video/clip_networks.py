"""Small feature extractors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """uint8 or float [B, 3, T, H, W] to [B, 6]: levels, and how they change."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, video: Tensor) -> Tensor:
        levels = video.float().mean(dim=(3, 4))
        steps = (levels[:, :, 1:] - levels[:, :, :-1]).abs()
        return torch.cat([levels.mean(dim=2), steps.mean(dim=2)], dim=1) * self.scale


class LikeStyleGANV(nn.Module):
    """With the arguments of its TorchScript files; without them the features are others."""

    def forward(
        self,
        x: Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> Tensor:
        levels = x.float().mean(dim=(2, 3, 4))
        if rescale and resize and return_features:
            return levels / 127.5 - 1
        return levels


def clips(count, seed=0, frames=4, size=(7, 9)):
    """uint8 [count, frames, 3, H, W], of different brightness."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(150, (count, frames, 3, 1, 1), generator=generator)
    noise = torch.randint(100, (count, frames, 3, *size), generator=generator)
    return (base + noise).byte()
