"""DDP that is silent after an exception and finds its peers again after a restart by torchrun."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from lit_ssl.strategies.ddp.attempts import agent_store, attempt_store, leave_group_at_exit

__all__ = ["ResilientDDPStrategy"]


class ResilientDDPStrategy(DDPStrategy):
    """Base of our strategies: DDP with three holes closed.

    - Once the Trainer is interrupted by an exception, nothing communicates any more: the other
      processes are elsewhere, and saving a last checkpoint would wait for them until the timeout.
    - Under torchrun, each attempt meets in its own part of the agent's store, where no addresses of
      dead processes are left.
    - The process group is closed before the interpreter ends, with gloo too.
    """

    @property
    def trainer(self) -> pl.Trainer | None:
        """The Trainer, once a module is connected."""
        module = self.lightning_module
        return None if module is None else module._trainer

    @property
    def interrupted(self) -> bool:
        """Whether an exception has ended the run."""
        return self.trainer is not None and self.trainer.interrupted

    def setup_distributed(self) -> None:
        """Create the process group; under torchrun with a store of this attempt's own."""
        if self._timeout is not None and not dist.is_initialized():
            store = agent_store(self._timeout)
            if store is not None:
                self._join_attempt(store)
        super().setup_distributed()  # leaves a process group that exists as it is
        leave_group_at_exit()

    def _join_attempt(self, store: dist.Store) -> None:
        assert self._timeout is not None
        self.set_world_ranks()
        rank, world_size = self.global_rank, self.world_size
        dist.init_process_group(
            self._get_process_group_backend(),
            store=attempt_store(store, rank, world_size, self._timeout),
            rank=rank,
            world_size=world_size,
            timeout=self._timeout,
            device_id=self.root_device if self.root_device.type != "cpu" else None,
        )

    def _before_reduction(self) -> None:
        """Called before metrics are reduced and tensors gathered."""

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all processes, unless interrupted."""
        if not self.interrupted:
            super().barrier(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Take an object of one process, unless interrupted."""
        return obj if self.interrupted else super().broadcast(obj, src)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce over processes, unless interrupted."""
        self._before_reduction()
        return tensor if self.interrupted else super().reduce(tensor, group, reduce_op)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Decide together with the other processes, unless interrupted."""
        return decision if self.interrupted else super().reduce_boolean_decision(decision, all)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Gather from all processes; only the own value if interrupted."""
        self._before_reduction()
        if self.interrupted:
            return tensor.unsqueeze(0)
        return super().all_gather(tensor, group, sync_grads)
