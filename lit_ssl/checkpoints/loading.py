"""``load_from_checkpoint`` of modules and data modules: the file is data, whoever wrote it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_ssl.checkpoints.classes import Names, class_paths
from lit_ssl.checkpoints.extent import check_extent, check_hparams
from lit_ssl.checkpoints.files import read_file
from lit_ssl.checkpoints.parsing import names_here, only_names
from lit_ssl.errors import InputError

__all__ = ["loading_data"]

_OLD_KEYS = ("hparams", "module_arguments")  # Lightning 0.7 still counts them in


@contextmanager
def loading_data(
    kind: type, source: Any, hparams_file: Any, given: Mapping[str, Any]
) -> Iterator[None]:
    """Check what a file says about the object that Lightning is going to build from it.

    Inside, jsonargparse resolves only the names that ``Names`` allows.

    Args:
        kind: class whose ``load_from_checkpoint`` was called; it may be named, and so may
            LightningModules, networks and dataclasses of the files that it and its parents are in.
        source: path, URL or open file.
        hparams_file: ``.yaml`` or ``.csv`` in place of the hyper-parameters inside, if any.
        given: arguments in place of those of the file.

    Raises:
        InputError: if the file cannot be read without running what is in it, or names a class that
            it must not name.
    """
    content = _read(source)
    key: str = kind.CHECKPOINT_HYPER_PARAMS_KEY  # type: ignore[attr-defined]
    hparams: dict[str, Any] = {}
    for name in (*_OLD_KEYS, key):
        found = content.get(name)
        if found is not None and not isinstance(found, Mapping):
            raise InputError(f"{_shown(source)} is damaged: its {name} are no mapping")
        hparams.update(found or {})
    if hparams_file is not None:
        hparams |= _of_file(hparams_file)
    around = names_here()
    if around is not None:  # the call is not a person's, and so are the arguments
        given = {}
    named = {kind, *class_paths(given), *(() if around is None else around.named)}
    names = Names(
        _shown(source),
        named,
        "if you trust it, give {option} as an argument of load_from_checkpoint, or call it of the "
        "class that the file is of",
    )
    stored = {name: value for name, value in hparams.items() if name not in given}
    class_path = stored.get("_class_path")
    if class_path is not None:
        found = names.find(class_path)
        if not (isinstance(found, type) and issubclass(found, kind)):
            raise InputError(
                f"{_shown(source)} is of the class {class_path}, which is no {kind.__name__}: call "
                "load_from_checkpoint of that class"
            )
    names.check(stored)
    with only_names(names):
        yield


def _shown(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else "the checkpoint"


def _read(source: Any) -> dict[str, Any]:
    if isinstance(source, str | os.PathLike) and "://" not in str(source):
        return read_file(Path(source), "checkpoint", plain_only=True)
    try:
        content = _read_other(source)
    except Exception as error:  # each file system has its own kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{_shown(source)} cannot be read as a checkpoint without running what is in it: "
            f"{reason}"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{_shown(source)} is no checkpoint")
    check_hparams(content, _shown(source))
    return content


def _read_other(source: Any) -> Any:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    if not isinstance(source, str | os.PathLike):
        start = source.tell()
        try:
            return torch.load(source, **options)
        finally:
            source.seek(start)
    if str(source).startswith("http"):  # as Lightning: kept, so that it is fetched once
        return torch.hub.load_state_dict_from_url(str(source), **options)
    import fsspec

    with fsspec.open(str(source), "rb") as file:
        return torch.load(file, **options)


def _of_file(path: Any) -> dict[str, Any]:
    """Hyper-parameters of a file, which Lightning reads with a less strict reader of YAML."""
    import fsspec

    if str(path).lower().endswith(".csv"):
        from lightning.pytorch.core.saving import load_hparams_from_tags_csv

        return load_hparams_from_tags_csv(path)
    try:
        with fsspec.open(str(path), "r", encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as hyper-parameters: {reason}") from error
    check_extent(found, path)  # aliases may stand for any number of values
    return found if isinstance(found, dict) else {}
