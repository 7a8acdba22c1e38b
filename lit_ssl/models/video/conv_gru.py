"""Gated recurrence over the frames of a video, with convolutions."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, check_choice

__all__ = ["CandidateAct", "ConvGRUCell"]

CandidateAct = Literal["relu", "tanh"]
"""The activation of the candidate: ``relu`` as in DVD-GAN, or ``tanh``."""


class _Weights(NamedTuple):
    """Weights of the three gates, r and u and c, asked for once."""

    of_input: Tensor  # [3 · hidden, in, k, k]
    of_state: Tensor  # r and u: [2 · hidden, hidden, k, k]
    of_candidate: Tensor  # c: [hidden, hidden, k, k]
    bias: Tensor  # [3 · hidden]


class ConvGRUCell(nn.Module):
    """One step of a convolutional gated recurrent unit.

        r = σ(W_r * [x; h] + b_r)
        u = σ(W_u * [x; h] + b_u)
        c = act(W_c * [x; r ⊙ h] + b_c)
        h' = u ⊙ h + (1 - u) ⊙ c

    Args:
        in_channels: channels of x.
        hidden_channels: channels of h; None: as many as of x.
        kernel_size: odd.
        candidate_act: see ``CandidateAct``.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 1907.06571 (DVD-GAN), section 3.1 and appendix; arXiv 1511.06432.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | None = None,
        kernel_size: int = 3,
        candidate_act: CandidateAct = "relu",
    ) -> None:
        super().__init__()
        check_choice("candidate_act", candidate_act, get_args(CandidateAct))
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size of a ConvGRU must be odd, not {kernel_size}")
        self.in_channels = in_channels
        self.hidden_channels = in_channels if hidden_channels is None else hidden_channels
        self.padding = kernel_size // 2
        self.activate = torch.relu if candidate_act == "relu" else torch.tanh
        both = in_channels + self.hidden_channels
        self.reset_gate = nn.Conv2d(both, self.hidden_channels, kernel_size)
        self.update_gate = nn.Conv2d(both, self.hidden_channels, kernel_size)
        self.candidate = nn.Conv2d(both, self.hidden_channels, kernel_size)
        for gate in self.gates:
            nn.init.orthogonal_(gate.weight)
            assert gate.bias is not None
            nn.init.zeros_(gate.bias)

    @property
    def gates(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        """The convolutions of r, u and c."""
        return self.reset_gate, self.update_gate, self.candidate

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """X ``[B, in, H, W]`` and h ``[B, hidden, H, W]`` → the next h.

        Args:
            inputs: x, features of a frame.
            state: h, after the frame before.

        Returns:
            ``[B, hidden, H, W]``.
        """
        weights = self._weights()
        return self._step(weights, self._of_input(weights, inputs), state)

    def unroll(self, inputs: Tensor, num_frames: int | None = None) -> Tensor:
        """All states, from h = 0 on.

        What depends on x alone is computed for all frames in one convolution, and only once where
        x is the same at all frames.

        Args:
            inputs: ``[B, T, in, H, W]``; or ``[B, 1, in, H, W]``, the same at all frames.
            num_frames: T, where the input has one frame.

        Returns:
            ``[B, T, hidden, H, W]``.

        Raises:
            ValueError: if the input has neither one frame nor ``num_frames``.
        """
        batch, given = inputs.shape[:2]
        length = given if num_frames is None else num_frames
        if given not in (1, length) or length < 1:
            raise InputError(f"an input of {given} frames cannot be unrolled over {length}")
        weights = self._weights()
        parts = self._of_input(weights, inputs.flatten(0, 1)).unflatten(0, (batch, given))
        states: list[Tensor] = []
        for t in range(length):
            part = parts[:, t if given > 1 else 0]
            states.append(self._step(weights, part, states[-1] if states else None))
        return torch.stack(states, dim=1)

    def _weights(self) -> _Weights:
        reset, update, candidate = (gate.weight for gate in self.gates)
        n = self.in_channels
        return _Weights(
            of_input=torch.cat([reset[:, :n], update[:, :n], candidate[:, :n]]),
            of_state=torch.cat([reset[:, n:], update[:, n:]]),
            of_candidate=candidate[:, n:],
            bias=torch.cat([gate.bias for gate in self.gates if gate.bias is not None]),
        )

    def _of_input(self, weights: _Weights, inputs: Tensor) -> Tensor:
        return F.conv2d(inputs, weights.of_input, weights.bias, padding=self.padding)

    def _step(self, weights: _Weights, part: Tensor, state: Tensor | None) -> Tensor:
        """The next state; None: h = 0, whose convolutions are 0."""
        n = self.hidden_channels
        gates, candidate = part[:, : 2 * n], part[:, 2 * n :]
        if state is None:
            return (1 - torch.sigmoid(gates[:, n:])) * self.activate(candidate)
        gates = torch.sigmoid(gates + F.conv2d(state, weights.of_state, padding=self.padding))
        reset, update = gates[:, :n], gates[:, n:]
        of_state = F.conv2d(reset * state, weights.of_candidate, padding=self.padding)
        return update * state + (1 - update) * self.activate(candidate + of_state)
