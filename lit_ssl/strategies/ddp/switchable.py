"""DDP whose averaging of gradients can be switched off while training."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from lightning.pytorch.overrides.distributed import _sync_module_states
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lit_ssl.strategies.ddp.resilient import ResilientDDPStrategy

__all__ = ["SwitchableDDPStrategy"]


class SwitchableDDPStrategy(ResilientDDPStrategy):
    """DDP, and local steps that pass its wrapper by.

    ``no_sync()`` would not do: it acts on the forward pass inside it, while Lightning runs backward
    elsewhere, and manual optimization sets the flag back.
    """

    is_local = False  # local steps are running
    averages_gradients = True  # at any time; else there is no wrapper, which saves its buffers
    node_group: Any = None  # processes that average gradients in local steps too; None: nobody

    @property
    def _passes_by(self) -> bool:
        return self.is_local and self.node_group is None

    def configure_ddp(self) -> None:
        """Wrap the model in DDP only if gradients are averaged at all."""
        if not self.averages_gradients:
            assert self.lightning_module is not None
            _sync_module_states(self.lightning_module)
            return
        super().configure_ddp()
        if self.node_group is not None:
            assert isinstance(self.model, DistributedDataParallel)
            everyone: Any = dist.group.WORLD
            self.model.register_comm_hook(
                None,
                lambda state, bucket: allreduce_hook(
                    self.node_group if self.is_local else everyone, bucket
                ),
            )

    def _switch_to_local_steps(self) -> None:
        self.is_local = True
        if isinstance(self.model, DistributedDataParallel):
            self.model.broadcast_buffers = False

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's step, in local steps without DDP's wrapper."""
        if not self._passes_by:
            return super().training_step(*args, **kwargs)
        assert self.lightning_module is not None
        with self.precision_plugin.train_step_context():
            return self.lightning_module.training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Prepare DDP's reducer, except in local steps."""
        if not self._passes_by:
            super().pre_backward(closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Flush DDP's reducer, except in local steps."""
        if not self._passes_by:
            super().post_backward(closure_loss)
