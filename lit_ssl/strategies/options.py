"""Everything that can be chosen about local steps, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.strategies.sync.inner_optimizer import BufferPolicy
from lit_ssl.strategies.sync.rounds import QuadraticSyncRule
from lit_ssl.strategies.sync.units import Fragments

__all__ = ["Options"]

_CHOICES = {
    "first_sync": ("round", "immediate"),
    "buffers": ("auto", "maintain", "reset", "average"),
    "sync_buffers": ("average", "broadcast", "none"),
    "eval_params": ("average", "local", "slow", "sync"),
    "final_sync": ("average", "outer", "none"),
    "compression": (None, "bf16", "int8"),
    "nonfinite": ("error", "skip_rank"),
    "uneven": ("error", "join"),
    "per_rank_state": ("checkpoint", "sidecar", "none"),
}


@dataclass
class Options:
    """The arguments of :class:`~lit_ssl.strategies.LocalSGDStrategy`; see there.

    ``fragments`` and ``mix`` are those of DiLoCo; ``mix`` None: local progress is kept on top of
    delayed results.

    Raises:
        ValueError: for values that cannot be meant, or that exclude each other.
    """

    sync_every: int = 8
    warmup_steps: int | float = 0
    first_sync: str = "round"
    sync_schedule: list[list[int]] | QuadraticSyncRule | None = None
    buffers: BufferPolicy = "auto"
    sync_buffers: str = "average"
    sync_frozen: bool = True
    sync_at_epoch_end: bool = False
    eval_params: str = "average"
    bn_recalibration_batches: int = 0
    final_sync: str = "average"
    group_size: int = 1
    average_every: int | None = None
    average_group: int | None = None
    compression: str | None = None
    bucket_cap_mb: float = 25
    delay: int = 0
    nonfinite: str = "error"
    uneven: str = "error"
    per_rank_state: str = "checkpoint"
    per_rank_state_limit_mb: float = 1024
    fragments: Fragments = 1
    mix: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {list(allowed)}, not {getattr(self, name)!r}"
                )
        for name, lowest in (
            ("sync_every", 1),
            ("group_size", 1),
            ("delay", 0),
            ("warmup_steps", 0),
            ("bn_recalibration_batches", 0),
        ):
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
        self._check_combinations()

    def _check_combinations(self) -> None:
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
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    return vars(value) if isinstance(value, QuadraticSyncRule) else value
