"""What a checkpoint of a cascade holds, read without trusting it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.errors import InputError
from lit_ssl.methods.video.classes import stored_names
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.level import LevelSpec

__all__ = [
    "KEY",
    "LOWER",
    "NAMES",
    "StoredCascade",
    "filled_cascade",
    "load_cascade",
    "load_generators",
    "sha256_of",
    "stored_specs",
]

KEY = "lit_ssl.cascade"  # key in checkpoints
NAMES = "class_names"  # and in what stands there
LOWER = "lower."  # how names of the levels below begin in the state dict
_SAMPLED = "generator_ema."  # and those of the own level's averaged generator


def sha256_of(path: str | Path) -> str:
    """Hash of a file, by which it is known again when it has moved.

    Args:
        path: of the file.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stored_specs(checkpoint: Mapping[str, Any], source: str) -> list[LevelSpec]:
    """Descriptions of all levels in a checkpoint, the trained one last.

    Args:
        checkpoint: what was read.
        source: what messages call it.

    Raises:
        InputError: if it is of no cascade.
    """
    stored = checkpoint.get(KEY)
    if not isinstance(stored, Mapping) or not isinstance(stored.get("levels"), list):
        raise InputError(f"{source} is no checkpoint of CascadedVideoGAN")
    if not stored["levels"]:
        raise InputError(f"{source} describes no level of a cascade")
    return [LevelSpec.from_dict(plain, source) for plain in stored["levels"]]


class StoredCascade(NamedTuple):
    """What a checkpoint of any level holds for sampling.

    Attributes:
        generators: of all levels: averaged weights, frozen and in eval mode.
        class_names: in the order of the labels; () where they are not known.
        class_counts: float64 ``[num_classes]``, of the training videos.
    """

    generators: GeneratorCascade
    class_names: tuple[str, ...]
    class_counts: Tensor


def load_cascade(path: str | Path) -> StoredCascade:
    """Read a checkpoint of any level, to sample from it or to go on from it.

    Nothing in the file chooses code to run: it holds numbers, which describe the networks, and
    names of classes.

    Args:
        path: checkpoint of ``CascadedVideoGAN``; it has the levels below inside.

    Raises:
        InputError: if it is no such checkpoint, or is damaged.
    """
    source = str(path)
    checkpoint = read_checkpoint(path)
    specs, state = stored_specs(checkpoint, source), checkpoint["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"the state_dict of {source} holds other things than weights")
    generators = filled_cascade(specs, cascade_weights(state, len(specs)), source)
    num_classes = specs[-1].num_classes
    names = stored_names(checkpoint[KEY].get(NAMES), num_classes, source)
    counts = state.get("class_counts", torch.empty(0)).double()
    has_all = counts.shape == (num_classes,) and bool((counts >= 0).all())
    if not has_all or not 0 < counts.sum() < torch.inf:
        raise InputError(f"{source} does not say how often its classes come: it is damaged")
    return StoredCascade(generators, names, counts.clone())


def load_generators(path: str | Path) -> GeneratorCascade:
    """Read the generators of a checkpoint of any level: averaged weights, ready to sample.

    Args:
        path: checkpoint of ``CascadedVideoGAN``; it has the levels below inside.

    Returns:
        The cascade, frozen and in eval mode.

    Raises:
        InputError: if it is no such checkpoint, or is damaged.
    """
    return load_cascade(path).generators


def filled_cascade(
    specs: Sequence[LevelSpec], weights: Mapping[str, Tensor], source: str
) -> GeneratorCascade:
    """A cascade with given weights, frozen and in eval mode.

    No memory is taken for what a file only describes, and no weights are drawn.

    Args:
        specs: of its levels.
        weights: all of them; they are copied.
        source: what both were read from, for the message.

    Raises:
        InputError: if weights are missing, of other sizes or no finite numbers.
    """
    try:
        with torch.device("meta"):
            cascade = GeneratorCascade(specs)
    except RuntimeError as error:
        raise InputError(f"{source} describes levels too large to be made") from error
    own = cascade.state_dict()
    if weights.keys() != own.keys() or any(weights[k].shape != own[k].shape for k in own):
        raise InputError(f"{source} lacks weights of the levels that it describes: it is damaged")
    if wrong := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise InputError(
            f"{source} holds weights that are no finite numbers ({wrong[0]}): its training has"
            " diverged; take an earlier checkpoint"
        )
    copies = {name: value.to(own[name].dtype, copy=True) for name, value in weights.items()}
    cascade.load_state_dict(copies, assign=True)
    return cascade.requires_grad_(False).eval()


def cascade_weights(state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Weights of a ``GeneratorCascade`` of so many levels, out of those of the method.

    Args:
        state: weights of a ``CascadedVideoGAN`` by name.
        count: of levels; the trained one is the last.
    """
    weights = {k[len(LOWER) :]: v for k, v in state.items() if k.startswith(LOWER)}
    top = f"levels.{count - 1}."
    sampled = {k[len(_SAMPLED) :]: v for k, v in state.items() if k.startswith(_SAMPLED)}
    return {**weights, **{top + name: value for name, value in sampled.items()}}
