"""The files of an earlier run that a ``ModelCheckpoint`` goes on with, wherever they lie now."""

from __future__ import annotations

import os
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["know_files"]


def know_files(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let the callbacks that save go on with the best files that a checkpoint tells of.

    Lightning forgets all but one of them where a run has another folder than the one that wrote the
    checkpoint: a resumed run, whose logger gives it a new one, and a run whose folder was moved.
    Its best file then is the best since the resume. Here files are found in the folder of now, else
    where they were; those that are nowhere, or are no checkpoints, are left out. Files in other
    folders than that of the run are never deleted, nor written over, whatever a checkpoint calls
    them: Lightning itself would follow ``..`` and other protocols. Rank zero looks for all
    processes.

    Args:
        trainer: The running trainer, before the states of its callbacks are loaded.
        checkpoint: The checkpoint; the states in it are changed in place.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and state:
            found = _found(callback, state) if trainer.is_global_zero else None
            state.update(trainer.strategy.broadcast(found))


def _found(callback: ModelCheckpoint, state: dict[str, Any]) -> dict[str, Any]:
    """What is to be changed in the state of a callback."""
    there, here = str(state.get("dirpath") or ""), str(callback.dirpath)
    ending = callback.FILE_EXTENSION

    def now(path: str) -> str:
        """Where a file lies now; empty if nowhere."""
        if "://" in path + here:  # only what is in the run's own folder is known to be its own
            is_own = path.startswith(f"{here.rstrip('/')}/") and ".." not in path.split("/")
            return path if is_own and path.endswith(ending) else ""
        is_below = bool(there) and path.startswith(there + os.sep)
        moved = os.path.join(here, os.path.relpath(path, there)) if is_below else path
        places = (os.path.normpath(p) for p in (moved, path) if path.endswith(ending))
        return next((p for p in places if os.path.exists(p)), "")

    last = now(state.get("last_model_path", ""))
    is_own = "://" in here or os.path.dirname(os.path.abspath(last)) == os.path.abspath(here)
    models = {now(path): score for path, score in state.get("best_k_models", {}).items()}
    models.pop("", None)
    found: dict[str, Any] = {
        "dirpath": callback.dirpath,
        "best_k_models": models,
        "last_model_path": last if last and is_own else "",
        "best_model_path": now(state.get("best_model_path", "")),
    }
    if models:
        best, worst = (min, max) if callback.mode == "min" else (max, min)
        found["best_model_path"] = best(models, key=lambda path: models[path])
        found["kth_best_model_path"] = worst(models, key=lambda path: models[path])
        found["best_model_score"] = models[found["best_model_path"]]
        found["kth_value"] = models[found["kth_best_model_path"]]
    else:
        found |= {"kth_best_model_path": "", "kth_value": callback.kth_value}
        if not found["best_model_path"]:
            found["best_model_score"] = None
    return found
