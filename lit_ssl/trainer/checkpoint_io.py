"""How the Trainer writes and reads its checkpoints: whole, or with one line that says why not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy

from lit_ssl.checkpoints.newest import newest_checkpoint, refuse_damaged
from lit_ssl.checkpoints.whole import save_whole
from lit_ssl.errors import InputError, OutputError
from lit_ssl.parts import remove_leftovers
from lit_ssl.trainer.private import chosen_checkpoint_io

__all__ = ["WholeCheckpointIO", "write_whole"]


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints that are whole or not there, and reads none that is damaged.

    The files are those of Lightning, byte for byte, and load without this package. They are written
    beside their place, in one pass and without a copy in memory, reach the disk, and only then
    replace what was there: a kill, a crash of the machine or a full disk leaves the file before.
    Unfinished files of killed runs are removed from a folder when the first checkpoint is written.

    Files are verified by their checksums before they are read, see
    ``lit_ssl.checkpoints.whole.damage``. Paths with a protocol, such as ``s3://``, are written
    and read as Lightning does.

    ``lit-ssl`` and the strategies with local steps use it, unless another ``CheckpointIO`` is
    given; elsewhere: ``Trainer(plugins=[WholeCheckpointIO()])``.
    """

    def __init__(self) -> None:
        self._to_tidy: set[Path] = set()
        self._tidied: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: what the Trainer keeps.
            path: the file to write, or replace.
            storage_options: not used, as by Lightning.

        Raises:
            OutputError: it cannot be written; the message names the newest whole checkpoint.
        """
        place = _local(path)
        if place is None or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self._tidy(place.absolute().parent)
        try:
            save_whole(checkpoint, place)
        except OSError as error:
            raise OutputError(_why_unwritten(checkpoint, place, error)) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, if it is as it was written.

        Args:
            path: the file.
            map_location: as of ``torch.load``.
            weights_only: as of ``torch.load``.

        Raises:
            InputError: it is damaged; the message names the newest whole file before it.
        """
        place = _local(path)
        if place is not None:
            refuse_damaged(place)
            self._to_tidy.add(place.absolute().parent)
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except RuntimeError as error:
            # of a file whose values are whole, but not the table in which torch looks for them
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint; one that somebody else has removed meanwhile is gone as well."""
        with suppress(FileNotFoundError):
            super().remove_checkpoint(path)

    def _tidy(self, folder: Path) -> None:
        """Remove what killed runs left in a folder, and where the run was resumed from."""
        for place in {folder, *self._to_tidy} - self._tidied:
            remove_leftovers(place)
            self._tidied.add(place)


def write_whole(strategy: Strategy) -> None:
    """Let a strategy write its checkpoints whole, unless somebody chose how it does.

    One that saves in the background (``AsyncCheckpointIO``) writes through another, which is this
    one if none was given. Strategies with files of their own are left as they are.

    Args:
        strategy: of the run; it is changed.
    """
    chosen: Any = chosen_checkpoint_io(strategy)
    if chosen is None:
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = WholeCheckpointIO()
    elif getattr(chosen, "checkpoint_io", chosen) is None:
        chosen.checkpoint_io = WholeCheckpointIO()


def _local(path: str | Path) -> Path | None:
    """A path on this machine; None for one with a protocol."""
    text = os.fspath(path).removeprefix("file://")
    return None if "://" in text else Path(text).expanduser()


def _why_unwritten(checkpoint: dict[str, Any], path: Path, error: OSError) -> str:
    text = f"cannot write {path}: {error.strerror or error}"
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        text += f" ({_bytes_of(checkpoint) / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free)"
    last = newest_checkpoint([path.parent]).path
    kept = "no checkpoint was written before" if last is None else f"{last} is whole: go on from it"
    return f"{text}. {kept}"


def _bytes_of(content: Any) -> int:
    """Size of all tensors, those that share memory once."""
    storages: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for item in value.values():
                look(item)
        elif isinstance(value, list | tuple):
            for item in value:
                look(item)

    look(content)
    return sum(storages.values())
