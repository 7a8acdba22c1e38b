"""Everything that can be chosen about local steps: named, explained, defaulted and checked here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lit_ssl.errors import InputError, check_numbers

__all__ = ["BufferPolicy", "Fragments", "Options", "QuadraticSyncRule", "shows_options"]

BufferPolicy = Literal["auto", "maintain", "reset", "average"]
Fragments = int | Sequence[str | Sequence[str]]


@dataclass
class QuadraticSyncRule:
    """Rounds grow as the learning rate γ falls: ``H = max(sync_every, ⌊(coefficient / γ)²⌋)``.

    γ is the learning rate of the round's first step, the same on all processes. While it rises
    (warm-up) or is 0, H keeps its value.

    Args:
        coefficient: c, > 0; the paper tunes it so that H is small at the peak learning rate.
        max_every: longest round.

    Source: arXiv 2310.14423 (Quadratic Synchronization Rule).
    """

    coefficient: float
    max_every: int = 1000

    def __post_init__(self) -> None:
        check_numbers(vars(self))


@dataclass(kw_only=True)
class Options:
    """What is seldom needed; the rest is explained in ``LocalSGDStrategy``.

    Args:
        first_sync: average first after a whole ``round``; or after the first local step
            (``immediate``), as PyTorch's model averaging does; with ``average_every``, as its
            hierarchical one does, after the first step whose number since the run began, from 0, is
            a multiple of H.
        sync_schedule: changes H: a list of ``[step, H]``, or a
            ``lit_ssl.strategies.QuadraticSyncRule``.
        sync_buffers: BatchNorm statistics and other buffers: ``average``, ``broadcast`` (take rank
            0's) or ``none``. Running variances are pooled.
        sync_frozen: average parameters that no optimizer holds, if they change (EMA networks).
        sync_at_epoch_end: end the round with every epoch.
        eval_params: what is validated: ``average``, ``local``, ``slow`` (parameters at the start of
            the round, no traffic), or ``sync`` (ends the round, so it changes the training).
        bn_recalibration_batches: before validation, estimate BatchNorm statistics of those
            parameters from so many last training batches; see
            ``lit_ssl.strategies.sync.evaluation.Recalibration``.
        average_every: average parameters also within a round, every so many steps, without an outer
            step.
        average_group: processes that do so together; None: all.
        compression: send parameter changes as ``bf16`` or ``int8``, with error feedback.
        bucket_cap_mb: size of the pieces that are sent; DDP's argument of this name too.
        delay: steps between the start of an average and its use; communication runs meanwhile.
        nonfinite: with inf or NaN on some process: ``error``, or ``skip_rank``: average the others.
        uneven: when processes have unequal data: ``error``, or ``join``: those that finish an epoch
            wait and take part without weight.
        per_rank_state: where checkpoints keep what differs between processes: inside
            (``checkpoint``), in files beside it (``sidecar``), or nowhere (``none``: saving ends
            the round, and on resume all take the optimizer state of rank 0).
        per_rank_state_limit_mb: more than this, of all processes together, becomes sidecars.
        **kwargs: of DDPStrategy and DistributedDataParallel, for the warm-up and within groups.

    Raises:
        ValueError: for values that cannot be meant, or that exclude each other.
    """

    sync_every: int
    warmup_steps: int | float
    buffers: BufferPolicy
    group_size: int
    final_sync: Literal["average", "outer", "none"]
    first_sync: Literal["round", "immediate"] = "round"
    sync_schedule: list[list[int]] | QuadraticSyncRule | None = None
    sync_buffers: Literal["average", "broadcast", "none"] = "average"
    sync_frozen: bool = True
    sync_at_epoch_end: bool = False
    eval_params: Literal["average", "local", "slow", "sync"] = "average"
    bn_recalibration_batches: int = 0
    average_every: int | None = None
    average_group: int | None = None
    compression: Literal["bf16", "int8"] | None = None
    bucket_cap_mb: float = 25
    delay: int = 0
    nonfinite: Literal["error", "skip_rank"] = "error"
    uneven: Literal["error", "join"] = "error"
    per_rank_state: Literal["checkpoint", "sidecar", "none"] = "checkpoint"
    per_rank_state_limit_mb: float = 64
    # DiLoCo sets these. Without mix, local progress is kept on top of delayed results.
    fragments: Fragments = field(default=1, init=False)
    mix: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_numbers(vars(self))
        for name, hint in get_type_hints(Options).items():
            kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
            allowed = [value for kind in kinds for value in get_args(kind)]
            allowed += [None] * (type(None) in get_args(hint))
            if kinds and getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        least = {"sync_every": 1, "group_size": 1, "delay": 0, "warmup_steps": 0}
        for name, lowest in {**least, "bn_recalibration_batches": 0}.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name} must be at least {lowest}, not {getattr(self, name)}")
        if self.bucket_cap_mb <= 0:
            raise InputError(f"bucket_cap_mb must be positive, not {self.bucket_cap_mb}")
        if self.average_group is not None and self.average_every is None:
            raise InputError("average_group needs average_every")
        if self.average_every is not None and not 1 <= self.average_every < self.sync_every:
            raise InputError(
                f"average_every must lie between 1 and sync_every - 1 = {self.sync_every - 1}, not "
                f"{self.average_every}"
            )
        self.check_combinations()

    def check_combinations(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            InputError: if there are some.
        """
        streaming = self.fragments != 1
        excluded = {
            "average_every": self.average_every is not None and (streaming or self.delay > 0),
            "uneven='join'": self.uneven == "join"
            and (self.delay > 0 or streaming or self.group_size > 1 or self.warmup_steps > 0),
            "first_sync='immediate'": self.first_sync == "immediate" and streaming,
        }
        for name, broken in excluded.items():
            if broken:
                raise InputError(
                    f"{name} cannot be combined with these: delay={self.delay}, "
                    f"fragments={self.fragments}, group_size={self.group_size}, "
                    f"warmup_steps={self.warmup_steps}; leave them at their defaults"
                )

    def settings(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        if isinstance(self.sync_schedule, QuadraticSyncRule):
            values["sync_schedule"] = vars(self.sync_schedule)
        return values


def shows_options(init: Callable[..., None]) -> Callable[..., None]:
    """Let the signature and docstring of an ``__init__(self, **kwargs)`` name all options.

    ``help()``, editors and the command line read them there, and the defaults stay in one place.

    Args:
        init: the ``__init__``; it is changed.

    Returns:
        The same function.
    """
    hints = get_type_hints(Options)
    options = [
        p.replace(annotation=hints[p.name]) for p in inspect.signature(Options).parameters.values()
    ]
    own, kwargs = inspect.signature(init).parameters.values()
    init.__signature__ = inspect.Signature([own, *options, kwargs])  # type: ignore[attr-defined]
    init.__doc__ = Options.__doc__
    return init
