"""The hinge loss of generative adversarial networks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lit_ssl.precision import widened

__all__ = ["hinge_d_loss", "hinge_g_loss"]


def hinge_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Loss of a discriminator: ``mean(max(0, 1 - real)) + mean(max(0, 1 + fake))``.

    float32 (float64 for float64 scores) also inside autocast.

    Args:
        real: scores of real samples, any shape.
        fake: scores of generated samples, any shape.

    Returns:
        A scalar, 2 where the scores say nothing (0).

    Source: arXiv 1705.02894; arXiv 1809.11096.
    """
    return F.relu(1 - widened(real)).mean() + F.relu(1 + widened(fake)).mean()


def hinge_g_loss(fake: Tensor) -> Tensor:
    """Loss of a generator: ``-mean(fake)``, a scalar in float32.

    Args:
        fake: scores of generated samples, any shape.
    """
    return -widened(fake).mean()
