"""What differs between processes, in a checkpoint or in files beside it."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.errors import InputError, OutputError
from lit_ssl.strategies.state.pieces import (
    gather_states,
    map_tensors,
    size_in_bytes,
    with_memory_of_its_own,
)
from lit_ssl.strategies.sync.buffers import fingerprints, real_
from lit_ssl.strategies.sync.local_steps import LocalStepsStrategy
from lit_ssl.trainer.background_io import written_at_once
from lit_ssl.trainer.private import optimizer_to_device

__all__ = [
    "find_sidecars",
    "get_rng",
    "remove_files",
    "restore_ranks",
    "set_rng",
    "store_ranks",
]


def _to_cpu(value: Any) -> Any:
    """A copy of nested containers with all tensors cloned to the CPU."""
    return map_tensors(lambda tensor: tensor.detach().to("cpu", copy=True), value)


# saving


def _rank_state(strategy: LocalStepsStrategy) -> dict[str, Any]:
    """What this process has for itself."""
    engine = strategy.engine
    state: dict[str, Any] = {"tensors": {}, "optimizers": [], "errors": [], "snapshots": []}
    for unit in strategy.units:
        state["errors"].append(unit.error)
        state["snapshots"].append(None if unit.in_flight is None else unit.in_flight.snapshot)
        if engine.is_level(unit):
            continue
        state["tensors"] |= dict(zip(unit.names, unit.tensors, strict=True))
        extras = engine.extras_of(unit)
        now = fingerprints(extras)
        state["tensors"] |= {
            x.name: x.tensor for x in extras.floats if now[x.name] != unit.fingerprints.get(x.name)
        }
        state["tensors"] |= extras.integers
    for index, optimizer in enumerate(strategy.optimizers):
        units = [unit for unit in strategy.units if unit.index == index]
        equal = all(engine.is_level(u) and u.policy in ("reset", "average") for u in units)
        # That of rank 0 is in the checkpoint anyway.
        skip = equal or strategy.global_rank == 0
        state["optimizers"].append(None if skip else optimizer.state_dict())
    precision = strategy.precision_plugin
    state["precision"] = precision.state_dict() if getattr(precision, "scaler", None) else None
    state["rng"] = get_rng(strategy.root_device)
    trainer = strategy.trainer
    state["epoch_end"] = trainer is not None and bool(trainer.is_last_batch)
    return state


def store_ranks(strategy: LocalStepsStrategy, state: dict[str, Any], filepath: str) -> None:
    """Gather the processes' states on rank 0, or let each write its own file if they are large.

    Args:
        strategy: of the run.
        state: what the strategy saves; ``ranks`` or ``sidecar`` is added.
        filepath: of the checkpoint.
    """
    with strategy.evaluation.local():  # a validation goes on with other values
        mine = map_tensors(with_memory_of_its_own, _rank_state(strategy))
        size = torch.tensor([size_in_bytes(mine)], device=strategy.root_device)
        dist.all_reduce(size, op=dist.ReduceOp.MAX)
        options = strategy.options
        limit = options.per_rank_state_limit_mb * 2**20
        if options.per_rank_state == "sidecar" or int(size) * strategy.world_size > limit:
            # Names may hold a step or metric that differs between processes: take rank 0's.
            state["sidecar"], filepath = strategy.broadcast((os.urandom(8).hex(), filepath))
            _write_sidecar(strategy, mine, filepath, state["sidecar"])
            return
        if strategy.is_global_zero:  # its own are written when the others' are there
            mine = _to_cpu(mine)
        state["ranks"] = gather_states(mine, strategy.root_device)


def _write_sidecar(strategy: LocalStepsStrategy, mine: Any, filepath: str, number: str) -> None:
    """Write this process's file under a name of its own; all must be there before the checkpoint.

    So a process that is killed meanwhile leaves the checkpoint before with the files before.
    """
    failure: OutputError | None = None
    try:
        content = {"sidecar": number, "state": mine}
        io: Any = strategy.checkpoint_io
        io = getattr(io, "checkpoint_io", io)  # of one that saves in the background
        with written_at_once(io):
            io.save_checkpoint(content, f"{filepath}.{number}.rank{strategy.global_rank}")
    except OutputError as error:
        failure = error
    if not strategy.reduce_boolean_decision(failure is None):
        raise failure or OutputError(f"{filepath} is not written: another process cannot write")


def find_sidecars(filepath: str, but: str | None = None) -> list[str]:
    """The processes' files beside a checkpoint.

    Args:
        filepath: the checkpoint.
        but: the number of those that belong to it, which are left out.
    """
    files = get_filesystem(filepath)
    folder, name = os.path.split(filepath)
    sidecar = re.compile(re.escape(name) + r"(?:\.(?P<number>[0-9a-f]{16}))?\.rank\d+")
    paths = files.ls(folder or ".", detail=False) if files.isdir(folder or ".") else []
    found = [(path, sidecar.fullmatch(os.path.basename(path))) for path in paths]
    return [path for path, name in found if name and (but is None or name["number"] != but)]


def remove_files(filepath: str, paths: Sequence[str]) -> None:
    """Delete files on the file system of a checkpoint.

    Args:
        filepath: of the checkpoint.
        paths: the files.
    """
    for path in paths:
        get_filesystem(filepath).rm(path)


# loading


def _read_sidecar(strategy: LocalStepsStrategy, state: Mapping[str, Any], rank: int) -> Any:
    """State of one process from its file; None if it is not there, or of another checkpoint."""
    path = strategy.loaded_from or ""
    local = os.path.exists(path)  # a link to the last checkpoint has no files of its own
    path = os.path.realpath(path) if local else path
    # the second name is that of earlier versions, which wrote over the files before
    for file in (f"{path}.{state['sidecar']}.rank{rank}", f"{path}.rank{rank}"):
        if not get_filesystem(file).exists(file):
            continue
        try:
            content = strategy.checkpoint_io.load_checkpoint(file, weights_only=True)
        except InputError as error:  # the others must not wait for this process
            warnings.warn(str(error), stacklevel=2)
            continue
        if content.get("sidecar") == state["sidecar"]:
            return content["state"]
    return None


def restore_ranks(
    strategy: LocalStepsStrategy, state: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> None:
    """Give this process its own state back; with other processes than before, all the average.

    Args:
        strategy: of the run.
        state: what the strategy has saved.
        checkpoint: all of it, with ``optimizer_states`` of rank 0.
    """

    def of_rank(rank: int) -> Any:
        if state["ranks"] is not None:
            return state["ranks"][rank]
        return _read_sidecar(strategy, state, rank)

    same = state["world_size"] == strategy.world_size
    mine = of_rank(strategy.global_rank) if same else None
    if strategy.reduce_boolean_decision(mine is not None) and mine is not None:
        _restore_rank(strategy, state, mine)
        return
    reason = f"was saved by {state['world_size']} processes"
    if same:
        reason = "has sidecars that are missing or damaged"
    rank_zero_warn(
        f"The checkpoint {reason}: all go on from the average of parameters and optimizer states, "
        "and running rounds begin anew."
    )
    ranks = [of_rank(rank) for rank in range(1, state["world_size"])]
    for index, optimizer in enumerate(strategy.optimizers):
        others = [r["optimizers"][index] for r in ranks if r is not None]
        states = [checkpoint["optimizer_states"][index], *(s for s in others if s is not None)]
        optimizer.load_state_dict(_mean_optimizer_state(states))
        optimizer_to_device(optimizer, strategy.root_device)
    for unit in strategy.units:
        if not strategy.engine.is_level(unit):
            strategy.begin_round_here(unit)


def _restore_rank(
    strategy: LocalStepsStrategy, state: Mapping[str, Any], mine: Mapping[str, Any]
) -> None:
    engine, module = strategy.engine, strategy.lightning_module
    assert module is not None
    named = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    for unit in strategy.units:  # optimizers may hold parameters from outside the module
        named |= dict(zip(unit.names, unit.parameters, strict=True))
    with torch.no_grad():
        for name, value in mine["tensors"].items():
            # complex buffers are saved as pairs of real numbers
            (named[name] if value.is_complex() else real_(named[name])).copy_(value)
    for optimizer, saved in zip(strategy.optimizers, mine["optimizers"], strict=True):
        if saved is not None:
            optimizer.load_state_dict(saved)
            optimizer_to_device(optimizer, strategy.root_device)
    for i, unit in enumerate(strategy.units):
        error = mine["errors"][i]
        unit.error = None if error is None else error.to(unit.device)
        engine.restore_in_flight(unit, state["units"][i]["in_flight"], mine["snapshots"][i])
    if mine["precision"] is not None:
        strategy.precision_plugin.load_state_dict(mine["precision"])
    set_rng(mine["rng"], strategy.root_device)
    if not mine["epoch_end"]:  # setting up the loaders will draw numbers
        strategy.at_train_start = lambda: set_rng(mine["rng"], strategy.root_device)


def _mean_optimizer_state(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the floating-point tensors of optimizer states; all else is the first one's."""
    mean = _to_cpu(states[0])
    for key, entry in mean["state"].items():
        for name, value in entry.items():
            others = [s["state"].get(key, {}).get(name) for s in states]
            floats = isinstance(value, Tensor) and value.is_floating_point() and name != "step"
            if floats and all(isinstance(o, Tensor) and o.shape == value.shape for o in others):
                entry[name] = torch.stack([o.float().cpu() for o in others]).mean(0).to(value.dtype)
    return mean


# states of random generators, as values that ``torch.load(weights_only=True)`` accepts


def get_rng(device: torch.device) -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's global generators, and of one CUDA device's.

    Args:
        device: of this process; only a CUDA device has a generator of its own.
    """
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [
            torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            int(legacy["state"]["pos"]),
            int(legacy["has_gauss"]),
            float(legacy["gauss"]),
        ],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng(state: dict[str, Any], device: torch.device) -> None:
    """Restore what ``get_rng`` gave.

    Args:
        state: of this or another process.
        device: of this process; a CUDA device's state is restored where there is one.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    key, position, has_gauss, cached = state["numpy"]
    # The global generator is the one that augmentations of other libraries draw from.
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
