"""BigGAN's orthogonal penalty, as a gradient."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["orthogonal_penalty_"]


@torch.no_grad()
def orthogonal_penalty_(module: nn.Module, strength: float) -> None:
    """Add the gradient of the penalty to the gradients of all weights, in place.

        W as [out, rest];  grad += 2 · strength · (W W^T ⊙ (1 - I)) W

    Call it between ``backward`` and the optimizer's step. Rows of a weight are pushed apart, their
    lengths are free. Biases, frozen weights and embeddings without spectral norm (the generator's
    classes) are left alone.

    Args:
        module: generator or discriminator.
        strength: 1e-4 in the paper.

    Source: arXiv 1809.11096, equation 3, as in the released code: half the gradient of
        ``‖W W^T ⊙ (1 - I)‖²``.
    """
    plain = {
        id(layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.Embedding) and not parametrize.is_parametrized(layer)
    }
    for parameter in module.parameters():
        if parameter.ndim < 2 or not parameter.requires_grad or id(parameter) in plain:
            continue
        rows = parameter.flatten(1)
        products = rows @ rows.T
        gradient = 2 * strength * (products.fill_diagonal_(0) @ rows).view_as(parameter)
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
