"""What keeps the wiring of a circuit in shape: losses of Neural Attentive Circuits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, NonFiniteError, check_choice
from lit_ssl.losses.gaussian_mixture import fit_mixture, log_densities
from lit_ssl.precision import kept_wide

__all__ = ["DistanceMixture", "LinkProbabilityMatching", "SignatureRepulsion"]

_PROBABILITY_FLOOR = 1e-6


class SignatureRepulsion(nn.Module):
    """Push apart signatures that are too close.

        d_uv = 1 - cos(s_u, s_v)
        loss = -sum of d_uv over pairs u > v with d_uv < hinge

    Pairs of different kinds of modules count, too. The loss is ≤ 0, float32 also inside autocast.

    Args:
        hinge: distance from which on signatures are left alone, in (0, 2].

    Raises:
        ValueError: if the hinge lies outside its range.

    Source: published code and configurations of arXiv 2210.08031 (0.4, with a weight of 0.1).
    """

    def __init__(self, hinge: float = 0.4) -> None:
        super().__init__()
        if not 0 < hinge <= 2:
            raise InputError(f"hinge of the repulsion must lie in (0, 2], got {hinge}")
        self.hinge = hinge

    def forward(self, *signatures: Tensor) -> Tensor:
        """The loss of signatures of inputs, mediators and outputs, each ``[n, G]``; a scalar.

        Args:
            *signatures: in any number of sets; all their pairs count.
        """
        distances = _pair_distances(signatures)
        return -torch.where(distances < self.hinge, distances, 0.0).sum()


class LinkProbabilityMatching(nn.Module):
    """Keep the link probabilities P of the mediators close to targets W.

    Modules have no order, so rows of P are first assigned to rows of W (row by row, with columns
    where they are: not the best match of two graphs):

        cost_ij = mean over k of (W_ik - P_jk)²            P times 1 + noise · normal, where given
        π       = assignment of least cost (Hungarian method, no gradient)
        Q       = P[π][:, π]
        loss    = mean of (Q - W)²                                       "mse"
                  mean of W log(W / Q) + (1 - W) log((1 - W) / (1 - Q))  "kl", Q in [1e-6, 1 - 1e-6]

    With a floor, terms of the mean below it count as much as the floor, and push no more. In
    float32 also inside autocast.

    The assignment is made on the CPU in O(N³), so it is kept for ``refresh`` training steps. It,
    their number and W are saved in checkpoints: a resumed run goes on with the same assignment.
    Evaluation mode uses the assignment that is there, before the first step one made for the
    moment, and counts nothing.

    Args:
        targets: W ``[N, N]`` in [0, 1].
        divergence: ``mse`` or ``kl``.
        floor: of each term, ≥ 0.
        noise: relative standard deviation of what P is multiplied with for the assignment, ≥ 0; a
            function of the number of the step, so alike in all processes.
        refresh: steps between assignments, ≥ 1.

    Raises:
        ValueError: if a value lies outside its range.

    Source: published code of arXiv 2210.08031, which assigns at every step (``refresh=1``).
    """

    targets: Tensor
    permutation: Tensor
    count: Tensor

    def __init__(
        self,
        targets: Tensor,
        divergence: str = "mse",
        floor: float = 0.0,
        noise: float = 0.0,
        refresh: int = 50,
    ) -> None:
        super().__init__()
        check_choice("divergence", divergence, ["mse", "kl"])
        square = targets.ndim == 2 and targets.shape[0] == targets.shape[1] and len(targets)
        if not square or not bool(((targets >= 0) & (targets <= 1)).all()):
            raise InputError(
                "link targets must be probabilities [N, N] in [0, 1], got shape "
                f"{list(targets.shape)}" + (" with values outside" if square else "")
            )
        if not (0 <= floor < math.inf and 0 <= noise < math.inf and refresh >= 1):
            raise InputError(
                "matching needs floor >= 0, noise >= 0 and refresh >= 1, got "
                f"{floor}, {noise} and {refresh}"
            )
        self.divergence = divergence
        self.floor = floor
        self.noise = noise
        self.refresh = refresh
        self.register_buffer("targets", targets.detach().float().clone())
        self.register_buffer("permutation", torch.arange(len(targets)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._steps: int | None = 0  # the count, known without waiting for a device
        self.register_load_state_dict_post_hook(_forget_steps)

    def forward(self, probabilities: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            probabilities: P ``[N, N]`` of the mediators, or ``[D, N, N]`` of D propagators: these
                share one assignment, of least cost over all (ours), and their losses are added, as
                published.

        Raises:
            ValueError: if they are not those of N mediators.
        """
        n = len(self.targets)
        if probabilities.ndim not in (2, 3) or probabilities.shape[-2:] != (n, n):
            raise InputError(
                f"link probabilities of {n} mediators must be [{n}, {n}] or [D, {n}, {n}], got "
                f"{list(probabilities.shape)}: leave inputs out, and match the targets to "
                "num_modules"
            )
        with torch.autocast(probabilities.device.type, enabled=False):
            layers = probabilities.float().reshape(-1, n, n)
            order = self._order(layers.detach())
            return self._terms(layers[:, order][:, :, order]).mean((1, 2)).sum()

    def _order(self, layers: Tensor) -> Tensor:
        if self._steps is None:
            self._steps = int(self.count)
        is_due = self._steps % self.refresh == 0 if self.training else self._steps == 0
        order = self._assign(layers) if is_due else self.permutation
        if self.training:
            self.permutation.copy_(order)
            self.count.add_(1)
            self._steps += 1
        return order

    def _assign(self, layers: Tensor) -> Tensor:
        p = layers.double().cpu().numpy()
        w = self.targets.double().cpu().numpy()
        if self.noise:
            p = p * (1 + self.noise * np.random.default_rng(self._steps).standard_normal(p.shape))
        # |w - p|² of all pairs of rows; rows of several layers lie one behind the other
        rows = p.transpose(1, 0, 2).reshape(len(w), -1)
        goals = np.tile(w, (1, len(p)))
        cost = (goals**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * goals @ rows.T
        if not np.isfinite(cost).all():
            raise NonFiniteError(
                "link probabilities are not finite, so the training has diverged: lower the "
                "learning rate"
            )
        _, order = linear_sum_assignment(cost)
        return torch.from_numpy(order).to(self.permutation.device)

    def _terms(self, p: Tensor) -> Tensor:
        w = self.targets
        if self.divergence == "mse":
            terms = (p - w).square()
        else:
            p = p.clamp(_PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
            entropy = torch.xlogy(w, w) + torch.xlogy(1 - w, 1 - w)
            terms = entropy - w * p.log() - (1 - w) * (1 - p).log()
        return terms.clamp(min=self.floor) if self.floor else terms

    def _apply(self, fn: Any, recurse: bool = True) -> LinkProbabilityMatching:
        with kept_wide(self):
            return super()._apply(fn, recurse)


class DistanceMixture(nn.Module):
    """Keep the pairwise distances of signatures distributed as they were at the start.

    A mixture of Gaussians is fitted to ``d_uv = 1 - cos(s_u, s_v)``, u > v, of the first signatures
    that it is given; from then on it is fixed:

        loss = -mean over u > v of log sum_k w_k normal(d_uv; mean_k, scale_k²)

    The mixture is saved in checkpoints. In float32 also inside autocast.

    Args:
        num_components: Gaussians, ≥ 1.

    Raises:
        ValueError: if that is below 1.

    Source: published code of arXiv 2210.08031, with one component; the fit (expectation
    maximisation from quantiles, without random numbers) is ours.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor
    fitted: Tensor

    def __init__(self, num_components: int = 1) -> None:
        super().__init__()
        if num_components < 1:
            raise InputError(f"a mixture needs num_components >= 1, got {num_components}")
        for name in ("weights", "means", "scales"):
            self.register_buffer(name, torch.ones(num_components, dtype=torch.float64))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._is_fitted: bool | None = False  # known without waiting for a device
        self.register_load_state_dict_post_hook(_forget_fit)

    @torch.no_grad()
    def fit(self, *signatures: Tensor) -> None:
        """Fit the mixture to signatures, each ``[n, G]``, all their pairs counted.

        Args:
            *signatures: in any number of sets.
        """
        distances = _pair_distances(signatures).double().cpu()
        weights, means, scales = fit_mixture(distances, len(self.weights))
        self.weights.copy_(weights)
        self.means.copy_(means)
        self.scales.copy_(scales)
        self.fitted.fill_(True)
        self._is_fitted = True

    def forward(self, *signatures: Tensor) -> Tensor:
        """The loss of signatures of inputs, mediators and outputs, each ``[n, G]``; a scalar.

        Args:
            *signatures: in any number of sets; those of the first call fit the mixture, if nothing
                has.
        """
        if self._is_fitted is None:
            self._is_fitted = bool(self.fitted)
        if not self._is_fitted:
            self.fit(*signatures)
        distances = _pair_distances(signatures)
        parts = self.weights.float(), self.means.float(), self.scales.float()
        return -log_densities(distances, *parts).logsumexp(-1).mean()

    def _apply(self, fn: Any, recurse: bool = True) -> DistanceMixture:
        with kept_wide(self):
            return super()._apply(fn, recurse)


def _forget_steps(loss: Any, _: Any) -> None:
    loss._steps = None


def _forget_fit(loss: Any, _: Any) -> None:
    loss._is_fitted = None


def _pair_distances(signatures: tuple[Tensor, ...]) -> Tensor:
    """Distances ``[n (n - 1) / 2]`` of all pairs, float32 also inside autocast."""
    with torch.autocast(signatures[0].device.type, enabled=False):
        unit = F.normalize(torch.cat([s.float() for s in signatures]), dim=-1)
        if len(unit) < 2:
            raise InputError(f"distances need at least two signatures, got {len(unit)}")
        row, column = torch.tril_indices(len(unit), len(unit), -1, device=unit.device)
        return (1 - unit @ unit.T)[row, column]
