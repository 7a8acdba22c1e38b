"""How many local steps a round has, and where in its round an optimizer stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lit_ssl.errors import InputError, InputRuntimeError
from lit_ssl.strategies.functional import quadratic_period
from lit_ssl.strategies.options import QuadraticSyncRule

__all__ = ["Round", "SyncSchedule"]


class SyncSchedule:
    """Length H of each round.

    Args:
        sync_every: H, ≥ 1.
        schedule: None: H is constant; a list of ``(step, H)``: H from that optimizer step on; or a
            ``lit_ssl.strategies.QuadraticSyncRule``.
        shortest: smallest H that makes sense, e.g. more than the delay.

    Raises:
        ValueError: for lengths or steps that cannot be meant.
    """

    def __init__(
        self,
        sync_every: int,
        schedule: Sequence[Sequence[int]] | QuadraticSyncRule | None = None,
        shortest: int = 1,
    ) -> None:
        self.sync_every = sync_every
        self.rule = schedule if isinstance(schedule, QuadraticSyncRule) else None
        pairs = [] if isinstance(schedule, QuadraticSyncRule) else list(schedule or ())
        if any(len(pair) != 2 for pair in pairs):
            raise InputError(f"sync_schedule must list pairs [step, sync_every], not {pairs}")
        self.steps = [int(step) for step, _ in pairs]
        self.periods = [int(period) for _, period in pairs]
        if min([sync_every, *self.periods]) < shortest:
            raise InputError(
                f"a round must have at least {shortest} step(s), but sync_every is {sync_every} "
                f"and sync_schedule has {self.periods}; with delay=d it needs d + 1"
            )
        if self.steps != sorted(set(self.steps)) or min(self.steps, default=0) < 0:
            raise InputError(f"the steps of sync_schedule must increase from 0, not {self.steps}")
        if self.rule and not (self.rule.coefficient > 0 and self.rule.max_every >= sync_every):
            raise InputError(
                "sync_schedule needs coefficient > 0 and max_every >= sync_every, not "
                f"{self.rule} with sync_every={sync_every}"
            )

    def period(self, step: int, lr: float, previous: Round | None = None) -> int:
        """Length of a round.

        Args:
            step: optimizer steps done before the round.
            lr: learning rate of its first step.
            previous: the round before it, if any; ``start_lr`` is what ``lr`` may not exceed.
        """
        if self.rule is None:
            passed = [h for start, h in zip(self.steps, self.periods, strict=True) if start <= step]
            return passed[-1] if passed else self.sync_every
        last = self.sync_every if previous is None else previous.period
        if lr == 0 or (previous is not None and lr > previous.start_lr):
            return last
        return quadratic_period(lr, self.rule.coefficient, self.sync_every, self.rule.max_every)

    def begin(self, current: Round, lr: Any) -> None:
        """Give a round the length of its first step's learning rate.

        It is not known earlier: schedulers change the learning rate when a round has ended.

        Args:
            current: the round; only one without a step yet is changed.
            lr: learning rate of the step, a number or a tensor of one element.
        """
        if self.rule is not None and current.step == 0:
            current.period = self.period(0, float(lr), current)
            current.start_lr = float(lr)

    def check_same(self, periods: Sequence[int]) -> None:
        """Refuse rounds of different lengths, which come of different learning rates.

        Args:
            periods: length of the round of each process that counts.

        Raises:
            InputRuntimeError: if the processes had such rounds.
        """
        if self.rule is not None and len(set(periods)) > 1:
            raise InputRuntimeError(
                f"the processes had rounds of {sorted(set(periods))} steps, since their learning "
                "rates differ, from which sync_schedule takes H: give all the same (a scheduler "
                "that follows a metric needs sync_dist=True for it)"
            )

    def expected(self, step: int, current: Round) -> int:
        """Length of the round that follows ``current``, as far as it is known at its end.

        Args:
            step: steps of the optimizer so far.
            current: the round.
        """
        return current.period if self.rule is not None else self.period(step, 0.0)


@dataclass
class Round:
    """Where one optimizer, or a fragment of it, stands between two synchronisations.

    Args:
        period: length H of the current round.
        step: local steps done in it.
        count: rounds completed.
        start_lr: learning rate of the first parameter group in the first step; before it, of the
            step before.
        lr_sums: sum of the learning rates of the round's steps, for each parameter group.
        last_lrs: learning rates of its last step.
        worked: steps that ``lr_sums`` counts; differs from ``step`` in a round that was shortened
            at its beginning.
    """

    period: int
    step: int = 0
    count: int = 0
    start_lr: float = math.inf
    lr_sums: list[float] = field(default_factory=list)
    last_lrs: list[float] = field(default_factory=list)
    worked: int = 0

    @property
    def left(self) -> int:
        """Steps that are still to be done; below 0 for one that should have ended."""
        return self.period - self.step

    def advance(self, lrs: Sequence[Any]) -> None:
        """Count one local step, made with these learning rates (one for each parameter group).

        Args:
            lrs: numbers or tensors of one element.
        """
        self.step += 1
        self.worked += 1
        if len(lrs) != len(self.lr_sums):  # a group was added
            self.lr_sums += [0.0] * (len(lrs) - len(self.lr_sums))
        self.lr_sums = [total + lr for total, lr in zip(self.lr_sums, lrs, strict=True)]
        # A learning rate kept as a tensor is changed in place by its scheduler.
        self.last_lrs = [lr + 0.0 for lr in lrs]

    def restart(self, period: int, lr: float, offset: int = 0, completed: bool = True) -> None:
        """Begin the next round.

        Args:
            period: its length H.
            lr: current learning rate of the first parameter group.
            offset: steps that count as done already; shortens this round.
            completed: whether the one before was finished.
        """
        self.period = period
        self.step = offset
        self.count += int(completed)
        self.start_lr = float(lr)
        self.lr_sums, self.last_lrs, self.worked = [], [], 0

    def mean_lr(self, group: int) -> float:
        """Mean learning rate of a parameter group over the round's steps.

        Args:
            group: its number.
        """
        return float(self.lr_sums[group]) / self.worked

    def last_lr(self, group: int) -> float:
        """Learning rate of a parameter group in the last step.

        Args:
            group: its number.
        """
        return float(self.last_lrs[group])

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        state = asdict(self)
        for name in ("lr_sums", "last_lrs"):
            state[name] = [float(value) for value in state[name]]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave.

        Args:
            state: values by name.
        """
        for name, value in state.items():
            setattr(self, name, value)
