"""Weights of other libraries: not fetched where others follow, named where they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from os.path import isfile
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from lit_ssl.errors import InputError

__all__ = ["do_weights_follow", "fetching", "weights_follow", "without_weights"]

_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)
# What the clients of hubs raise that is no OSError.
_CLIENTS = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub")
_WEIGHTS = {"pretrained": False, "checkpoint_path": ""}


@contextmanager
def weights_follow(really: bool = True) -> Iterator[None]:
    """Build networks whose weights are all going to be replaced, by those of a file.

    Args:
        really: False changes nothing.
    """
    token = _follow.set(really or _follow.get())
    try:
        yield
    finally:
        _follow.reset(token)


def do_weights_follow() -> bool:
    """Whether the weights of networks that are built now are going to be replaced."""
    return _follow.get()


def without_weights(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of timm, without those that ask for weights where others follow.

    Args:
        kwargs: of ``timm.create_model``.

    Raises:
        InputError: if a file of weights that they name holds other objects, too, which some
            versions of timm would run.
    """
    if not do_weights_follow():
        described = [kwargs.get(key) for key in ("pretrained_cfg", "pretrained_cfg_overlay")]
        files = [part.get("file") for part in described if isinstance(part, Mapping)]
        for file in (kwargs.get("checkpoint_path"), *files):
            _check_plain(file)
        return dict(kwargs)
    return {key: _WEIGHTS.get(key, value) for key, value in kwargs.items()}


def _check_plain(file: object) -> None:
    if not isinstance(file, str) or file.endswith((".safetensors", ".npz")) or not isfile(file):
        return
    try:
        torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except UnpicklingError as error:
        raise InputError(
            f"{file} holds other objects beside the weights, and nothing in a file is run: if you "
            "trust it, write its state dict to another file with torch.save"
        ) from error


@contextmanager
def fetching(
    what: str, instead: str, *others: type[Exception], really: bool = True
) -> Iterator[None]:
    """Name model and option where weights cannot be had.

    Args:
        what: the model, and the option that asks for its weights.
        instead: what to do without a network.
        others: further errors that mean that the weights cannot be had.
        really: False lets all errors pass.

    Raises:
        InputError: for errors of files and of the network, and for weights that do not exist or do
            not fit.
    """
    try:
        yield
    except Exception as error:
        roots = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        meant = isinstance(error, (OSError, RuntimeError, *others)) or roots & set(_CLIENTS)
        if isinstance(error, InputError) or not really or not meant:
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} cannot be loaded: {type(error).__name__}: {reason[:300]}; for weights that "
            f"are downloaded, check the name and the network, or {instead}"
        ) from error
