"""A callback that tells where a run is, holds it there, and spoils its numbers on request."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterable
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

__all__ = ["VARIABLE", "Beacon", "Entry", "read_journal"]

VARIABLE = "LIT_SSL_SOAK"


class Entry(NamedTuple):
    """A line of the journal: the process, where it was, and the steps that it had made."""

    rank: int
    stage: str
    step: int


def read_journal(path: str | os.PathLike[str]) -> list[Entry]:
    """All that the processes of a command have told, in the order in which they did."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    return [Entry(int(r), stage, int(s)) for r, stage, s in (line.split() for line in lines)]


class Beacon(pl.Callback):
    """Does what the environment variable ``LIT_SSL_SOAK`` says, a mapping in JSON.

    - ``journal``: a file to which each stage is appended;
    - ``stop``: ``{stage, count, rank}``, the process stops itself (SIGSTOP) when it reaches the
      stage for the count-th time, so that a signal can be sent at that very moment; ``rank`` null:
      all do;
    - ``spoil``: ``{part, step}``, after that step some weights are NaN, or their gradients in the
      step are infinite (``part`` "weight" or "gradient").

    Without the variable it does nothing. It has no state, so checkpoints do not show it.
    """

    def __init__(self) -> None:
        self.plan: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
        self.seen: dict[str, int] = {}

    def reach(self, stage: str, trainer: pl.Trainer) -> None:
        """Note a stage, and stop there if that is asked for."""
        if not self.plan:
            return
        line = f"{trainer.global_rank} {stage} {trainer.global_step}\n".encode()
        file = os.open(self.plan["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line)
        os.close(file)
        self.seen[stage] = self.seen.get(stage, 0) + 1
        stop = self.plan.get("stop") or {}
        is_here = stop.get("stage") == stage and stop["count"] == self.seen[stage]
        if is_here and stop.get("rank") in (None, trainer.global_rank):
            os.kill(os.getpid(), signal.SIGSTOP)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The data is set up next."""
        self.reach("setup", trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A checkpoint has been restored, if any."""
        self.reach("begin", trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """A step begins."""
        self.reach("batch", trainer)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Spoil a gradient."""
        if self._is_to_spoil("gradient", trainer.global_step + 1):
            _spoil((p.grad for p in pl_module.parameters() if p.grad is not None), math.inf)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """A step is made; checkpoints of it come after this."""
        if self._is_to_spoil("weight", trainer.global_step):
            with torch.no_grad():
                _spoil((p for p in pl_module.parameters() if p.requires_grad), math.nan)
        self.reach("step", trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation begins."""
        self.reach("validation", trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        """A checkpoint is being collected; it is written after this."""
        self.reach("saving", trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch ends."""
        self.reach("epoch", trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The training is over."""
        self.reach("end", trainer)

    def _is_to_spoil(self, part: str, step: int) -> bool:
        spoil = self.plan.get("spoil") or {}
        return spoil.get("part") == part and spoil["step"] == step


def _spoil(tensors: Iterable[torch.Tensor], value: float) -> None:
    """Write a number into the first row of each entry: single heads of a sweep may diverge."""
    for tensor in tensors:
        tensor.view(len(tensor) if tensor.ndim else 1, -1)[:, 0] = value
