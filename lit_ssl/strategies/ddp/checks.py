"""Refuses what local steps cannot do, before it hangs or goes wrong silently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lit_ssl.errors import InputError, InputTypeError, did_you_mean
from lit_ssl.strategies.options import Options
from lit_ssl.trainer.length import total_steps

__all__ = [
    "check_ddp_arguments",
    "check_optimizers",
    "check_unsharded",
    "count_warmup",
    "warn_about_collectives",
    "warn_about_monitors",
]

_REST = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
_GIVEN = {"self", "module", "device_ids"}  # by Lightning
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
    try:
        total = total_steps(trainer)
    except InputError as error:
        raise InputError(
            f"warmup_steps={warmup_steps} is a share of the run, whose length is unknown: set "
            "max_steps or max_epochs, or give a number of steps"
        ) from error
    return max(1, round(warmup_steps * total))


def check_ddp_arguments(strategy: type[DDPStrategy], options: Options, kwargs: Any) -> None:
    """Refuse arguments that DDP does not have, and those that exclude local steps.

    Args:
        strategy: the class.
        options: of the local steps.
        kwargs: what else the strategy was given, for ``DDPStrategy`` and DDP.

    Raises:
        ValueError: with what was found and what to do.
    """
    name = strategy.__name__
    classes = strategy.__mro__[: strategy.__mro__.index(DDPStrategy) + 1]
    inits: list[Any] = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)]
    inits.append(DistributedDataParallel.__init__)
    known = {p.name for i in inits for p in signature(i).parameters.values() if p.kind not in _REST}
    for unknown in sorted(set(kwargs) - known | set(kwargs) & _GIVEN):
        near = did_you_mean(unknown, known - _GIVEN)
        raise InputTypeError(f"{name} has no option {unknown!r}.{near}")
    if kwargs.get("static_graph") and options.warmup_steps > 0:
        raise InputError(
            f"{name}: static_graph=True cannot be combined with warmup_steps, because DDP "
            "would count on a graph that local steps do not run; leave one of them out"
        )
    state = kwargs.get("ddp_comm_state")
    if type(state).__name__ == "PostLocalSGDState" or kwargs.get("model_averaging_period"):
        raise InputError(
            f"{name} averages by itself: leave out PostLocalSGDState and "
            "model_averaging_period, and set warmup_steps and sync_every"
        )
    if options.group_size > 1 and kwargs.get("ddp_comm_hook"):
        raise InputError(f"{name}: group_size > 1 uses DDP's communication hook itself")


def check_unsharded(module: nn.Module, strategy: str) -> None:
    """Refuse models of which every process has only a part.

    Args:
        module: which is to be trained.
        strategy: name of the strategy, for messages.

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

    Args:
        module: which is to be trained.
        optimizers: of the module.
        strategy: name of the strategy, for messages.

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


def warn_about_collectives(module: nn.Module, strategy: str) -> None:
    """Warn about layers that communicate in every step.

    Args:
        module: which is to be trained.
        strategy: name of the strategy, for the message.
    """
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
