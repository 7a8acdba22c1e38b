"""A small circuit for tests; its inputs are its tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lit_ssl.models import NeuralAttentiveCircuit
from lit_ssl.models.nac.tokenizers.tokens import Tokens

TOKEN_DIM = 10


class TokensAsTheyAre(nn.Module):
    """The inputs are tokens, or a pair of tokens and a mask."""

    token_dim = TOKEN_DIM

    def forward(self, inputs: Any) -> Tokens:
        return Tokens(*inputs) if isinstance(inputs, tuple) else Tokens(inputs)


def circuit(seed: int = 0, **kwargs: Any) -> NeuralAttentiveCircuit:
    """Seven mediators of 12 channels, depth 2; its signatures are spread, its codes matter."""
    torch.manual_seed(seed)
    sizes = {
        "num_classes": 5, "state_dim": 12, "signature_dim": 8, "num_modules": 7,
        "num_output_modules": 3, "depth": 2, "num_heads": 2, "head_dim": 4, "layer_scale": None,
    }  # fmt: skip
    net = NeuralAttentiveCircuit(TokensAsTheyAre(), **{**sizes, **kwargs})
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    return net


def tokens(batch: int = 3, count: int = 9, seed: int = 1) -> torch.Tensor:
    """``[B, V, 10]``."""
    return torch.randn(batch, count, TOKEN_DIM, generator=torch.Generator().manual_seed(seed))
