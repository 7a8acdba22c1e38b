"""Word–patch alignment: the cost of moving the words of a text onto the patches of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = [
    "WordPatchAlignment",
    "WordPatchOutput",
    "alignment_cost",
    "alignment_masks",
    "transport_plan",
]

_SMALL = 1e-5  # shortest length of a feature vector that is divided by


class WordPatchOutput(NamedTuple):
    """What comes out of [`WordPatchAlignment`][lit_ssl.losses.WordPatchAlignment].

    Attributes:
        loss: scalar, without a weight.
        distances: ``[B]``, of each pair.
        plan: ``[B, N, L]``, without gradient: how much of a patch goes to a word. It sums to 1 over
            both; 0 at special tokens, [CLS] of the image and padding.
    """

    loss: Tensor
    distances: Tensor
    plan: Tensor


def alignment_masks(text_mask: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out what is no word and no patch: [CLS], [SEP] (the last token), [CLS] of the image.

    Args:
        text_mask: ``[B, L]``, 1 or True where a token is; tokens first, then padding.
        image_mask: ``[B, N]``, likewise; [CLS] first.

    Returns:
        bool ``[B, L]`` and ``[B, N]``. A text of [CLS] and [SEP] alone has no word.
    """
    words, patches = text_mask.bool().clone(), image_mask.bool().clone()
    last = words.sum(dim=1, keepdim=True).sub(1).clamp(min=0)
    words.scatter_(1, last, False)
    words[:, 0] = patches[:, 0] = False
    return words, patches


def alignment_cost(text: Tensor, image: Tensor, words: Tensor, patches: Tensor) -> Tensor:
    """1 − cosine of each word and patch.

    Args:
        text: ``[B, L, D]``.
        image: ``[B, N, D]``.
        words: bool ``[B, L]``.
        patches: bool ``[B, N]``.

    Returns:
        ``[B, L, N]`` in [0, 2]; 0 where one of both does not count.
    """
    cosine = F.normalize(text, dim=-1, eps=_SMALL) @ F.normalize(image, dim=-1, eps=_SMALL).mT
    return (1 - cosine).masked_fill(~(words[:, :, None] & patches[:, None, :]), 0.0)


@torch.no_grad()
def transport_plan(
    cost: Tensor, words: Tensor, patches: Tensor, beta: float = 0.5, iterations: int = 50
) -> Tensor:
    """Optimal transport between uniform words and patches by IPOT (inexact proximal point).

    With m words and n patches of a pair:

        sigma = 1 / m;  A = exp(-cost.T / beta);  T = 1
        repeat: Q = A * T;  delta = 1 / (n * Q @ sigma);  sigma = 1 / (m * delta @ Q)
                T = delta[:, None] * Q * sigma

    Args:
        cost: ``[B, L, N]``.
        words: bool ``[B, L]``.
        patches: bool ``[B, N]``.
        beta: step of the proximal point method, > 0.
        iterations: how often, ≥ 1.

    Returns:
        ``[B, N, L]``, without gradient; all 0 for a pair without words or without patches.

    Source: arXiv 1802.04307, algorithm 1 with one inner iteration, as in dandelin/ViLT.
    """
    both = patches[:, :, None] & words[:, None, :]
    m = words.sum(dim=1)[:, None, None].to(cost.dtype)
    n = patches.sum(dim=1)[:, None, None].to(cost.dtype)
    kernel = torch.exp(-cost.mT / beta) * both
    sigma = (words / m[:, 0].clamp(min=1)).to(cost.dtype)[:, :, None]  # [B, L, 1]
    plan = both.to(cost.dtype)
    for _ in range(iterations):
        scaled = kernel * plan
        delta = _inverse(n * (scaled @ sigma))  # [B, N, 1]
        sigma = _inverse(m * (scaled.mT @ delta))
        plan = delta * scaled * sigma.mT
    return plan


def _inverse(x: Tensor) -> Tensor:
    """1 / x; 0 for what does not count, where x is 0."""
    return torch.where(x > 0, 1 / torch.where(x > 0, x, 1.0), 0.0)


class WordPatchAlignment(nn.Module):
    """Draws words and patches of a pair that belongs together to each other, others apart.

    Final states of a text and an image, without special tokens and padding:

        cost = 1 - cosine(text, image)                      # [B, L, N]
        plan = transport_plan(cost)                         # [B, N, L], no gradient
        distance = (cost * plan.T).sum((1, 2))              # [B]
        loss = (distance[matches].sum() - distance[others].sum()) / B

    float32 (float64 for float64 states) whatever the autocast state.

    Args:
        beta: see [`transport_plan`][lit_ssl.losses.transport_plan].
        iterations: see [`transport_plan`][lit_ssl.losses.transport_plan].

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 2102.03334, section 3.2, with the released code's settings.
    """

    def __init__(self, beta: float = 0.5, iterations: int = 50) -> None:
        super().__init__()
        if not beta > 0 or iterations < 1:
            raise InputError(f"beta must be > 0 and iterations ≥ 1, not {beta} and {iterations}")
        self.beta, self.iterations = beta, iterations

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor, labels: Tensor
    ) -> WordPatchOutput:
        """Compute the loss.

        Args:
            text: ``[B, L, D]``, [CLS] first.
            image: ``[B, N, D]``, [CLS] first.
            text_mask: ``[B, L]``, see [`alignment_masks`][lit_ssl.losses.alignment_masks].
            image_mask: ``[B, N]``.
            labels: int64 ``[B]``: 1 where both belong together, 0 where not; others do not count.
        """
        with torch.autocast(device_type=text.device.type, enabled=False):
            if text.dtype != torch.float64:
                text, image = text.float(), image.float()
            words, patches = alignment_masks(text_mask, image_mask)
            cost = alignment_cost(text, image, words, patches)
            plan = transport_plan(cost.detach(), words, patches, self.beta, self.iterations)
            distances = (cost * plan.mT).sum(dim=(1, 2))
            signs = (labels == 1).to(distances) - (labels == 0).to(distances)
            return WordPatchOutput((signs * distances).sum() / len(labels), distances, plan)
