"""Initial weights of new layers: as BERT's."""

from __future__ import annotations

from torch import nn

__all__ = ["init_vl_weights_"]

_STD = 0.02


def init_vl_weights_(module: nn.Module) -> None:
    """Draw the weights of one layer from N(0, 0.02²), with biases 0; for ``module.apply``.

    Other layers than linear ones, embeddings and attention stay as they are.
    """
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=_STD)
        nn.init.zeros_(module.in_proj_bias)
    elif isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
