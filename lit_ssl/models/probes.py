"""The heads of linear probes: MSN's, and many of them trained at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError

__all__ = ["ProbeHead", "ProbeHeads", "probe_losses"]


class ProbeHead(nn.Module):
    """LayerNorm, L2 normalisation, linear classifier.

    Trained with SGD whose momentum buffer adds up ``lr * gradient`` (Nesterov 0.9, lr 6.4, cosine
    to 0, no weight decay, batch 8192 or more) on the class token before the final norm of a frozen
    encoder; [`StackedSGD`][lit_ssl.optim.StackedSGD] does so for many heads.

    Args:
        embed_dim: Width D of the features, >= 1.
        num_classes: Number of classes C, >= 1.

    Raises:
        ValueError: If a size is below 1.

    Examples:
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
        """Features ``[B, D]`` to logits ``[B, C]``.

        Args:
            features: of a frozen network, in any precision.
        """
        with torch.autocast(features.device.type, enabled=False):
            rows = features.to(self.linear.weight.dtype)
            return self.linear(F.normalize(self.norm(rows), dim=1))


class ProbeHeads(nn.Module):
    """Stack of ``ProbeHead`` on the same features: all heads in one batched product.

    Heads share no parameter, so each of them trains as it would alone, and one whose weights
    overflow leaves the others as they are. All start from the same weights.

    Args:
        num_heads: Number of heads H, >= 1.
        embed_dim: Width D of the features, >= 1.
        num_classes: Number of classes C, >= 1.

    Raises:
        ValueError: If a size is below 1.

    Attributes:
        norm_weight: Of the LayerNorms, ``[H, D]``.
        norm_bias: Likewise.
        weight: Of the linear layers, ``[H, C, D]``.
        bias: Likewise, ``[H, C]``.

    Examples:
        >>> ProbeHeads(5, 4, 3)(torch.randn(2, 4)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, num_heads: int, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        if num_heads < 1:
            raise InputError(f"num_heads must be >= 1, got {num_heads}")
        first = ProbeHead(embed_dim, num_classes)
        self.eps = first.norm.eps
        self.norm_weight = _stacked(first.norm.weight, num_heads)
        self.norm_bias = _stacked(first.norm.bias, num_heads)
        self.weight = _stacked(first.linear.weight, num_heads)
        self.bias = _stacked(first.linear.bias, num_heads)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, D]`` to logits ``[H, B, C]``, in the precision of the weights.

        Args:
            features: of a frozen network, in any precision; the same for all H heads.
        """
        with torch.autocast(features.device.type, enabled=False):
            rows = features.to(self.weight.dtype)
            rows = F.layer_norm(rows, rows.shape[1:], eps=self.eps)  # the same for all heads
            rows = rows * self.norm_weight[:, None] + self.norm_bias[:, None]
            rows = F.normalize(rows, dim=2)
            return torch.baddbmm(self.bias[:, None], rows, self.weight.transpose(1, 2))

    @torch.no_grad()
    def finite(self) -> Tensor:
        """Whether all weights of a head are finite: bool ``[H]``."""
        return torch.stack([p.isfinite().flatten(1).all(dim=1) for p in self.parameters()]).all(0)

    def select(self, index: int) -> ProbeHead:
        """A copy of one head.

        Args:
            index: Which, 0 … H − 1.
        """
        classes, width = self.weight.shape[1:]
        head = ProbeHead(width, classes).to(self.weight)
        with torch.no_grad():
            head.norm.weight.copy_(self.norm_weight[index])
            head.norm.bias.copy_(self.norm_bias[index])
            head.linear.weight.copy_(self.weight[index])
            head.linear.bias.copy_(self.bias[index])
        return head


def _stacked(values: Tensor, num_heads: int) -> nn.Parameter:
    return nn.Parameter(values.detach().expand(num_heads, *values.shape).clone())


def probe_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each head.

    Args:
        logits: ``[H, B, C]``.
        labels: int64 ``[B]``, −1 where unknown, which do not count.

    Returns:
        ``[H]``; their sum gives each head the gradient of its own loss.
    """
    heads, rows = logits.shape[:2]
    each = F.cross_entropy(
        logits.flatten(0, 1), labels.repeat(heads), ignore_index=-1, reduction="none"
    )
    return each.view(heads, rows).sum(dim=1) / (labels != -1).sum().clamp(min=1)
