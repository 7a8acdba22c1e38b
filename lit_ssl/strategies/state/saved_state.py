"""What a checkpoint holds besides the averaged weights, so that every process can go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.fabric.utilities.optimizer import _optimizer_to_device
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_ssl.strategies.state.rng import get_rng, set_rng
from lit_ssl.strategies.sync.buffers import fingerprints
from lit_ssl.strategies.sync.units import SyncUnit

if TYPE_CHECKING:
    from lit_ssl.strategies.local_sgd import LocalSGDStrategy

__all__ = ["KEY", "collect_state", "remove_sidecars", "restore"]

KEY = "lit_ssl.strategy"
VERSION = 1

# Settings that do not change the trajectory.
_HARMLESS = {
    "bn_recalibration_batches", "bucket_cap_mb", "eval_params", "final_sync", "per_rank_state",
    "per_rank_state_limit_mb",
}  # fmt: skip


def to_cpu(value: Any) -> Any:
    """A copy of nested containers with all tensors cloned to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_cpu(item) for item in value)
    return value


# saving


def collect_state(strategy: LocalSGDStrategy, filepath: str) -> dict[str, Any]:
    """State of a strategy; all processes must call it, except after an exception.

    Args:
        strategy: it has units.
        filepath: of the checkpoint; sidecars are written beside it.

    Returns:
        Tensors and plain values; complete on rank 0.
    """
    engine, silent = strategy.engine, strategy.interrupted
    state: dict[str, Any] = {
        "version": VERSION,
        "algorithm": type(strategy).__name__,
        "settings": strategy.settings(),
        "world_size": strategy.world_size,
        "is_local": strategy.is_local,
        "synced": not silent,
        "steps": list(strategy.steps),
        "rounds": strategy.rounds,
        "ranks": None,
        "sidecar": None,
    }
    if not strategy.is_local:
        return state
    if not silent:
        engine.wait()
    state["units"] = [_unit_state(strategy, unit, silent) for unit in strategy.units]
    if silent or strategy.options.per_rank_state == "none":
        return state
    mine = strategy.with_local_values(lambda: _rank_state(strategy))
    _store_ranks(strategy, state, mine, filepath)
    return state


def _unit_state(strategy: LocalSGDStrategy, unit: SyncUnit, silent: bool) -> dict[str, Any]:
    engine = strategy.engine
    assert unit.x0 is not None
    state = {
        "names": list(unit.names),
        "shapes": [list(p.shape) for p in unit.parameters],
        "round": unit.round.state_dict(),
        "fingerprints": dict(unit.fingerprints),
        "x0": None,
        "outer": {},
        "outer_optimizer": None,
        "in_flight": None if silent else engine.in_flight_state(unit),
    }
    if not (silent and unit.shards > 1):  # gathering the shards would communicate
        state["x0"] = unit.full(unit.x0)
        state["outer"] = {name: unit.full(part) for name, part in unit.outer.items()}
    if unit.outer_optimizer is not None:
        state["outer_optimizer"] = unit.outer_optimizer.state_dict()
    return to_cpu(state)


def _rank_state(strategy: LocalSGDStrategy) -> dict[str, Any]:
    """What this process has for itself."""
    engine = strategy.engine
    state: dict[str, Any] = {"tensors": {}, "optimizers": [], "errors": [], "snapshots": []}
    for unit in strategy.units:
        state["errors"].append(unit.error)
        state["snapshots"].append(engine.snapshot_of(unit))
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


def _store_ranks(
    strategy: LocalSGDStrategy, state: dict[str, Any], mine: dict[str, Any], filepath: str
) -> None:
    """Gather the processes' states on rank 0, or let each write its own file if they are large."""
    size = torch.tensor([_size_in_bytes(mine)], device=strategy.root_device)
    dist.all_reduce(size, op=dist.ReduceOp.MAX)
    options = strategy.options
    limit = options.per_rank_state_limit_mb * 2**20
    if options.per_rank_state == "sidecar" or int(size) * strategy.world_size > limit:
        # Names may hold a step or metric that differs between processes: take rank 0's.
        state["sidecar"], filepath = strategy.broadcast((os.urandom(8).hex(), filepath))
        content = {"sidecar": state["sidecar"], "state": mine}
        strategy.checkpoint_io.save_checkpoint(content, f"{filepath}.rank{strategy.global_rank}")
        return
    gathered: list[Any] | None = [None] * strategy.world_size if strategy.is_global_zero else None
    dist.gather_object(mine, gathered, dst=0)
    state["ranks"] = gathered


def _size_in_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, Mapping) else value
    return sum(map(_size_in_bytes, items)) if isinstance(value, Mapping | list | tuple) else 8


def remove_sidecars(filepath: str) -> None:
    """Delete the processes' files beside a checkpoint."""
    files = get_filesystem(filepath)
    rank = 0
    while files.exists(path := f"{filepath}.rank{rank}"):
        files.rm(path)
        rank += 1


# loading


def restore(strategy: LocalSGDStrategy, checkpoint: Mapping[str, Any], path: str | None) -> None:
    """Bring a strategy, its optimizers and the module's local values to a checkpoint's state.

    Args:
        strategy: set up, with the checkpoint's (averaged) weights and rank 0's optimizer states.
        checkpoint: the checkpoint.
        path: where it was read, to find its sidecars.
    """
    state = checkpoint.get(KEY)
    if state is None:
        strategy.steps = [checkpoint["global_step"] // len(strategy.steps)] * len(strategy.steps)
        rank_zero_info(
            "The checkpoint is of another strategy: a new round begins with its weights."
        )
        return
    _warn_about_changes(strategy, state)
    strategy.steps, strategy.rounds = list(state["steps"]), state["rounds"]
    if not state["is_local"]:
        return
    if not strategy.is_local:
        strategy.begin_local_steps()
    held = [(s["names"], s["shapes"]) for s in state["units"]]
    if held != [(u.names, [list(p.shape) for p in u.parameters]) for u in strategy.units]:
        rank_zero_warn("The optimizers' parameters have changed: a new round begins.")
        return
    for unit, saved in zip(strategy.units, state["units"], strict=True):
        _restore_unit(unit, saved)
    if not state["synced"]:
        rank_zero_warn(
            "The checkpoint was saved after an exception, by one process alone: all go on from its "
            "parameters and optimizer state."
        )
    elif state["ranks"] is not None or state["sidecar"] is not None:
        _restore_ranks(strategy, state, checkpoint, path)


def _warn_about_changes(strategy: LocalSGDStrategy, state: Mapping[str, Any]) -> None:
    new = {"algorithm": type(strategy).__name__, **strategy.settings()}
    old = {"algorithm": state["algorithm"], **state["settings"]}
    changes = [
        f"{name} was {old.get(name)}, is {value}"
        for name, value in new.items()
        if name not in _HARMLESS and old.get(name) != value
    ]
    if changes:
        rank_zero_warn(f"The strategy has changed since the checkpoint: {'; '.join(changes)}.")


@torch.no_grad()
def _restore_unit(unit: SyncUnit, saved: Mapping[str, Any]) -> None:
    low, high = unit.bounds
    if saved["x0"] is not None and unit.x0 is not None:
        unit.x0.copy_(saved["x0"][low:high])
    for name, part in unit.outer.items():
        if name in saved["outer"]:
            part.copy_(saved["outer"][name][low:high])
    if unit.outer_optimizer is not None and saved["outer_optimizer"] is not None:
        unit.outer_optimizer.load_state_dict(saved["outer_optimizer"])
    unit.round.load_state_dict(saved["round"])
    unit.fingerprints = dict(saved["fingerprints"])


def _read_sidecar(
    strategy: LocalSGDStrategy, state: Mapping[str, Any], path: str, rank: int
) -> Any:
    """State of one process from its file; None if it is not there, or of another checkpoint."""
    local = os.path.exists(path)  # a link to the last checkpoint has no files of its own
    file = f"{os.path.realpath(path) if local else path}.rank{rank}"
    if not get_filesystem(file).exists(file):
        return None
    content = strategy.checkpoint_io.load_checkpoint(file, weights_only=True)
    return content["state"] if content.get("sidecar") == state["sidecar"] else None


def _restore_ranks(
    strategy: LocalSGDStrategy,
    state: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    path: str | None,
) -> None:
    def of_rank(rank: int) -> Any:
        if state["ranks"] is not None:
            return state["ranks"][rank]
        return _read_sidecar(strategy, state, path or "", rank)

    same = state["world_size"] == strategy.world_size
    mine = of_rank(strategy.global_rank) if same else None
    if strategy.reduce_boolean_decision(mine is not None) and mine is not None:
        _restore_rank(strategy, state, mine)
        return
    reason = "its sidecars are missing" if same else f"was saved by {state['world_size']} processes"
    rank_zero_warn(
        f"The checkpoint {reason}: all go on from the average of parameters and optimizer states, "
        "and running rounds begin anew."
    )
    ranks = [of_rank(rank) for rank in range(1, state["world_size"])]
    for index, optimizer in enumerate(strategy.optimizers):
        others = [r["optimizers"][index] for r in ranks if r is not None]
        states = [checkpoint["optimizer_states"][index], *(s for s in others if s is not None)]
        optimizer.load_state_dict(_mean_optimizer_state(states))
        _optimizer_to_device(optimizer, strategy.root_device)
    for unit in strategy.units:
        if not strategy.engine.is_level(unit):
            strategy.begin_round_here(unit)


def _restore_rank(
    strategy: LocalSGDStrategy, state: Mapping[str, Any], mine: Mapping[str, Any]
) -> None:
    engine, module = strategy.engine, strategy.lightning_module
    assert module is not None
    named = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    for unit in strategy.units:  # optimizers may hold parameters from outside the module
        named |= dict(zip(unit.names, unit.parameters, strict=True))
    with torch.no_grad():
        for name, value in mine["tensors"].items():
            named[name].copy_(value)
    for optimizer, saved in zip(strategy.optimizers, mine["optimizers"], strict=True):
        if saved is not None:
            optimizer.load_state_dict(saved)
            _optimizer_to_device(optimizer, strategy.root_device)
    for i, unit in enumerate(strategy.units):
        error = mine["errors"][i]
        unit.error = None if error is None else error.to(unit.device)
        engine.restore_in_flight(unit, state["units"][i]["in_flight"], mine["snapshots"][i])
    if mine["precision"] is not None:
        strategy.precision_plugin.load_state_dict(mine["precision"])
    set_rng(mine["rng"], strategy.root_device)
    if not mine["epoch_end"]:
        strategy.rng_at_start = mine["rng"]


def _mean_optimizer_state(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the floating-point tensors of optimizer states; all else is the first one's."""
    mean = to_cpu(states[0])
    for key, entry in mean["state"].items():
        for name, value in entry.items():
            others = [s["state"].get(key, {}).get(name) for s in states]
            floats = isinstance(value, Tensor) and value.is_floating_point() and name != "step"
            if floats and all(isinstance(o, Tensor) and o.shape == value.shape for o in others):
                entry[name] = torch.stack([o.float().cpu() for o in others]).mean(0).to(value.dtype)
    return mean
