"""Initial weights of new layers: as BERT's, or larger ones for small networks."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["draw_small_network_", "init_vl_weights_"]

_STD = 0.02


def init_vl_weights_(module: nn.Module) -> None:
    """Draw the weights of one layer from N(0, 0.02²), with biases 0; for ``module.apply``.

    Other layers than linear ones, embeddings and attention stay as they are.

    Args:
        module: the layer.
    """
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=_STD)
        nn.init.zeros_(module.in_proj_bias)
    elif isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def draw_small_network_(module: nn.Module) -> None:
    """Draw weights of which a narrow network learns in few steps; for ``module.apply``.

    Linear layers and convolutions from N(0, 1 / fan in), biases 0, embeddings from N(0, 0.2²):
    with N(0, 0.02²) the sums over 64 inputs are so small that hundreds of steps pass before a
    network of this width tells one image from another. Source: ours.

    Args:
        module: the layer.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.2)
