"""What the modules of a circuit are made of: codes, signatures, and the states they start from."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, check_choice

__all__ = ["InitialState", "StateSeeder", "noisy_codes"]

InitialState = Literal["code", "seeder", "learned"]
"""``code``: the state is the code; ``seeder``: drawn from a Gaussian that the code gives;
``learned``: a free parameter."""

_EPS = 1e-5
_LOG_VARIANCE = -5.0  # at the start


class StateSeeder(nn.Module):
    """States drawn around what codes say: ``Linear(LN(c)) + noise · exp(½ Linear'(LN(c)))``.

    Args:
        code_dim: channels C of a code.
        dim: channels D of a state.
        noise: whether there is noise, in training; without it there is no second map.

    Source: arXiv 2210.08031, initial states; evaluation has no noise (the released code keeps it).
    """

    def __init__(self, code_dim: int, dim: int, noise: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(code_dim, eps=_EPS)
        self.mean = nn.Linear(code_dim, dim)
        self.log_variance = nn.Linear(code_dim, dim) if noise else None
        if self.log_variance is not None:
            nn.init.constant_(self.log_variance.bias, _LOG_VARIANCE)

    def forward(self, codes: Tensor, batch: int, noise: Tensor | None = None) -> Tensor:
        """Codes ``[U, C]`` or ``[B, U, C]`` → states ``[B, U, D]``, or ``[1, U, D]`` without noise.

        Args:
            codes: of U modules.
            batch: B.
            noise: ``[B, U, D]``, standard normal; None: drawn in training, none in evaluation.
        """
        codes = self.norm(codes)
        mean = self.mean(codes)
        mean = mean if mean.ndim == 3 else mean[None]
        if self.log_variance is None or (noise is None and not self.training):
            return mean
        if noise is None:
            noise = torch.randn(batch, *mean.shape[1:], device=mean.device, dtype=mean.dtype)
        return mean + noise * (0.5 * self.log_variance(codes)).exp()


def noisy_codes(codes: Tensor, share: float) -> Tensor:
    """Codes with noise, uniform in ± ``share`` of each number's size; drawn for the whole batch.

    Args:
        codes: ``[U, C]``.
        share: ≥ 0.
    """
    noise = torch.empty_like(codes).uniform_(-share, share)
    return codes + noise * codes.detach().abs()


def check_initial_state(kind: str, code_dim: int, state_dim: int) -> None:
    """Raise ValueError for an unknown kind, or where codes cannot be states.

    Args:
        kind: of initial states.
        code_dim: channels of a code.
        state_dim: channels of a state.

    Raises:
        InputError: names the options.
    """
    check_choice("initial_state", kind, get_args(InitialState))
    if kind == "code" and code_dim != state_dim:
        raise InputError(
            f"initial_state 'code' needs codes as wide as states, not code_dim {code_dim} and "
            f"state_dim {state_dim}: make them equal, or choose 'seeder' or 'learned'"
        )
