"""What a checkpoint holds besides the averaged weights, so that every process can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.strategies.state.pieces import map_tensors, with_memory_of_its_own
from lit_ssl.strategies.state.rank_state import restore_ranks, store_ranks
from lit_ssl.strategies.sync.local_steps import LocalStepsStrategy
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = ["KEY", "collect_state", "restore"]

KEY = "lit_ssl.strategy"
VERSION = 1

# Settings that do not change the trajectory.
_HARMLESS = {
    "bn_recalibration_batches", "bucket_cap_mb", "eval_params", "final_sync", "per_rank_state",
    "per_rank_state_limit_mb",
}  # fmt: skip


# saving


def collect_state(strategy: LocalStepsStrategy, filepath: str) -> dict[str, Any]:
    """State of a strategy; all processes must call it, except after an exception.

    Args:
        strategy: it has units.
        filepath: of the checkpoint; sidecars are written beside it.

    Returns:
        Tensors and plain values; complete on rank 0.
    """
    silent = strategy.interrupted
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
        strategy.engine.wait()
    state["units"] = [_unit_state(unit, silent) for unit in strategy.units]
    if silent or strategy.options.per_rank_state == "none":
        return state
    store_ranks(strategy, state, filepath)
    return state


def _unit_state(unit: SyncUnit, silent: bool) -> dict[str, Any]:
    assert unit.x0 is not None
    state = {
        "names": list(unit.names),
        "shapes": [list(p.shape) for p in unit.parameters],
        "round": unit.round.state_dict(),
        "fingerprints": dict(unit.fingerprints),
        "at_start": dict(unit.at_start),
        "x0": None,
        "fresh": [[slot.start, slot.stop] for slot in unit.fresh],
        "outer": {},
        "outer_optimizer": None,
        "in_flight": None,
    }
    if (flight := unit.in_flight) is not None and not silent:
        names = [extra.name for extra in flight.extras]
        unset = [extra.name for extra in flight.unset]
        state["in_flight"] = {
            "flat": flight.flat, "table_at": flight.table_at, "extras": names, "unset": unset,
        }  # fmt: skip
    if not (silent and unit.shards > 1):  # gathering the shards would communicate
        state["x0"] = unit.full(unit.x0)
        state["outer"] = {name: unit.full(part) for name, part in unit.outer.items()}
    if unit.outer_optimizer is not None:
        state["outer_optimizer"] = unit.outer_optimizer.state_dict()
    return map_tensors(with_memory_of_its_own, state)


# loading


def restore(strategy: LocalStepsStrategy, checkpoint: Mapping[str, Any]) -> None:
    """Bring a strategy, its optimizers and the module's local values to a checkpoint's state.

    Args:
        strategy: set up, with the checkpoint's (averaged) weights and rank 0's optimizer states.
        checkpoint: the checkpoint.
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
    if len(state["units"]) == len(strategy.units):
        for unit, saved in zip(strategy.units, state["units"], strict=True):
            _take_parameters(strategy, unit, saved["names"])
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
        restore_ranks(strategy, state, checkpoint)


def _take_parameters(strategy: LocalStepsStrategy, unit: SyncUnit, names: Sequence[str]) -> None:
    """Let a unit hold the parameters of the checkpoint, if its optimizer has them by now.

    Callbacks that unfreeze parameters add them again when a run is resumed, after set-up.
    """
    module = strategy.lightning_module
    if module is None or list(names) == unit.names:
        return
    known = {
        **dict(module.named_parameters()),
        **dict(zip(unit.names, unit.parameters, strict=True)),
    }
    held = {id(p) for group in unit.optimizer.param_groups for p in group["params"]}
    found = [known.get(name) for name in names]
    if all(p is not None and id(p) in held for p in found):
        unit.replace_parameters(names, [p for p in found if p is not None])
        strategy.follow_parameters(unit)


def _warn_about_changes(strategy: LocalStepsStrategy, state: Mapping[str, Any]) -> None:
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
    outer = saved["outer_optimizer"]
    if unit.outer_optimizer is not None and outer is not None:
        if len(outer["param_groups"][0]["params"]) == len(unit.names):
            unit.outer_optimizer.load_state_dict(outer)
        else:
            rank_zero_warn("The outer optimizer begins anew: parameters were being added to it.")
    unit.fresh = [slice(*bounds) for bounds in saved.get("fresh", ())]
    unit.round.load_state_dict(saved["round"])
    unit.fingerprints = dict(saved["fingerprints"])
    unit.at_start = {k: v.to(unit.device) for k, v in saved.get("at_start", {}).items()}
