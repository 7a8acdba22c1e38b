"""Local SGD as a Trainer strategy: the whole rule; base of slow momentum and DiLoCo.

What surrounds it lies in ``ddp/`` (processes, who averages gradients, unequal data), ``sync/`` (how
a unit is averaged; evaluation; hooks of the Trainer) and ``state/`` (what a checkpoint holds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_ssl.strategies.options import BufferPolicy
from lit_ssl.strategies.state import rank_state, saved_state
from lit_ssl.strategies.sync.averaging import Averager
from lit_ssl.strategies.sync.inner_optimizer import share_loss_scale
from lit_ssl.strategies.sync.local_steps import LocalStepsStrategy
from lit_ssl.strategies.sync.synchroniser import deciding_row
from lit_ssl.strategies.sync.units import SyncUnit
from lit_ssl.trainer.background_io import finish_writing

__all__ = ["LocalSGDStrategy"]


class LocalSGDStrategy(LocalStepsStrategy):
    """Every process trains by itself; parameters are averaged every few steps.

    Guarantee: between two synchronisations nothing is communicated; after one, without ``delay``,
    all processes hold the same parameters, bit for bit. Validation and checkpoints see the average
    without touching the training. A run that is resumed with as many processes, inside a round too,
    has the same parameters, bit for bit, as one that was not stopped. Price: one all-reduce of the
    parameters in float32 per round; two float32 copies of them in memory (``x0`` and a buffer to
    send); checkpoints that hold each process's own parameters and optimizer inside a round.

    Steps are counted for each optimizer by itself. Callbacks with ``on_before_sync`` and
    ``on_after_sync(trainer, pl_module)``, and modules with ``on_before_sync(strategy)`` and
    ``on_after_sync(strategy)``, are told of every synchronisation.

    Args:
        sync_every: local steps of a round (H).
        warmup_steps: steps of each optimizer in plain DDP before local steps begin (post-local
            SGD); below 1: share of the run.
        buffers: momentum of the inner optimizer after a synchronisation: ``maintain``, ``reset``,
            ``average`` (more traffic), or ``auto``: reset for SGD if H is 8 or more.
        group_size: processes (in order of rank, usually those of a node) that average their
            gradients in every step; parameters are then averaged across groups.
        final_sync: parameters at the end, in the middle of a round: ``average``, ``outer`` (end the
            round) or ``none``.
        **kwargs: what is seldom needed, see ``lit_ssl.strategies.options.Options``; and
            arguments of DDPStrategy and DistributedDataParallel.

    Source: arXiv 1910.00643 (section 2), 1808.07217 (post-local SGD).
    """

    def __init__(
        self,
        sync_every: int = 8,
        warmup_steps: int | float = 0,
        *,
        buffers: BufferPolicy = "auto",
        group_size: int = 1,
        final_sync: Literal["average", "outer", "none"] = "average",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            sync_every=sync_every,
            warmup_steps=warmup_steps,
            buffers=buffers,
            group_size=group_size,
            final_sync=final_sync,
            **kwargs,
        )

    def begin_local_steps(self) -> None:
        """Begin the first round; the parameters must be the same on all processes."""
        self.gradients.begin_local_steps(self.model)
        for unit in self.units:  # the parameters of an optimizer, or a fragment of them
            self._prepare_unit(unit)
            lr = float(unit.learning_rates()[0])
            period = self.schedule.period(self.steps[unit.index], lr)
            unit.round.restart(period, lr, self.done_before(unit, period), completed=False)
            self.engine.take_fingerprints(unit)

    def _prepare_unit(self, unit: SyncUnit) -> None:
        """Take the first snapshot; override it to add what the outer step has to remember."""
        unit.take_snapshot()

    def optimizer_step(
        self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any
    ) -> Any:
        """Step an optimizer, and end its round if this was the last step."""
        output = super().optimizer_step(optimizer, closure, model, **kwargs)
        for unit in self.count_step(optimizer):
            if unit.is_due:
                self.announce(unit)
                self.start_average(unit)
            if unit.round.left <= 0:
                self.end_round(unit)
            else:
                self.average_within_round(unit)
        if self.lightning_module is not None and self.lightning_module.automatic_optimization:
            self.end_batch()
        self.go_on_silently()
        return output

    def start_average(self, unit: SyncUnit) -> None:
        """Send the parameters, and what belongs to them: BatchNorm statistics, EMA networks.

        Args:
            unit: whose round is about to end; nothing of it may be under way.
        """
        self.tell("on_before_sync")
        self.engine.start(unit, self.row_of(unit))

    def end_round(self, unit: SyncUnit) -> None:
        """Average a unit and do the outer step; all processes must call it.

        Args:
            unit: whose round ends.
        """
        if unit.in_flight is None:
            self.start_average(unit)
        with torch.no_grad():
            flight, mean = self.engine.receive(unit)
            someone_counts = flight.weight > 0  # not with inf or NaN everywhere
            new = self._outer_step(unit, mean) if someone_counts else mean
            self.engine.write_back(unit, flight, new)
        self.heed(flight)
        row = deciding_row(flight.table)
        unit.round.restart(int(row[Averager.PERIOD]), row[Averager.RATES])
        share_loss_scale(self.precision_plugin, [row[Averager.SCALE] for row in flight.table])
        self.rounds += 1
        self.just_synced = True
        self.tell("on_after_sync")

    def _outer_step(self, unit: SyncUnit, mean: Tensor) -> Tensor:
        """What a round ends with; override it for another method.

        It has to give the same result on all processes, and must not communicate.

        Args:
            unit: the parameters; ``unit.x0`` are those at the start of the round, ``unit.rates``
                their last and mean learning rates.
            mean: average over processes, ``[unit.numel]``; may be changed.

        Returns:
            The parameters to go on with, ``[unit.numel]``; ``unit.x0`` has to be set to them.
        """
        assert unit.x0 is not None
        unit.x0.copy_(mean)
        return mean

    # checkpoints

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Add what the processes need to go on, and write the file."""
        state: dict[str, Any] = {}
        if "optimizer_states" in checkpoint and self.is_fitting:
            state = checkpoint[saved_state.KEY] = saved_state.collect_state(self, str(filepath))
        super().save_checkpoint(checkpoint, filepath, storage_options)
        if self.is_global_zero and state:  # those of the file that was there before
            self._remove_sidecars(filepath, but=state["sidecar"] or "")

    def remove_checkpoint(self, filepath: Any) -> None:
        """Delete a checkpoint and the files beside it."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            self._remove_sidecars(filepath)

    def _remove_sidecars(self, filepath: Any, but: str | None = None) -> None:
        if found := rank_state.find_sidecars(str(filepath), but):
            finish_writing(self.checkpoint_io)  # until then they belong to the newest whole file
            rank_state.remove_files(str(filepath), found)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Read a checkpoint; what belongs to the strategy is applied after set-up."""
        self.loaded_from = str(checkpoint_path)
        return super().load_checkpoint(checkpoint_path, weights_only)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the optimizers, then rounds and local values of this process."""
        super().load_optimizer_state_dict(checkpoint)
        if self.is_fitting:
            saved_state.restore(self, checkpoint)
