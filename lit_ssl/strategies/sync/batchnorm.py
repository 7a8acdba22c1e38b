"""BatchNorm statistics of averaged parameters, estimated anew from the last training batches."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Recalibration"]


class Recalibration:
    """Keeps batches and runs them through a module in order to count its BatchNorm statistics.

    A module may say how by ``recalibration_step(batch)``; else it is called with the batch, or its
    first part.

    Args:
        count: batches to keep.
    """

    def __init__(self, count: int) -> None:
        self.batches: deque[Any] = deque(maxlen=count)

    def remember(self, batch: Any) -> None:
        """Keep a batch (no copy) in place of the oldest one."""
        self.batches.append(batch)

    @staticmethod
    def norms(module: nn.Module) -> list[_BatchNorm]:
        """The module's BatchNorm layers that have running statistics."""
        layers = (m for m in module.modules() if isinstance(m, _BatchNorm))
        return [m for m in layers if m.running_mean is not None]

    @staticmethod
    def statistics(module: nn.Module) -> list[Tensor]:
        """All buffers that :meth:`estimate_` overwrites."""
        return [b for norm in Recalibration.norms(module) for b in norm.buffers()]

    @torch.no_grad()
    def estimate_(self, module: nn.Module) -> None:
        """Replace running statistics by the mean over the kept batches, with all else as it is."""
        norms = self.norms(module)
        before = [(norm.training, norm.momentum) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of all batches
            norm.train()
        try:
            for batch in self.batches:
                own = getattr(module, "recalibration_step", None)
                if own is not None:
                    own(batch)
                else:
                    module(batch[0] if isinstance(batch, list | tuple) else batch)
        finally:
            for norm, (training, momentum) in zip(norms, before, strict=True):
                norm.momentum = momentum
                norm.train(training)
