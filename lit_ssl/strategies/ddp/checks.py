"""Refuses what local steps cannot do, before it hangs or goes wrong silently."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.optim import Optimizer

from lit_ssl.errors import InputError
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = [
    "check_ddp_arguments",
    "check_optimizers",
    "check_same_parameters",
    "check_unsharded",
    "count_warmup",
    "warn_about_collectives",
    "warn_about_monitors",
]

_COMMUNICATING = ("ZeroRedundancyOptimizer", "PostLocalSGDOptimizer", "DistributedOptimizer")


def count_warmup(warmup_steps: int | float, trainer: pl.Trainer) -> int:
    """Steps before local ones begin.

    Args:
        warmup_steps: steps; below 1: share of the run.
        trainer: knows the length of the run.

    Raises:
        ValueError: for a share of a run of unknown length.
    """
    if warmup_steps == 0 or warmup_steps >= 1:
        return int(warmup_steps)
    total = trainer.estimated_stepping_batches
    if not 0 < total < math.inf:
        raise InputError(
            f"warmup_steps={warmup_steps} is a share of the run, whose length is unknown: set "
            "max_steps or max_epochs, or give a number of steps"
        )
    return max(1, round(warmup_steps * total))


def check_ddp_arguments(options: Options, kwargs: dict[str, Any], strategy: str) -> None:
    """Refuse arguments of DDP that exclude local steps.

    Raises:
        ValueError: with what was found and what to do.
    """
    if kwargs.get("static_graph") and options.warmup_steps > 0:
        raise InputError(
            f"{strategy}: static_graph=True cannot be combined with warmup_steps, because DDP "
            "would count on a graph that local steps do not run; leave one of them out"
        )
    state = kwargs.get("ddp_comm_state")
    if type(state).__name__ == "PostLocalSGDState" or kwargs.get("model_averaging_period"):
        raise InputError(
            f"{strategy} averages by itself: leave out PostLocalSGDState and "
            "model_averaging_period, and set warmup_steps and sync_every"
        )
    if options.group_size > 1 and kwargs.get("ddp_comm_hook"):
        raise InputError(f"{strategy}: group_size > 1 uses DDP's communication hook itself")


def check_unsharded(module: nn.Module, strategy: str) -> None:
    """Refuse models of which every process has only a part.

    Raises:
        ValueError: with what was found and what to do.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    sharded = [n for n, p in module.named_parameters() if isinstance(p, DTensor)]
    sharded += [n for n, m in module.named_modules() if isinstance(m, FullyShardedDataParallel)]
    if sharded:
        raise InputError(
            f"{strategy} needs a whole copy of the model on every process, but {sharded[0]!r} is "
            "sharded (FSDP or tensor parallel): train unsharded, or use Lightning's FSDPStrategy"
        )


def check_optimizers(module: nn.Module, optimizers: Sequence[Optimizer], strategy: str) -> None:
    """Refuse optimizers that communicate, and parameters shared by two of them.

    Raises:
        ValueError: with what was found and what to do.
    """
    for optimizer in optimizers:
        known = type(optimizer).__name__ in _COMMUNICATING
        if known or hasattr(optimizer, "consolidate_state_dict"):
            raise InputError(
                f"{strategy} cannot use {type(optimizer).__name__}: it communicates in every step; "
                "give configure_optimizers the optimizer that it wraps"
            )
    names = {id(p): name for name, p in module.named_parameters()}
    owner: dict[int, int] = {}
    for index, optimizer in enumerate(optimizers):
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            name = names.get(id(parameter), "a parameter outside the module")
            if owner.setdefault(id(parameter), index) != index:
                raise InputError(
                    f"{strategy}: {name} belongs to optimizers {owner[id(parameter)]} and {index}; "
                    "each parameter may have one optimizer only"
                )
            if not parameter.is_floating_point():
                raise InputError(
                    f"{strategy}: {name} is {parameter.dtype}; only floats are averaged"
                )


def check_same_parameters(units: Sequence[SyncUnit], rank: int, strategy: str) -> None:
    """Compare names, shapes and order of the parameters over processes; they are sent by position.

    Raises:
        ValueError: on every process, if they differ.
    """
    if not units:
        return
    lines = [
        f"{unit.index} {unit.fragment} {name} {tuple(p.shape)} {p.dtype}"
        for unit in units
        for name, p in zip(unit.names, unit.parameters, strict=True)
    ]
    digest = int.from_bytes(hashlib.sha256("\n".join(lines).encode()).digest()[:7], "big")
    ends = torch.tensor([digest, -digest], device=units[0].device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    if ends[0] != -ends[1]:
        raise InputError(
            f"{strategy}: rank {rank} has {len(lines)} parameters whose names, shapes, types or "
            "order differ from those of another rank; build the same model on all of them"
        )


def warn_about_collectives(module: nn.Module, strategy: str) -> None:
    """Warn about layers that communicate in every step."""
    if any(isinstance(m, nn.SyncBatchNorm) for m in module.modules()):
        rank_zero_warn(
            f"{strategy}: SyncBatchNorm communicates in every forward pass, which defeats local "
            "steps (and hangs when processes take unequal numbers of them); use "
            "sync_batchnorm=False"
        )


def warn_about_monitors(trainer: pl.Trainer, world_size: int, device: torch.device) -> None:
    """Warn if processes see different values of what stops them or sets their learning rates.

    Args:
        trainer: after a validation.
        world_size: number of processes.
        device: where to communicate.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    monitors = [c.monitor for c in callbacks if isinstance(c, EarlyStopping)]
    monitors += [str(c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]
    if not monitors:
        return
    values = [float(trainer.callback_metrics.get(name, math.nan)) for name in monitors]
    mine = torch.tensor(values, dtype=torch.float32, device=device)
    everyone = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(everyone, mine)
    for name, column in zip(monitors, torch.stack(everyone).T, strict=True):
        if not torch.equal(column.nan_to_num(), column[0].nan_to_num().expand_as(column)):
            rank_zero_warn(
                f"{name!r} decides about the training, but has other values on other processes "
                f"({', '.join(f'{v:.4g}' for v in column.tolist())}): log it with sync_dist=True"
            )
