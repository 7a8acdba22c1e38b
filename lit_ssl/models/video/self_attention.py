"""Self-attention over the places of an image, as in SAGAN and BigGAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError
from lit_ssl.models.video.layers import sn_conv

__all__ = ["SelfAttention2d"]


class SelfAttention2d(nn.Module):
    """Each place looks at the maxima of all 2 x 2 boxes; the result is added.

        q = W_q x [C/8, HW];  k = pool(W_k x) [C/8, HW/4];  v = pool(W_v x) [C/2, HW/4]
        out = x + γ · W_o (v softmax(q^T k)^T)              γ = 0 at the start

    Args:
        channels: C, at least 8.

    Raises:
        ValueError: if there are fewer channels.

    Source: arXiv 1805.08318; in BigGAN's form.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 8:
            raise InputError(f"self-attention needs at least 8 channels, not {channels}")
        self.query = sn_conv(channels, channels // 8, 1, bias=False)
        self.key = sn_conv(channels, channels // 8, 1, bias=False)
        self.value = sn_conv(channels, channels // 2, 1, bias=False)
        self.out = sn_conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[N, C, H, W]`` → the same shape.

        Args:
            inputs: feature maps, at least 2 x 2.
        """
        query = self.query(inputs).flatten(2)
        key = F.max_pool2d(self.key(inputs), 2).flatten(2)
        value = F.max_pool2d(self.value(inputs), 2).flatten(2)
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        seen = (value @ attention.transpose(1, 2)).unflatten(2, inputs.shape[2:])
        return inputs + self.gamma * self.out(seen)
