"""Modules of checkpoints: their class, and the whole module with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lit_ssl.checkpoints.loading import loading_data
from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.models.backbones.fetching import weights_follow

__all__ = ["find_class", "load_module"]


def find_class(class_path: str) -> type:
    """Import a class that a person has named; those of files are for ``Names.find``.

    Args:
        class_path: for example ``lit_ssl.methods.MSN``.

    Raises:
        InputError: if it cannot be imported.
    """
    module, _, name = class_path.rpartition(".")
    if not module:
        raise InputError(
            f"{class_path!r} is no class path; write it as package.module.{class_path}."
        )
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(f"class {class_path} cannot be imported: {error}.") from error
    except AttributeError as error:
        valid = [n for n, v in vars(import_module(module)).items() if isinstance(v, type)]
        raise InputError(f"{module} has no class {name!r}.{did_you_mean(name, valid)}") from error
    if not isinstance(found, type):
        raise InputError(f"{class_path} is no class.")
    return found


def load_module(path: str | Path, module_class: type, hparams: Mapping[str, Any]) -> Any:
    """Build the module of a checkpoint, with the weights of the checkpoint.

    Args:
        path: the checkpoint.
        module_class: class of the module, which a person has named or the file may name.
        hparams: hyper-parameters of the checkpoint.

    Raises:
        InputError: if it cannot be built from the checkpoint, or the file names other classes that
            it must not name.
    """
    load = getattr(module_class, "load_from_checkpoint", None)
    if load is None:
        raise InputError(f"{module_class.__name__} is no LightningModule.")
    kwargs = hparams.get("backbone_kwargs") or {}
    changed: dict[str, Any] = {}
    if isinstance(kwargs, Mapping) and kwargs.get("pretrained"):
        # for classes that build their network without us
        changed["backbone_kwargs"] = {**kwargs, "pretrained": False}
    try:
        # the weights are in the checkpoint; the class may be Lightning's alone, which checks less
        with weights_follow(), loading_data(module_class, path, None, {}):
            return load(path, map_location="cpu", weights_only=True, **changed)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{module_class.__name__} cannot be built from {path}: {reason}"
        ) from error
