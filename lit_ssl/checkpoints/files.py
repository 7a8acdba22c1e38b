"""Files of weights: read them without running anything in them."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch

from lit_ssl.checkpoints.extent import ExtentError, check_hparams
from lit_ssl.checkpoints.newest import refuse_damaged
from lit_ssl.errors import InputError, InputFileNotFoundError, did_you_mean
from lit_ssl.models.backbones.hub_files import fetch, is_hub_name

__all__ = [
    "described_network", "described_training", "located", "read_checkpoint", "read_file",
]  # fmt: skip

_SINGLE = {"weights": "file of weights", "checkpoint": "checkpoint"}
# in folders of timm and transformers, and in repositories of the hub
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
_IN_PIECES = tuple(f"{name}.index.json" for name in _IN_FOLDERS)


def located(path: str | Path) -> tuple[Path, str]:
    """Where a file of weights lies, fetched if it is of the hub, and what to call it.

    Args:
        path: file or folder, or ``hf-hub:USER/NAME[@REVISION]``.

    Returns:
        Its path, which may not exist, and its name for messages: of the hub with the commit.

    Raises:
        InputError: if it is of the hub and cannot be had.
    """
    if not is_hub_name(path):
        return Path(path), str(path)
    return fetch(str(path), _IN_FOLDERS)


def described_network(file: Path) -> tuple[str | None, Mapping[str, Any]]:
    """Name and arguments of the network that a file of ``lit-ssl export`` holds, or its folder.

    Args:
        file: any file or folder.

    Returns:
        None and nothing where the file does not say it.
    """
    about = _about(file)
    try:
        args = dict(json.loads(about.get("model_args", "{}")))
    except (ValueError, TypeError, RecursionError):
        return None, {}
    name = about.get("timm_model") or about.get("lit_ssl_model")
    return (None, {}) if name is None or ":" in name else (name, args)  # of no other place


def described_training(file: Path) -> tuple[str, Sequence[float], Sequence[float]]:
    """Method, mean and standard deviation that a file of ``lit-ssl export`` has, or its folder.

    Args:
        file: any file or folder.

    Returns:
        Nothing of what the file does not say.
    """
    about = _about(file)
    try:
        mean, std = (json.loads(about.get(name, "[]")) for name in ("mean", "std"))
        values = [float(value) for value in [*mean, *std]]
    except (ValueError, TypeError, RecursionError, OverflowError):
        return about.get("method", ""), (), ()
    half = len(mean)
    are_sound = len(std) == half and all(map(math.isfinite, values))
    are_sound = are_sound and min(values[half:], default=0.0) > 0
    method = about.get("method", "")
    return (method, values[:half], values[half:]) if are_sound else (method, (), ())


def _about(file: Path) -> dict[str, str]:
    """The metadata of a file of safetensors, or of that in a folder; nothing of other files."""
    from safetensors import SafetensorError, safe_open

    file = file / _IN_FOLDERS[0] if file.is_dir() else file
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        with safe_open(file, "pt") as content:
            return content.metadata() or {}
    except (SafetensorError, ValueError):
        return {}


def read_file(
    path: str | Path,
    kind: Literal["weights", "checkpoint"] = "weights",
    plain_only: bool = False,
) -> dict[str, Any]:
    """Read a file without executing anything in it; its tensors stay on the disk until used.

    Args:
        path: ``.safetensors``, any file of ``torch.save``, a folder of timm or transformers, or
            the name of a repository of the hub, ``hf-hub:USER/NAME[@REVISION]``.
        kind: what the file should be, for the message.
        plain_only: refuse objects of foreign classes in it, which else are left out.

    Raises:
        InputFileNotFoundError: if there is no such file.
        InputError: if it cannot be read, is damaged, or is of the hub and cannot be had.
    """
    path = file = located(path)[0]
    if path.is_dir():
        file = next((path / n for n in _IN_FOLDERS if (path / n).is_file()), path)
    if file.is_dir():
        if pieces := [name for name in _IN_PIECES if (path / name).is_file()]:
            raise InputError(
                f"{path} holds its weights in several files ({pieces[0]}), which are not read "
                "here: load it with its own library, and save it in one"
            )
        raise InputFileNotFoundError(f"{path} is a folder: give a {_SINGLE[kind]} in it")
    if not file.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob(f"*{path.suffix}")])
        at = " at" if kind == "weights" else ""
        raise InputFileNotFoundError(f"no {kind}{at} {path}.{near}")
    refuse_damaged(file, _SINGLE[kind])
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        # files of old versions of PyTorch are no archives, and cannot be mapped
        content = _load(file, others=not plain_only)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, no names")
        check_hparams(content, path)
        return content
    except ExtentError:
        raise
    except Exception as error:  # each reader has its own kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read as a {_SINGLE[kind]}: {reason}") from error


class _Unread:
    """Stands for an object of a foreign class in a file of weights: nothing of it is built."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _unread_mapping(*args: Any) -> dict[str, Any]:
    """Stands for ``defaultdict``, the one foreign class that torch lets nobody fill."""
    return {}


def _load(file: Path, others: bool) -> Any:
    """Read a file of ``torch.save``; with ``others``, also beside objects of foreign classes.

    DINO keeps an ``argparse.Namespace`` there, solo-learn a configuration of omegaconf.

    Raises:
        InputError: if there are objects that cannot be left out.
    """
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    options["mmap"] = zipfile.is_zipfile(file)
    try:
        return torch.load(file, **options)
    except UnpicklingError as error:
        if not others or not options["mmap"]:
            raise InputError(_why_unread(error)) from error
    unread: list[Any] = [
        (_unread_mapping if name == "collections.defaultdict" else _Unread, name)
        for name in torch.serialization.get_unsafe_globals_in_checkpoint(file)
    ]
    try:
        with torch.serialization.safe_globals(unread):
            return torch.load(file, **options)
    except UnpicklingError as error:
        raise InputError(_why_unread(error)) from error


def _why_unread(error: UnpicklingError) -> str:
    # torch's message tells in many lines how to run what is in the file
    if not any(words in str(error) for words in ("global", "GLOBAL", "Can only", "Trying to call")):
        return "it was not written by torch.save"
    return (
        "it holds objects of classes beside the weights, and nothing in a file is run; if you "
        "trust it, read it in Python with torch.load(FILE, weights_only=False), and write its "
        "state dict to another file with torch.save"
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint without executing anything in it; weights stay on the disk.

    Args:
        path: the file, ``.ckpt``.

    Raises:
        InputError: if the file is missing, or no Lightning checkpoint.
    """
    checkpoint = read_file(path, "checkpoint", plain_only=True)
    if "state_dict" not in checkpoint:
        raise InputError(f"{path} is no Lightning checkpoint: it has no state_dict.")
    return checkpoint
