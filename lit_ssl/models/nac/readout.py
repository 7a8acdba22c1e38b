"""From the states of the output modules to features and scores of classes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.nac.modulated import ModulatedLinear, Modulation

__all__ = ["OutputPooling", "SlotHead"]


class OutputPooling(nn.Module):
    """Soft choice of one output module: ``w = softmax(Linear(o))``, ``logits = Linear(Σ w_j o_j)``.

    Args:
        dim: channels D of a state.
        num_classes: K; 0: no scores.
        kind: ``softmax``, or ``gumbel``: with Gumbel noise in training.
        temperature: > 0, of the softmax.

    Raises:
        InputError: if the temperature is no positive number.

    Source: arXiv 2210.08031, output modules; evaluation has no noise (the released code keeps it).
    """

    def __init__(
        self,
        dim: int,
        num_classes: int = 0,
        kind: Literal["softmax", "gumbel"] = "softmax",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("pooling", kind, ("softmax", "gumbel"))
        if not 0 < temperature < math.inf:
            raise InputError(f"pooling_temperature must be a positive number, not {temperature}")
        self.kind = kind
        self.temperature = temperature
        self.confidence = nn.Linear(dim, 1)
        self.classifier = nn.Linear(dim, num_classes) if num_classes else None

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier of K classes; 0: none.

        Args:
            num_classes: K.
        """
        like = self.confidence.weight
        self.classifier = None
        if num_classes:
            self.classifier = nn.Linear(
                like.shape[1], num_classes, device=like.device, dtype=like.dtype
            )

    def forward(self, states: Tensor, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """States ``[B, O, D]`` → features ``[B, D]``, logits ``[B, K]`` or None; codes unused.

        Args:
            states: of the O output modules.
            codes: not used.
        """
        scores = self.confidence(states).squeeze(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.kind == "gumbel" and self.training:
            weights = F.gumbel_softmax(scores, tau=self.temperature, dim=-1)
        else:
            weights = (scores / self.temperature).softmax(dim=-1)
        features = torch.einsum("bo,bod->bd", weights.to(states.dtype), states)
        return features, None if self.classifier is None else self.classifier(features)


class SlotHead(nn.Module):
    """The first output module's state is the feature, a layer with its code gives the scores.

    Args:
        dim: channels D of a state.
        code_dim: channels C of a code.
        num_classes: K; 0: no scores.
        modulation: see ``Modulation``.
    """

    def __init__(
        self,
        dim: int,
        code_dim: int,
        num_classes: int = 0,
        modulation: Modulation = "one_plus_norm",
    ) -> None:
        super().__init__()
        self.dim, self.code_dim, self.modulation = dim, code_dim, modulation
        self.classifier: ModulatedLinear | None = None
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier of K classes; 0: none.

        Args:
            num_classes: K.
        """
        old = self.classifier
        self.classifier = None
        if num_classes:
            new = ModulatedLinear(self.dim, num_classes, self.code_dim, modulation=self.modulation)
            self.classifier = new if old is None else new.to(old.weight)

    def forward(self, states: Tensor, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """States ``[B, O, D]`` and codes → features ``[B, D]``, logits ``[B, K]`` or None.

        Args:
            states: of the O output modules, of which the first one counts.
            codes: ``[O, C]`` or ``[B, O, C]``.
        """
        if self.classifier is None:
            return states[:, 0], None
        first = self.classifier(states[:, :1], codes[..., :1, :])
        return states[:, 0], first[:, 0]
