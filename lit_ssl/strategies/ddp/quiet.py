"""DDP that can keep silent: after an exception, and between the synchronisations of local steps."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.trainer.private import collectives_begun, trainer_of

__all__ = ["QuietDDPStrategy"]


class QuietDDPStrategy(DDPStrategy):
    """Once an exception has interrupted the Trainer nothing communicates any more.

    The other processes are elsewhere, and saving a last checkpoint would wait for them until the
    timeout. A subclass may listen for communication where there should be none.

    Args:
        **kwargs: of ``DDPStrategy``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._heard: int | None = None  # collectives up to now, while somebody listens
        self._batches = 0
        self._noisy = -1  # the last batch that communicated
        self._warned = False

    @property
    def trainer(self) -> pl.Trainer | None:
        """The Trainer, once a module is connected."""
        return trainer_of(self.lightning_module)

    @property
    def interrupted(self) -> bool:
        """Whether an exception has ended the run."""
        return self.trainer is not None and self.trainer.interrupted

    # silence between synchronisations

    def listen(self) -> None:
        """From now on nothing should communicate, until the silence ends."""
        if self.world_size > 1 and not self._warned:
            self._heard = collectives_begun()

    def end_silence(self, is_over: bool = False) -> None:
        """Warn once if something has communicated in two batches that follow each other.

        Args:
            is_over: do not ask: what comes, or came, may communicate.
        """
        heard, self._heard = self._heard, None
        if is_over or heard is None or heard == collectives_begun():
            return
        if self._noisy == self._batches - 1:
            self._warned = True
            rank_zero_warn(
                "the training communicates in every local step (self.log with sync_dist=True and "
                "on_step=True, self.all_gather, a loss with gather=True, max_time, or collectives "
                "of its own): that costs what local steps are to save; log per epoch, set "
                "gather=False, give max_steps, or keep it within a node by group_size"
            )
        self._noisy = self._batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Count the batch; what came after the steps of the last one should have been silent."""
        self.end_silence()
        self._batches += 1

    # communication: none after an exception

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all processes."""
        if not self.interrupted:
            super().barrier(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Take an object of one process."""
        return obj if self.interrupted else super().broadcast(obj, src)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce over processes."""
        return tensor if self.interrupted else super().reduce(tensor, group, reduce_op)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Decide together with the other processes."""
        return decision if self.interrupted else super().reduce_boolean_decision(decision, all)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Gather from all processes."""
        if self.interrupted:
            return tensor.unsqueeze(0)
        return super().all_gather(tensor, group, sync_grads)
