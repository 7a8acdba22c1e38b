"""Group DRO (arXiv 1911.08731): the loss of the worst group, found online."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_ssl.distributed import all_reduce_mean, world_size
from lit_ssl.errors import InputError

__all__ = ["GroupDROLoss", "GroupDROLossOutput", "group_means", "group_membership"]


class GroupDROLossOutput(NamedTuple):
    """Parts of the loss.

    Attributes:
        loss: scalar to minimise, ``Σ_g q_g L_g``.
        group_losses: ``[G]`` mean loss L_g of each group in this batch, 0 where it is absent;
            without gradient.
        group_counts: ``[G]`` samples of each group in this batch; with soft groups, their shares.
        group_weights: ``[G]`` the weights q that the loss used.
    """

    loss: Tensor
    group_losses: Tensor
    group_counts: Tensor
    group_weights: Tensor


def group_membership(groups: Tensor, num_groups: int) -> Tensor:
    """Shares ``[B, G]`` of each sample in each group.

    Args:
        groups: int64 ``[B]``, −1 where unknown (a row of zeros); or shares, float ``[B, G]``.
        num_groups: number G of groups.
    """
    if groups.ndim == 2:
        return groups
    return groups[:, None] == torch.arange(num_groups, device=groups.device)


def group_means(losses: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Mean loss of each group, over the samples of all processes.

    The gradient is the one of the batch of all processes together, once data-parallel training has
    averaged it over them.

    Args:
        losses: per sample, float ``[B]``.
        groups: see :func:`group_membership`.
        num_groups: number G of groups.

    Returns:
        Means ``[G]``, 0 for an absent group, and how many samples each group has, ``[G]``.
    """
    return _group_means(losses, group_membership(groups, num_groups), all_reduce_mean)


def _group_means(
    losses: Tensor, membership: Tensor, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    membership = membership.to(losses.dtype)
    # One collective. Both are divided by the number of processes, which cancels in the means.
    local = torch.stack([losses @ membership, membership.sum(dim=0)])
    sums, shares = reduce(local)
    shares = shares.detach()
    means = sums / torch.where(shares > 0, shares, 1.0)
    return means, shares * (1 if reduce is _as_is else world_size())


def _as_is(x: Tensor) -> Tensor:
    return x


class GroupDROLoss(nn.Module):
    """Group distributionally robust optimisation, the online algorithm, in log-space.

    Losses ``l [B]`` and shares ``m [B, G]`` in the groups, of all processes::

        L = (l @ m) / m.sum(0)                                   # [G], 0 where a group is absent
        q = q * exp(step_size * (L + adjustment / sqrt(n)))      # [G], in training only
        q = q / q.sum()
        loss = (q * L).sum()

    The arithmetic is float32 (float64 for float64 losses), also under autocast, and the buffers
    stay float32 whatever the module is converted to.

    Three choices differ from the released code, where the results depend on accidents: the constant
    ``Σ_g q_g C_g / √n_g`` is not part of the loss (same gradient); an adjustment also counts if it
    is 0 for some groups; q never moves in evaluation.

    Args:
        num_groups: G >= 1.
        step_size: η >= 0 of the group weights.
        adjustment: C >= 0 of the generalisation adjustment ``C / √n_g``: one number, or one per
            group.
        group_counts: training samples n_g per group; needed for an adjustment, and may come later
            with :meth:`set_group_counts`. A group without any has the weight 0.
        normalize: divide the adjusted losses by their sum before they move the weights.
        absent: what a group that is missing in a batch counts as: ``zero``, a loss of 0, as in the
            released code, so that groups that are seldom drawn lose weight; or ``hold``, the
            weighted mean loss of the groups that are there. With balanced sampling both are alike.
        gather: form the group means over the samples of all processes, so that training on several
            is exactly training on the concatenated batch. False: each process has weights of its
            own, and nothing is communicated.
        gamma: weight of the newest batch in ``running_losses``, which nothing but logging uses.

    Attributes:
        log_q: buffer ``[G]``, log of the group weights.
        group_counts: buffer ``[G]``, 0 until they are known.
        running_losses: buffer ``[G]``, exponential mean of the group losses, NaN until the first.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 1911.08731, algorithm 1 and section 3.3; soft groups as in PG-DRO.

    Example:
        >>> loss = GroupDROLoss(2, step_size=0.1)
        >>> output = loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
        >>> [round(q, 4) for q in output.group_weights.tolist()]
        [0.4502, 0.5498]
    """

    _constants: Tensor
    log_q: Tensor
    group_counts: Tensor
    running_losses: Tensor
    _KEPT = ("log_q", "group_counts", "running_losses")

    def __init__(
        self,
        num_groups: int,
        step_size: float = 0.01,
        adjustment: float | Sequence[float] = 0.0,
        group_counts: Sequence[float] | Tensor | None = None,
        normalize: bool = False,
        absent: Literal["zero", "hold"] = "zero",
        gather: bool = True,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        constants = _constants(adjustment, num_groups)
        if step_size < 0 or not 0 < gamma <= 1 or absent not in ("zero", "hold"):
            raise InputError(
                "GroupDROLoss needs step_size >= 0, gamma in (0, 1] and absent 'zero' or 'hold', "
                f"got {step_size}, {gamma} and {absent!r}"
            )
        self.num_groups = num_groups
        self.step_size = step_size
        self.normalize = normalize
        self.absent = absent
        self.gather = gather
        self.gamma = gamma
        self.register_buffer("_constants", constants, persistent=False)
        self.register_buffer("log_q", torch.zeros(num_groups))
        self.register_buffer("group_counts", torch.zeros(num_groups))
        self.register_buffer("running_losses", torch.zeros(num_groups))
        self._restart(torch.ones(num_groups, dtype=torch.bool))
        if group_counts is not None:
            self.set_group_counts(group_counts)

    @property
    def group_weights(self) -> Tensor:
        """The weights q ``[G]``."""
        return self.log_q.exp()

    def set_group_counts(self, counts: Sequence[float] | Tensor) -> None:
        """Tell the sizes of the training groups; other sizes than before restart the weights.

        Args:
            counts: ``[G]``, >= 0, not all 0; with soft groups, sums of shares.

        Raises:
            ValueError: if they are something else.
        """
        new = torch.as_tensor(counts, dtype=torch.float32).to(self.group_counts.device)
        if new.shape != (self.num_groups,) or not bool((new >= 0).all() & (new > 0).any()):
            raise InputError(
                f"expected the sizes of {self.num_groups} groups, >= 0 and not all 0, got "
                f"{new.tolist()}"
            )
        if torch.equal(new, self.group_counts):
            return
        self.group_counts.copy_(new)
        self._restart(new > 0)

    def _restart(self, occupied: Tensor) -> None:
        start = torch.where(occupied, 0.0, -torch.inf)
        self.log_q.copy_(start.log_softmax(dim=0))
        self.running_losses.fill_(torch.nan)

    def forward(self, losses: Tensor, groups: Tensor) -> GroupDROLossOutput:
        """Compute the loss and, in training mode, move the weights.

        Args:
            losses: loss of each sample, float ``[B]``, from float32 logits.
            groups: int64 ``[B]`` in ``[0, G)``, −1 where unknown (does not count); or shares
                ``[B, G]``, rows summing to 1.

        Raises:
            ValueError: if shapes do not fit.
        """
        if losses.ndim != 1 or groups.shape not in (losses.shape, (len(losses), self.num_groups)):
            raise InputError(
                f"GroupDROLoss needs losses [B] and groups [B] or [B, {self.num_groups}], got "
                f"{list(losses.shape)} and {list(groups.shape)}"
            )
        with torch.autocast(device_type=losses.device.type, enabled=False):
            losses = losses if losses.dtype == torch.float64 else losses.float()
            # Not in evaluation: there, processes may have different numbers of batches.
            reduce = all_reduce_mean if self.gather and self.training else _as_is
            membership = group_membership(groups, self.num_groups)
            means, counts = _group_means(losses, membership, reduce)
            if self.training:
                self._move(means.detach(), counts > 0)
            weights = self.group_weights
            return GroupDROLossOutput((weights * means).sum(), means.detach(), counts, weights)

    @torch.no_grad()
    def _move(self, means: Tensor, present: Tensor) -> None:
        seen = torch.where(
            self.running_losses.isnan(),
            means,
            torch.lerp(self.running_losses.to(means), means, self.gamma),
        )
        self.running_losses.copy_(torch.where(present, seen, self.running_losses))
        if self.absent == "hold":
            weights = torch.where(present, self.group_weights, 0.0)
            mean = (weights * means).sum() / weights.sum().clamp(min=1e-30)
            means = torch.where(present, means, mean)
        means = means + self._constants / self.group_counts.clamp(min=1.0).sqrt()
        if self.normalize:
            means = means / means.sum().clamp(min=1e-30)
        self.log_q.copy_((self.log_q + self.step_size * means).log_softmax(dim=0))

    def _apply(self, fn: Callable, recurse: bool = True) -> GroupDROLoss:
        """Move to a device; conversions to another precision leave the buffers float32."""
        kept = {name: getattr(self, name) for name in self._KEPT}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            now = getattr(self, name)
            if now.dtype != before.dtype:
                setattr(self, name, before.to(now.device))
        return self


def _constants(adjustment: float | Sequence[float], num_groups: int) -> Tensor:
    constants = torch.as_tensor(adjustment, dtype=torch.float32)
    if num_groups < 1 or constants.numel() not in (1, num_groups) or bool((constants < 0).any()):
        raise InputError(
            "GroupDROLoss needs num_groups >= 1 and an adjustment >= 0, one number or one per "
            f"group, got {num_groups} and {adjustment}"
        )
    if bool((constants == 0).any() & (constants > 0).any()):
        warnings.warn(
            f"the adjustment {constants.tolist()} is 0 for some groups: these get none, the others "
            "do (the released code would silently give none to any)",
            stacklevel=4,
        )
    return constants.expand(num_groups).clone()
