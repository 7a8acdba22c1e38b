"""Linear layers that share their weights and differ by a code per module (ModFC)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, check_choice

__all__ = ["LayerScale", "ModulatedFFN", "ModulatedLinear", "Modulation"]

Modulation = Literal["one_plus_norm", "norm", "unit", "sigmoid", "tanh", "none"]
"""What a code c becomes: ``one_plus_norm``: 1 + g · LN(S c), g learned; ``norm``: LN(S c);
``unit``: S c at unit length; ``sigmoid``, ``tanh``: of S c; ``none``: no code is used."""

_EPS = 1e-5
_GAIN = 0.1  # at the start


class ModulatedLinear(nn.Module):
    """A linear layer whose input channels each module scales by its own code (ModFC).

        a_u = 1 + g · LN(S c_u)            [U, in]; LN without affine, g a learned number
        y_u = W (x_u ⊙ a_u) + b            [B, U, out]

    The factors do not depend on the batch, and are never expanded over it. What is the same for all
    inputs may be computed once ([`fold`][lit_ssl.models.ModulatedLinear.fold]); that ends with the
    next ``train()`` or loading.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        code_dim: channels C of a code.
        bias: whether there is b, which starts at 0.
        modulation: what the factor is, see ``Modulation``.

    Source: arXiv 2210.08031, ModFC; the weight starts as ``nn.Linear``'s, g at 0.1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        code_dim: int,
        bias: bool = True,
        modulation: Modulation = "one_plus_norm",
    ) -> None:
        super().__init__()
        check_choice("modulation", modulation, get_args(Modulation))
        self.modulation = modulation
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.scale = None if modulation == "none" else nn.Linear(code_dim, in_features, bias=False)
        self.gain = nn.Parameter(torch.tensor(_GAIN)) if modulation == "one_plus_norm" else None
        self.folded: Tensor | None
        self.register_buffer("folded", None, persistent=False)
        self.register_load_state_dict_pre_hook(_unfold)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def factor(self, codes: Tensor) -> Tensor | None:
        """Factors of the input channels: codes ``[…, U, C]`` → ``[…, U, in]``; None: all 1.

        Args:
            codes: not used where factors are kept.
        """
        if self.scale is None:
            return None
        if self.folded is not None:
            return self.folded
        scale = self.scale(codes)
        if self.modulation == "unit":
            return F.normalize(scale, dim=-1)
        if self.modulation == "sigmoid":
            return scale.sigmoid()
        if self.modulation == "tanh":
            return scale.tanh()
        normed = F.layer_norm(scale, scale.shape[-1:], eps=_EPS)
        return normed if self.gain is None else 1 + self.gain * normed

    def fold(self, codes: Tensor) -> None:
        """Keep the factors of these codes for evaluation, whatever codes come then.

        Args:
            codes: ``[U, C]``.
        """
        self.folded = None
        factor = self.factor(codes)
        self.folded = None if factor is None else factor.detach()

    def forward(self, inputs: Tensor, codes: Tensor) -> Tensor:
        """``[B, U, in]`` and codes ``[U, C]`` or ``[B, U, C]`` → ``[B, U, out]``.

        Args:
            inputs: of each of the U modules.
            codes: theirs.
        """
        factor = self.factor(codes)
        inputs = inputs if factor is None else inputs * factor
        return F.linear(inputs, self.weight, self.bias)

    def train(self, mode: bool = True) -> ModulatedLinear:
        """Switch to training, where nothing is kept, or to evaluation."""
        if mode:
            self.folded = None
        return super().train(mode)


class LayerScale(nn.Module):
    """A learned factor for each channel.

    Args:
        dim: channels.
        start: the factors at the start.
    """

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(start)))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[…, dim]`` → ``[…, dim]``.

        Args:
            inputs: of any number of dimensions.
        """
        return inputs * self.gamma


class ModulatedFFN(nn.Module):
    """Feed-forward block with codes: ``x + LS(ModFC2(act(ModFC1(LN(x), c)), c))``.

    Args:
        dim: channels D of a state.
        code_dim: channels C of a code.
        ratio: hidden channels per channel of a state, > 0 (the paper's capacity).
        activation: ``gelu``, or ``geglu``: ModFC1 gives twice as many channels, of which the second
            half gates the first through a GELU.
        layer_scale: start of the factors of the residual branch; None: without them.
        drop_path: share of samples whose branch is left out in training.
        modulation: see ``Modulation``.

    Raises:
        InputError: if no hidden channel is left.
    """

    def __init__(
        self,
        dim: int,
        code_dim: int,
        ratio: float = 2.0,
        activation: Literal["geglu", "gelu"] = "geglu",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        modulation: Modulation = "one_plus_norm",
    ) -> None:
        super().__init__()
        check_choice("activation", activation, ("geglu", "gelu"))
        hidden = round(ratio * dim) if math.isfinite(ratio) else 0
        if hidden < 1:
            raise InputError(f"ffn_mult must leave a hidden channel, not {ratio} of {dim}")
        self.gated = activation == "geglu"
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.fc1 = ModulatedLinear(
            dim, 2 * hidden if self.gated else hidden, code_dim, modulation=modulation
        )
        self.fc2 = ModulatedLinear(hidden, dim, code_dim, modulation=modulation)
        self.layer_scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, states: Tensor, codes: Tensor) -> Tensor:
        """``[B, U, D]`` and codes → ``[B, U, D]``.

        Args:
            states: of U modules.
            codes: ``[U, C]`` or ``[B, U, C]``.
        """
        hidden = self.fc1(self.norm(states), codes)
        if self.gated:
            value, gate = hidden.chunk(2, dim=-1)
            hidden = value * F.gelu(gate)
        else:
            hidden = F.gelu(hidden)
        return states + self.drop_path(self.layer_scale(self.fc2(hidden, codes)))


def _unfold(module: nn.Module, *_: object) -> None:
    """What was kept belongs to the weights before."""
    module.folded = None  # type: ignore[assignment]
