"""RoPAWS (arXiv 2302.14483): PAWS with targets that hold back on images of no known class."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lit_ssl.distributed import gather_stack, process_rank
from lit_ssl.errors import InputError
from lit_ssl.losses.paws import PAWSLoss

__all__ = ["RoPAWSLoss", "ropaws_predictions"]


@torch.no_grad()
def ropaws_predictions(
    queries: Tensor,
    supports: Tensor,
    columns: Tensor,
    temperature: float = 0.1,
    prior_temperature: float = 0.1,
    label_ratio: float = 5.0,
) -> Tensor:
    """Class masses of queries that are classified by the supports and by each other.

    Queries ``z [n, D]``, supports ``s [M, D]``, labels ``y [M, K]``, ``r = label_ratio · n / M``:

        prior = exp((max_j z @ s.T - 1) / prior_temperature)     # [n] belongs to a known class
        logits = [z @ s.T / τ + log r, z @ z.T / τ without self] # [n, M + n]
        C_L, C_U = prior[:, None] * softmax(logits)              # [n, M] and [n, n]
        p = inverse(I - C_U) @ C_L @ y                           # [n, K]

    What is missing in a row to 1 is the mass outside of the known classes.

    Args:
        queries: ``[n, D]``, normalised, of all processes.
        supports: ``[M, D]``, normalised, of all processes.
        columns: ``[M, K]`` (smoothed) labels.
        temperature: τ > 0.
        prior_temperature: temperature > 0 of the prior; large: every query is in-class.
        label_ratio: weight > 0 of all supports together over all queries together.

    Returns:
        ``[n, K]``, non-negative, rows sum to at most 1.
    """
    similar = queries @ supports.T  # [n, M]
    prior = ((similar.amax(dim=1) - 1) / prior_temperature).exp()
    ratio = label_ratio * len(queries) / len(supports)
    among = (queries @ queries.T / temperature).fill_diagonal_(-torch.inf)  # [n, n]
    to_labels = similar / temperature + math.log(ratio)
    weights = torch.cat([to_labels, among], dim=1).softmax(dim=1) * prior[:, None]
    by_labels, by_queries = weights.split([len(supports), len(queries)], dim=1)
    identity = torch.eye(len(queries), dtype=queries.dtype, device=queries.device)
    # solve() would look for errors and make the host wait; rows of C_U sum to less than 1.
    return torch.linalg.solve_ex(identity - by_queries, by_labels @ columns)[0]


class RoPAWSLoss(PAWSLoss):
    """PAWS whose targets and weights take into account that an image may be of no known class.

    Predictions for the targets come from [`ropaws_predictions`][lit_ssl.losses.ropaws_predictions];
    the mass that is missing is spread evenly over the classes, and the consistency of an image is
    weighted by the mass it has (the mean of both large views, to the power ``prior_power``).

    Args:
        temperature: τ > 0 of the predictions.
        sharpen_temperature: T > 0 of the targets.
        label_smoothing: ε in [0, 1), spread over the classes of the batch.
        me_max_weight: weight ≥ 0 of mean-entropy maximisation.
        target_threshold: entries of a target below it become 0.
        gather: use all processes.
        prior_temperature: temperature > 0 of the in-class prior: 0.1 for CIFAR-10, 3 for ImageNet.
        prior_power: power ≥ 0 of the images' weights.
        label_ratio: weight > 0 of all supports together over all queries together.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 2302.14483, section 3; its released code for the prior and the ratio.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sharpen_temperature: float = 0.25,
        label_smoothing: float = 0.1,
        me_max_weight: float = 1.0,
        target_threshold: float = 1e-4,
        gather: bool = True,
        prior_temperature: float = 0.1,
        prior_power: float = 1.0,
        label_ratio: float = 5.0,
    ) -> None:
        super().__init__(
            temperature=temperature,
            sharpen_temperature=sharpen_temperature,
            label_smoothing=label_smoothing,
            me_max_weight=me_max_weight,
            target_threshold=target_threshold,
            gather=gather,
        )
        if prior_temperature <= 0 or label_ratio <= 0 or prior_power < 0:
            raise InputError(
                "RoPAWSLoss needs prior_temperature > 0, label_ratio > 0 and prior_power >= 0, got "
                f"{prior_temperature}, {label_ratio} and {prior_power}"
            )
        self.prior_temperature = prior_temperature
        self.prior_power = prior_power
        self.label_ratio = label_ratio

    def pseudo_labels(
        self, log_probs: Tensor | None, queries: Tensor, supports: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Log-predictions ``[2, B, K]`` for the large views, and weights ``[B]`` of the images."""
        batch = queries.shape[1]
        everyone = gather_stack(queries) if self.gather else queries.unsqueeze(0)  # [W, 2, B, D]
        own = process_rank() if self.gather else 0
        present = columns.amax(dim=0)
        share = present / present.sum()
        smooth = (1 - self.label_smoothing) * columns + self.label_smoothing * share
        options: dict[str, Any] = {
            "temperature": self.temperature,
            "prior_temperature": self.prior_temperature,
            "label_ratio": self.label_ratio,
        }
        masses = torch.stack(
            [
                ropaws_predictions(everyone[:, view].flatten(0, 1), supports, smooth, **options)[
                    own * batch : (own + 1) * batch
                ]
                for view in range(2)
            ]
        )
        inside = masses.sum(dim=2, keepdim=True)
        probs = masses + (1 - inside) * share
        weights = inside[..., 0].mean(dim=0) ** self.prior_power
        return probs.clamp_min(1e-30).log(), weights
