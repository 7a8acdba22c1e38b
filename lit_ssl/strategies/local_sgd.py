"""Local SGD as a Trainer strategy; base of slow momentum and DiLoCo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.strategies.ddp import checks
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.state import saved_state as checkpointing
from lit_ssl.strategies.sync.batchnorm import Recalibration
from lit_ssl.strategies.sync.inner_optimizer import BufferPolicy
from lit_ssl.strategies.sync.local_steps import LocalStepsStrategy
from lit_ssl.strategies.sync.rounds import QuadraticSyncRule
from lit_ssl.strategies.sync.synchroniser import Swap, Synchroniser

__all__ = ["LocalSGDStrategy"]


class LocalSGDStrategy(LocalStepsStrategy):
    """Every process trains by itself; parameters are averaged every few steps.

    Between two synchronisations there is no communication at all. Validation, and the weights in
    checkpoints, are those of the average; neither changes the training. A checkpoint also holds
    what every process needs to go on exactly where it was, in the middle of a round too.

    Steps are counted for each optimizer by itself. Callbacks with ``on_before_sync`` and
    ``on_after_sync(trainer, pl_module)``, and modules with ``on_before_sync(strategy)`` and
    ``on_after_sync(strategy)``, are told of every synchronisation.

    Args:
        sync_every: local steps of a round (H).
        warmup_steps: steps of each optimizer in plain DDP before local steps begin (post-local
            SGD); below 1: share of the run.
        first_sync: average first after a whole ``round``; or after the first local step
            (``immediate``), as PyTorch's model averaging does.
        sync_schedule: changes H: a list of ``[step, H]``, or a
            :class:`~lit_ssl.strategies.QuadraticSyncRule`.
        buffers: momentum of the inner optimizer after a synchronisation: ``maintain``, ``reset``,
            ``average`` (more traffic), or ``auto``: reset for SGD if H is 8 or more.
        sync_buffers: BatchNorm statistics and other buffers: ``average``, ``broadcast`` (take rank
            0's) or ``none``. Running variances are pooled.
        sync_frozen: average parameters that no optimizer holds, if they change (EMA networks).
        sync_at_epoch_end: end the round with every epoch.
        eval_params: what is validated: ``average``, ``local``, ``slow`` (parameters at the start of
            the round, no traffic), or ``sync`` (ends the round, so it changes the training).
        bn_recalibration_batches: before validation, estimate BatchNorm statistics of those
            parameters from so many last training batches; see
            :class:`~lit_ssl.strategies.sync.batchnorm.Recalibration`.
        final_sync: parameters at the end, in the middle of a round: ``average``, ``outer`` (end the
            round) or ``none``.
        group_size: processes (in order of rank, usually those of a node) that average their
            gradients in every step; parameters are then averaged across groups.
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

    Source: arXiv 1910.00643 (section 2), 1808.07217 (post-local SGD).
    """

    def __init__(
        self,
        sync_every: int = 8,
        warmup_steps: int | float = 0,
        first_sync: Literal["round", "immediate"] = "round",
        sync_schedule: list[list[int]] | QuadraticSyncRule | None = None,
        buffers: BufferPolicy = "auto",
        sync_buffers: Literal["average", "broadcast", "none"] = "average",
        sync_frozen: bool = True,
        sync_at_epoch_end: bool = False,
        eval_params: Literal["average", "local", "slow", "sync"] = "average",
        bn_recalibration_batches: int = 0,
        final_sync: Literal["average", "outer", "none"] = "average",
        group_size: int = 1,
        average_every: int | None = None,
        average_group: int | None = None,
        compression: Literal["bf16", "int8"] | None = None,
        bucket_cap_mb: float = 25,
        delay: int = 0,
        nonfinite: Literal["error", "skip_rank"] = "error",
        uneven: Literal["error", "join"] = "error",
        per_rank_state: Literal["checkpoint", "sidecar", "none"] = "checkpoint",
        per_rank_state_limit_mb: float = 1024,
        **kwargs: Any,
    ) -> None:
        options = Options(
            sync_every=sync_every,
            warmup_steps=warmup_steps,
            first_sync=first_sync,
            sync_schedule=sync_schedule,
            buffers=buffers,
            sync_buffers=sync_buffers,
            sync_frozen=sync_frozen,
            sync_at_epoch_end=sync_at_epoch_end,
            eval_params=eval_params,
            bn_recalibration_batches=bn_recalibration_batches,
            final_sync=final_sync,
            group_size=group_size,
            average_every=average_every,
            average_group=average_group,
            compression=compression,
            bucket_cap_mb=bucket_cap_mb,
            delay=delay,
            nonfinite=nonfinite,
            uneven=uneven,
            per_rank_state=per_rank_state,
            per_rank_state_limit_mb=per_rank_state_limit_mb,
        )
        super().__init__(options, **kwargs)
        self._warned = False
        self._compared = False
        self._recalibration = Recalibration(bn_recalibration_batches)
        self._swap: Swap | None = None
        self._loaded_from: str | None = None

    # what is going on

    @property
    def steps_in_round(self) -> int:
        """Local steps that the first optimizer has done in its round."""
        return self.units[0].round.step if self.units else 0

    @property
    def round_length(self) -> int:
        """Length H of its round."""
        return self.units[0].round.period if self.units else self.options.sync_every

    @property
    def bytes_sent(self) -> int:
        """Bytes that this process has sent for averages since the run began."""
        return 0 if self._engine is None else self._engine.averager.bytes_sent

    def drift(self) -> float:
        """RMS distance of the processes' parameters from their mean; all must call it."""
        return self._engine.drift() if self._engine is not None and self.is_local else 0.0

    def _before_reduction(self) -> None:
        """Warn once about communication inside of local steps."""
        if self._in_step and self.is_local and self.world_size > 1 and not self._warned:
            self._warned = True
            rank_zero_warn(
                "training_step communicates in every local step (self.log with sync_dist=True and "
                "on_step=True, or self.all_gather): that costs what local steps are to save; log "
                "per epoch, or keep it within a node by group_size"
            )

    # evaluation

    def on_validation_start(self) -> None:
        """Put the parameters to validate into the module (after the callbacks' hooks)."""
        trainer, mode = self.trainer, self.options.eval_params
        if self._engine is None or trainer is None or not self.is_local or trainer.sanity_checking:
            return
        if mode == "sync":
            self.sync()
        elif mode == "average":
            self._swap = self.engine.swap_in_average()
        elif mode == "slow":
            self._swap = self.engine.swap_in_slow()
        if self._recalibration.batches:
            self._recalibrate()

    def _recalibrate(self) -> None:
        """Estimate BatchNorm statistics anew; they are put back with the local parameters."""
        assert self.lightning_module is not None
        held = {tensor.data_ptr() for tensor, _ in self._swap or []}
        statistics = self._recalibration.statistics(self.lightning_module)
        own = [(t, t.clone()) for t in statistics if t.data_ptr() not in held]
        self._swap = [*(self._swap or []), *own]
        with self.precision_plugin.val_step_context():
            self._recalibration.estimate_(self.lightning_module)
        if self.options.eval_params != "local":
            self.engine.pool(statistics)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remember the batch, if BatchNorm statistics are to be estimated from it."""
        super().on_train_batch_start(batch, batch_idx)
        if self.options.bn_recalibration_batches:
            self._recalibration.remember(batch)

    def on_validation_end(self) -> None:
        """Put the local parameters back (after the callbacks' hooks: they save the average)."""
        self._swap_out()
        trainer = self.trainer
        if self._engine is None or trainer is None or trainer.sanity_checking:
            return
        if self.is_local and not self._compared and self.world_size > 1:
            self._compared = True
            checks.warn_about_monitors(trainer, self.world_size, self.root_device)

    def _swap_out(self) -> None:
        Synchroniser.exchange(self._swap or [])
        self._swap = None

    def with_local_values(self, function: Callable[[], Any]) -> Any:
        """Call a function while the module holds this process's own values."""
        Synchroniser.exchange(self._swap or [])
        try:  # copies, because the values change when the function has returned
            return checkpointing.to_cpu(function())
        finally:
            Synchroniser.exchange(self._swap or [])

    def on_train_end(self) -> None:
        """End with one model: the average, or the result of a last outer step."""
        if self._engine is None or not self.is_local:
            return
        for unit in self.units:
            if unit.in_flight is not None:
                self._complete(unit)
        if self.options.final_sync == "outer":
            self.sync()
        elif self.options.final_sync == "average":
            self.engine.swap_in_average()
            for unit in self.units:
                self.begin_round_here(unit)

    def on_exception(self, exception: BaseException) -> None:
        """Leave the local parameters in the module."""
        super().on_exception(exception)
        self._swap_out()

    # checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights for a checkpoint: the average of all processes; the training is not touched."""
        if self._engine is None or not self.is_local or self.interrupted:
            return super().lightning_module_state_dict()
        if self.options.per_rank_state == "none":
            self._swap_out()
            self.sync()
        swapped_already = self._swap is not None
        swap = self._swap if self._swap is not None else self.engine.swap_in_average()
        try:
            state = super().lightning_module_state_dict()
            if swap:  # the module gets other values before an asynchronous writer is done
                state = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        finally:
            if not swapped_already:
                self.engine.exchange(swap)
        return state

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Add what the processes need to go on, and write the file."""
        if "optimizer_states" in checkpoint and self._engine is not None:
            checkpoint[checkpointing.KEY] = checkpointing.collect_state(self, str(filepath))
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def remove_checkpoint(self, filepath: Any) -> None:
        """Delete a checkpoint and the files beside it."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            checkpointing.remove_sidecars(str(filepath))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Read a checkpoint; what belongs to the strategy is applied after set-up."""
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        self._loaded_from = str(checkpoint_path)
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the optimizers, then rounds and local values of this process."""
        super().load_optimizer_state_dict(checkpoint)
        if self._engine is not None:
            checkpointing.restore(self, checkpoint, self._loaded_from)
