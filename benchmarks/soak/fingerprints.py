"""What a run ends with, as a number that two runs share only if they agree in every bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["End", "end_of", "is_finite", "read", "steps_on_disk"]

_COMPARED = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")


class End(NamedTuple):
    """The last checkpoint of a folder of runs: its optimiser steps and what it holds."""

    steps: int
    digest: str


def read(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; None if it cannot be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # each kind of damage has its own
        return None
    return content if isinstance(content, dict) and "global_step" in content else None


def end_of(folder: Path) -> End | None:
    """Weights, optimizers and schedules in the checkpoint that has most steps, or was written last.

    Args:
        folder: of one run and its continuations.
    """
    found = []
    for path in folder.rglob("*.ckpt"):
        content = read(path)
        if content is not None:
            found.append((content["global_step"], path.stat().st_mtime_ns, path, content))
    if not found:
        return None
    steps, _, _, content = max(found, key=lambda entry: entry[:2])
    digest = hashlib.sha256()
    for name in _COMPARED:
        for part in _parts(content.get(name), name):
            digest.update(part)
    return End(steps, digest.hexdigest())


def _parts(value: Any, name: str) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _parts(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _parts(item, f"{name}/{number}")
    elif isinstance(value, torch.Tensor):
        yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield f"{name} {value!r}".encode()


def is_finite(content: Mapping[str, Any]) -> bool:
    """Whether all weights of a checkpoint are numbers."""
    tensors = (v for v in content["state_dict"].values() if isinstance(v, torch.Tensor))
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def steps_on_disk(folder: Path) -> list[int]:
    """Steps of the checkpoints that can be read, newest last."""
    contents = (read(path) for path in folder.rglob("*.ckpt"))
    return sorted(content["global_step"] for content in contents if content is not None)
