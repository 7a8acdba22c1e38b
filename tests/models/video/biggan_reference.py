"""Reference layers: state of BigGAN's released code put into ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


@torch.no_grad()
def fill(layer: nn.Module, weight: Tensor, u: Tensor | None = None, bias: Tensor | None = None):
    """Copy a weight and the vector of the power method."""
    if u is None:
        layer.weight.copy_(weight)
    else:
        layer.parametrizations.weight.original.copy_(weight)
        layer.parametrizations.weight[0].u.copy_(u.flatten())
    if bias is not None:
        layer.bias.copy_(bias)


def fill_from(layer: nn.Module, arrays: dict[str, Tensor], name: str) -> None:
    fill(layer, arrays[f"{name}.weight"], arrays[f"{name}.u0"], arrays.get(f"{name}.bias"))


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The learned weight, normalised or not."""
    if parametrize.is_parametrized(layer):
        return layer.parametrizations.weight.original
    return layer.weight
