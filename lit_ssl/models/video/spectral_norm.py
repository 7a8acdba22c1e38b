"""Weights divided by their largest singular value, as BigGAN's code estimates it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lit_ssl.errors import InputError
from lit_ssl.precision import kept_wide, widened, without_autocast

__all__ = ["SpectralNorm", "spectral_norm"]

M = TypeVar("M", bound=nn.Module)


class SpectralNorm(nn.Module):
    """W → W / σ, with σ from one more step of the power method.

        v = normalize(W^T u);  u = normalize(W v)        W as [out, rest]; no gradient through u, v
        σ = u^T W v

    In training the new u is kept, once each time that the weight is asked for; in evaluation it is
    thrown away. torch's own parametrisation updates u before v and makes 15 steps when it is
    created, so that its outputs differ. float32 (float64 for float64 weights) also inside autocast
    and in modules of half precision.

    Args:
        weight: the weight that is going to be normalised, ``[out, …]``; its shape and device count.
        power_iterations: steps each time, at least 1.
        eps: least length that u and v are divided by.

    Attributes:
        u: buffer ``[out]``, standard normal at the start, in training at unit length from the first
            step on.

    Raises:
        InputError: if the weight has fewer than two dimensions, or there is no iteration.

    Source: arXiv 1802.05957, algorithm 1; order and evaluation as in BigGAN's released code.
    """

    u: Tensor

    def __init__(self, weight: Tensor, power_iterations: int = 1, eps: float = 1e-12) -> None:
        super().__init__()
        if weight.ndim < 2:
            raise InputError(
                f"spectral norm needs a weight of at least 2 dimensions, got {list(weight.shape)}"
            )
        if power_iterations < 1:
            raise InputError(f"power_iterations must be at least 1, not {power_iterations}")
        self.power_iterations = power_iterations
        self.eps = eps
        self.register_buffer("u", weight.detach().new_empty(len(weight)).normal_())

    def forward(self, weight: Tensor) -> Tensor:
        """Weight ``[out, …]`` → the same shape, of spectral norm about 1.

        Args:
            weight: of a layer.
        """
        with without_autocast(weight.device):
            wide = widened(weight)
            matrix = wide.flatten(1)
            u = self.u
            with torch.no_grad():
                for _ in range(self.power_iterations):
                    v = F.normalize(u @ matrix, dim=0, eps=self.eps)
                    u = F.normalize(matrix @ v, dim=0, eps=self.eps)
                if self.training:
                    # another tensor than the one that the backward pass needs
                    self.u.copy_(u)
            sigma = torch.dot(u, matrix @ v)
            return (wide / sigma).to(weight.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        with kept_wide(self):
            return super()._apply(fn, recurse)


def spectral_norm(module: M, power_iterations: int = 1, eps: float = 1e-12) -> M:
    """Give a layer a spectrally normalised weight, in place.

    ``module.weight`` is then computed each time that it is asked for, and in training each time is
    a step of the power method: a layer that is used several times in a forward pass must ask once.
    The learned weight is ``parametrizations.weight.original`` in the state, and u
    ``parametrizations.weight.0.u``.

    Args:
        module: convolution, linear layer, embedding: anything with a ``weight`` ``[out, …]``.
        power_iterations: see [`SpectralNorm`][lit_ssl.models.SpectralNorm].
        eps: see [`SpectralNorm`][lit_ssl.models.SpectralNorm].

    Returns:
        The same module.

    Raises:
        ValueError: if the weight has one dimension, or there already is a spectral norm.
    """
    if parametrize.is_parametrized(module, "weight"):
        raise InputError(f"the weight of {type(module).__name__} is already parametrised")
    weight = module.weight
    assert isinstance(weight, Tensor)
    step = SpectralNorm(weight, power_iterations, eps)
    step.train(module.training)
    # unsafe: no check by torch, which would ask for the weight and so move u
    parametrize.register_parametrization(module, "weight", step, unsafe=True)
    return module
