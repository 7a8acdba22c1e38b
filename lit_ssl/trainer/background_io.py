"""Checkpoints that are written while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO, CheckpointIO
from torch import Tensor

from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO

__all__ = ["BackgroundCheckpointIO", "copy_of", "finish_writing", "written_at_once"]


class BackgroundCheckpointIO(WholeCheckpointIO):
    """Copies a checkpoint to the memory of the host, and writes it in a thread.

    A file is that of ``WholeCheckpointIO`` and holds the state at the call, whatever changes
    afterwards. At most one file is being written: the next call waits for it, so that there is one
    copy at a time. What is to be removed meanwhile is removed once that file is whole, and stays
    where it could not be written. An error of the thread is raised by the next call of any method,
    and by ``check``.

    [`BackgroundCheckpoints`][lit_ssl.callbacks.BackgroundCheckpoints] puts it into a run, and says
    when there is something to wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_background = True
        self._executor: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Copy a checkpoint and begin to write it; with ``in_background`` False, write it.

        Args:
            checkpoint: what the Trainer keeps.
            path: the file to write, or replace.
            storage_options: not used, as by Lightning.

        Raises:
            OutputError: it, or the one before, cannot be written.
        """
        self.wait()
        if not self.in_background:
            self.save_now(checkpoint, path, storage_options)
            return
        content = copy_of(checkpoint)
        self._begin(lambda: self.save_now(content, path, storage_options))

    def save_now(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; it is on the disk when this returns.

        Args:
            checkpoint: what to write.
            path: the file.
            storage_options: not used, as by Lightning.
        """
        super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint, which may be the one that is being written."""
        self.wait()
        return super().load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, when the one that is being written is whole."""
        self.when_whole(partial(super().remove_checkpoint, path))

    def when_whole(self, action: Callable[[], None]) -> None:
        """Do something when what is being written is whole, and not at all if that fails.

        Args:
            action: is called at once where nothing is being written, else by the thread.

        Raises:
            OutputError: what was written before could not be.
        """
        self.check()
        if not self._jobs:
            action()
            return
        before = list(self._jobs)

        def act() -> None:
            if all(job.exception() is None for job in before):
                action()

        self._begin(act)

    def check(self) -> None:
        """Raise the error of a write that has failed; waits for nothing."""
        failed = [job for job in self._jobs if job.done() and job.exception() is not None]
        self._jobs = [job for job in self._jobs if not job.done()]
        if failed:
            failed[0].result()

    def wait(self) -> None:
        """Wait until all is on the disk.

        Raises:
            OutputError: something could not be written.
        """
        for job in self._jobs:
            job.exception()
        self.check()

    def teardown(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None

    def _begin(self, action: Callable[[], None]) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._jobs.append(self._executor.submit(action))


def finish_writing(io: CheckpointIO) -> None:
    """Wait until all that a run saves in the background is on the disk.

    Args:
        io: of the run's strategy; one that writes at once has nothing to wait for.
    """
    if isinstance(io, BackgroundCheckpointIO):
        io.wait()
    elif isinstance(io, AsyncCheckpointIO):
        io.teardown()  # it begins a new thread for the next file


@contextmanager
def written_at_once(io: CheckpointIO) -> Iterator[None]:
    """Let nothing be written in the background meanwhile, whatever writes the checkpoints.

    Args:
        io: of the run's strategy.
    """
    if not isinstance(io, BackgroundCheckpointIO):
        yield
        return
    before, io.in_background = io.in_background, False
    try:
        yield
    finally:
        io.in_background = before


def copy_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A copy of a checkpoint of which nothing changes any more, on the host.

    Tensors that share memory do so in the copy, so that files are the same.

    Args:
        checkpoint: as Lightning makes it, with tensors on any device.
    """
    memo: dict[int, Any] = {}
    _copy_tensors(checkpoint, memo, {})
    return deepcopy(checkpoint, memo)


def _copy_tensors(value: Any, memo: dict[int, Any], storages: dict[tuple[int, int], Any]) -> None:
    """Note copies of all tensors for ``deepcopy``, which would leave them on their device."""
    if type(value) is Tensor and (value.is_conj() or value.is_neg() or value.is_quantized):
        memo[id(value)] = value.detach().to("cpu", copy=True).requires_grad_(value.requires_grad)
    elif type(value) is Tensor and value.layout == torch.strided and not value.is_meta:
        storage = value.untyped_storage()
        place = storage.data_ptr(), storage.nbytes()
        if place not in storages:
            storages[place] = torch.UntypedStorage(storage.nbytes())
            storages[place].copy_(storage)
        copied = torch.empty(0, dtype=value.dtype)
        copied.set_(storages[place], value.storage_offset(), value.shape, value.stride())
        memo[id(value)] = copied.requires_grad_(value.requires_grad)
    elif isinstance(value, dict):
        for item in value.values():
            _copy_tensors(item, memo, storages)
    elif isinstance(value, list | tuple):
        for item in value:
            _copy_tensors(item, memo, storages)
