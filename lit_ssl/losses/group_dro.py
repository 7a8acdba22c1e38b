"""Group DRO (arXiv 1911.08731): the loss of the worst group, found online."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_ssl.distributed import all_reduce_mean, world_size
from lit_ssl.errors import InputError

__all__ = ["GroupDROLoss", "GroupDROLossOutput", "group_means", "group_membership"]

# Log of the weight of a group without training rows: 0 as a weight, and finite, so that buffers can
# be averaged and compared.
_NEVER = -1e4


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
        groups: see ``group_membership``.
        num_groups: number G of groups.

    Returns:
        Means ``[G]``, 0 for an absent group, and how many samples each group has, ``[G]``.
    """
    return _group_means(losses, group_membership(groups, num_groups), all_reduce_mean)


def _group_means(
    losses: Tensor, membership: Tensor, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    sums, shares = _group_sums(losses, membership, reduce)
    return _divided(sums, shares), shares * (1 if reduce is _as_is else world_size())


def _group_sums(
    losses: Tensor, membership: Tensor, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Losses and shares summed over the samples, both divided by the number of processes."""
    membership = membership.to(losses.dtype)
    # One collective. The number of processes cancels in the means.
    sums, shares = reduce(torch.stack([losses @ membership, membership.sum(dim=0)]))
    return sums, shares.detach()


def _divided(sums: Tensor, shares: Tensor) -> Tensor:
    return sums / torch.where(shares > 0, shares, 1.0)


def _as_is(x: Tensor) -> Tensor:
    return x


class _Step(NamedTuple):
    """The batches of one step so far: weights before it, sums ``[G]`` and number of batches."""

    log_q: Tensor
    sums: Tensor
    shares: Tensor
    batches: int


class GroupDROLoss(nn.Module):
    """Group distributionally robust optimisation, the online algorithm, in log-space.

    Losses ``l [B]`` and shares ``m [B, G]`` in the groups, of all processes:

        L = (l @ m) / m.sum(0)                                   # [G], 0 where a group is absent
        q = q * exp(step_size * (L + adjustment / sqrt(n)))      # [G], in training only
        q = q / q.sum()
        loss = (q * L).sum()

    The arithmetic of the losses is float32 (float64 for float64 losses), also under autocast, that
    of the weights float64, and the buffers stay so whatever the module is converted to.

    Three choices differ from the released code, where the results depend on accidents: the constant
    ``Σ_g q_g C_g / √n_g`` is not part of the loss (same gradient); an adjustment also counts if it
    is 0 for some groups; q never moves in evaluation.

    Args:
        num_groups: G >= 1.
        step_size: η >= 0 of the group weights.
        adjustment: C >= 0 of the generalisation adjustment ``C / √n_g``: one number, or one per
            group.
        group_counts: training samples n_g per group; needed for an adjustment, and may come later
            with [`set_group_counts`][lit_ssl.losses.GroupDROLoss.set_group_counts]. A group without
            any has the weight 0.
        normalize: divide the adjusted losses by their sum before they move the weights.
        absent: what a group that is missing in a batch counts as: ``zero``, a loss of 0, as in the
            released code, so that groups that are seldom drawn lose weight; or ``hold``, the
            weighted mean loss of the groups that are there. With balanced sampling both are alike.
        gather: form the group means over the samples of all processes, so that training on several
            is exactly training on the concatenated batch. False: each process has weights of its
            own, and nothing is communicated.
        gamma: weight of the newest batch in ``running_losses``, which nothing but logging uses.

    Attributes:
        log_q: buffer ``[G]``, log of the group weights, float64: it adds up a small step in each
            batch.
        group_counts: buffer ``[G]``, 0 until they are known.
        running_losses: buffer ``[G]``, exponential mean of the group losses, 0 until the first.
        batches_seen: int64 ``[G]``, batches in which the group was there; after a checkpoint was
            read, from 1 for those that had been.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 1911.08731, algorithm 1 and section 3.3; soft groups as in PG-DRO.

    Examples:
        >>> loss = GroupDROLoss(2, step_size=0.1)
        >>> output = loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
        >>> [round(q, 4) for q in output.group_weights.tolist()]
        [0.4502, 0.5498]
    """

    _constants: Tensor
    _drawn: Tensor
    log_q: Tensor
    group_counts: Tensor
    running_losses: Tensor
    batches_seen: Tensor
    _KEPT = ("log_q", "group_counts", "running_losses", "_constants", "_drawn")

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
        zeros = torch.zeros(num_groups, dtype=torch.float32)
        self.register_buffer("_drawn", zeros.clone(), persistent=False)
        self.register_buffer("log_q", zeros.double())
        self.register_buffer("group_counts", zeros.clone())
        self.register_buffer("running_losses", zeros.clone())
        self.register_buffer("batches_seen", zeros.long(), persistent=False)
        self.register_load_state_dict_pre_hook(_read_state)
        self._step: _Step | None = None
        self._restart(torch.ones(num_groups, dtype=torch.bool))
        if group_counts is not None:
            self.set_group_counts(group_counts)

    @property
    def group_weights(self) -> Tensor:
        """The weights q ``[G]``, float32."""
        return self.log_q.exp().float()

    def set_group_counts(
        self, counts: Sequence[float] | Tensor, drawn: Sequence[float] | Tensor | None = None
    ) -> None:
        """Tell the sizes of the training groups; other sizes than before restart the weights.

        Args:
            counts: ``[G]``, >= 0, not all 0; with soft groups, sums of shares.
            drawn: ``[G]``, how often batches have the groups on average, to any common factor; only
                used where several batches make a step. None: as often as in the step so far.

        Raises:
            ValueError: if they are something else.
        """
        new = torch.as_tensor(counts, dtype=torch.float32).to(self.group_counts.device)
        if new.shape != (self.num_groups,) or not bool((new >= 0).all() & (new > 0).any()):
            raise InputError(
                f"expected the sizes of {self.num_groups} groups, >= 0 and not all 0, got "
                f"{new.tolist()}"
            )
        often = torch.zeros_like(new) if drawn is None else torch.as_tensor(drawn).to(new)
        self._drawn.copy_(often / often.sum().clamp(min=1e-30))
        if torch.equal(new, self.group_counts):
            return
        self.group_counts.copy_(new)
        self._restart(new > 0)

    def _restart(self, occupied: Tensor) -> None:
        start = torch.where(occupied, 0.0, _NEVER).double()
        self.log_q.copy_(start.log_softmax(dim=0))
        self.running_losses.zero_()
        self.batches_seen.zero_()
        self._step = None

    def forward(
        self, losses: Tensor, groups: Tensor, part: tuple[int, int] = (0, 1)
    ) -> GroupDROLossOutput:
        """Compute the loss and, in training mode, move the weights.

        Args:
            losses: loss of each sample, float ``[B]``, from float32 logits.
            groups: int64 ``[B]`` in ``[0, G)``, −1 where unknown (does not count); or shares
                ``[B, G]``, rows summing to 1.
            part: number i (from 0) of this batch among the n batches of one step, whose losses are
                averaged (gradient accumulation). After the last one the weights have moved exactly
                as for one batch of all. The mean of the losses is that batch's but for what the
                earlier ones could not know: the weights so far stand for the final ones, and the
                sizes of groups that are expected (``drawn``) for those that come.

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
            sums, shares = _group_sums(losses, membership, reduce)
            means = terms = _divided(sums, shares)
            if self.training:
                self._follow(means.detach(), shares > 0)
                step = self._added(sums.detach(), shares, part[0])
                self._move(step)
                if part[1] > 1:
                    terms = _divided(sums, self._sizes(step, part[1]) / part[1])
            counts = shares * (1 if reduce is _as_is else world_size())
            weights = self.group_weights
            return GroupDROLossOutput((weights * terms).sum(), means.detach(), counts, weights)

    @torch.no_grad()
    def _follow(self, means: Tensor, present: Tensor) -> None:
        later = torch.lerp(self.running_losses.to(means), means, self.gamma)
        seen = torch.where(self.batches_seen > 0, later, means)
        self.running_losses.copy_(torch.where(present, seen, self.running_losses))
        self.batches_seen += present

    def _sizes(self, step: _Step, batches: int) -> Tensor:
        """Sizes of the groups in a whole step, as far as they can be known."""
        total = step.shares.sum()
        known = self._drawn.sum() > 0
        drawn = torch.where(known, self._drawn, step.shares / total.clamp(min=1e-30))
        return torch.maximum(step.shares, drawn * total * (batches / step.batches))

    def _added(self, sums: Tensor, shares: Tensor, index: int) -> _Step:
        """The step so far, with this batch."""
        before = self._step if index else None
        if before is None:
            self._step = _Step(self.log_q.clone(), sums, shares, 1)
        else:
            both = before.sums + sums, before.shares + shares
            self._step = _Step(before.log_q, *both, before.batches + 1)
        return self._step

    @torch.no_grad()
    def _move(self, step: _Step) -> None:
        means, present = _divided(step.sums, step.shares).double(), step.shares > 0
        if self.absent == "hold":
            weights = torch.where(present, step.log_q.exp(), 0.0)
            mean = (weights * means).sum() / weights.sum().clamp(min=1e-30)
            means = torch.where(present, means, mean)
        means = means + self._constants / self.group_counts.clamp(min=1.0).sqrt()
        if self.normalize:
            means = means / means.sum().clamp(min=1e-30)
        moved = (step.log_q + self.step_size * means).log_softmax(dim=0)
        occupied = (self.group_counts > 0) | (self.group_counts.sum() == 0)
        self.log_q.copy_(torch.where(occupied, moved, _NEVER))

    def _apply(self, fn: Callable, recurse: bool = True) -> GroupDROLoss:
        """Move to a device; conversions to another precision leave the buffers as they are."""
        kept = {name: getattr(self, name) for name in self._KEPT}
        self.log_q = self.log_q.float()  # not every device has float64
        super()._apply(fn, recurse)
        for name, before in kept.items():
            now = getattr(self, name)
            dtype = torch.float32 if now.device.type == "mps" else before.dtype
            if now.dtype != dtype:
                whole = now if before.is_meta else before
                setattr(self, name, whole.to(now.device, dtype))
        return self


def _read_state(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Tell seen groups by their loss; earlier versions marked absent ones by NaN and infinity."""
    losses, weights = state.get(f"{prefix}running_losses"), state.get(f"{prefix}log_q")
    if losses is not None:
        state[f"{prefix}running_losses"] = losses = losses.nan_to_num(0.0)
        module.batches_seen.copy_(losses != 0)
    if weights is not None:
        state[f"{prefix}log_q"] = weights.clamp(min=_NEVER)


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
