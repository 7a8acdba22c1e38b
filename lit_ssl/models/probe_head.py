"""The trained linear-probe head of MSN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError


class ProbeHead(nn.Module):
    """LayerNorm, L2 normalisation, linear classifier.

    Trained with :class:`lit_ssl.optim.sgd.InnerLrSGD` (Nesterov 0.9, lr 6.4, cosine to 0, no weight
    decay, batch 8192 or more) on the class token before the final norm of a frozen encoder.

    Args:
        embed_dim: Width D of the features, >= 1.
        num_classes: Number of classes C, >= 1.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> ProbeHead(4, 3)(torch.randn(2, 4)).shape
        torch.Size([2, 3])

    Source: MSN, arXiv 2204.07141, appendix A.3 (its released evaluation code).
    """

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_classes < 1:
            raise InputError(
                f"embed_dim and num_classes must be >= 1, got {embed_dim} and {num_classes}"
            )
        self.norm = nn.LayerNorm(embed_dim)
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, D]`` to logits ``[B, C]``."""
        with torch.autocast(features.device.type, enabled=False):
            rows = features.to(self.linear.weight.dtype)
            return self.linear(F.normalize(self.norm(rows), dim=1))
