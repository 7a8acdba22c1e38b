"""Shards as open files: on disk, behind URLs, and from commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlparse

from lit_ssl.datamodules.vision_language.shards.shard_names import PIPE, is_remote
from lit_ssl.datamodules.vision_language.shards.tar_members import (
    CorruptShardError,
    LeftOut,
    TarPair,
    read_pairs,
)
from lit_ssl.errors import InputError, InputImportError

__all__ = ["check_shards_open", "shard_pairs"]

_CURL = {6: "no such host", 7: "no connection", 18: "cut off", 22: "an HTTP error, such as 404"}
_PATIENCE = 5.0  # seconds that a command has to say how it ended, once its output has ended


def check_shards_open(shards: Sequence[str], allow_pipe: bool) -> None:
    """Check that there is a way to open each of some shards; none is opened.

    Args:
        shards: Paths, URLs and commands.
        allow_pipe: Whether commands are allowed.

    Raises:
        InputError: A command is not allowed, or nothing opens this kind of URL.
        ImportError: A package for it is not installed.
    """
    remote = [shard for shard in shards if is_remote(shard)]
    for shard in remote:
        if shard.startswith(PIPE) and not allow_pipe:
            raise InputError(
                f"shards: {shard!r} runs a command of the shell in each worker: set allow_pipe:"
                " true if you wrote it yourself, or know who did"
            )
    for scheme in {_scheme(shard) for shard in remote}:
        if scheme not in _openers():
            _check_fsspec(scheme)
        elif scheme in ("http", "https") and shutil.which("curl") is None:
            raise InputError(f"shards: {scheme}:// is fetched by curl, which is not installed")


def shard_pairs(shard: str, caption: str, left_out: LeftOut) -> Iterator[TarPair]:
    """Read the pairs of a shard, in order; see ``read_pairs``.

    Args:
        shard: Path, URL or command.
        caption: Where captions are.
        left_out: Told (why, key) of each sample that is no pair.

    Raises:
        CorruptShardError: It cannot be opened, or is cut short; pairs before that have been given.
    """
    try:
        file = _open(shard)
    except OSError as error:
        raise CorruptShardError(
            f"{shard} cannot be opened ({error}). Make it available, or set on_corrupt: skip to go"
            " on without it"
        ) from error
    try:
        yield from read_pairs(file, shard, caption, left_out, with_images=True)
        _exit_status(file)  # let it end by itself
    except CorruptShardError as error:
        if status := _exit_status(file):
            meaning = f", {_CURL[status]}" if "curl" in str(file) and status in _CURL else ""
            raise CorruptShardError(
                f"{error} (what fetches it ended with status {status}{meaning})"
            ) from error
        raise
    finally:
        _close(file)


def _scheme(shard: str) -> str:
    return "pipe" if shard.startswith(PIPE) else urlparse(shard).scheme


def _openers() -> dict[str, Any]:
    """Openers of webdataset by scheme; others may be put there."""
    try:
        from webdataset.gopen import gopen_schemes
    except ImportError as error:
        raise InputImportError(
            "Shards behind URLs need the package webdataset: pip install 'lit-ssl[webdataset]'"
        ) from error
    return gopen_schemes


def _check_fsspec(scheme: str) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise InputImportError(f"shards: {scheme}:// needs a package more: {error}") from error
    except ValueError as error:
        raise InputError(
            f"shards: neither webdataset nor fsspec opens {scheme}://; http(s)://, s3://, gs://, a"
            " path, or pipe: with a command that writes the tar"
        ) from error


def _open(shard: str) -> Any:
    if not is_remote(shard):
        return open(shard, "rb")
    if _scheme(shard) in _openers():
        from webdataset.gopen import gopen

        return gopen(shard)
    import fsspec

    try:
        return fsspec.open(shard, "rb").open()
    except Exception as error:  # each file system has its own
        raise OSError(f"{type(error).__name__}: {error}") from error


def _exit_status(file: Any) -> int | None:
    """With what the command behind a file has ended; None where there is none."""
    process = getattr(file, "proc", None)
    if process is None:
        return None
    try:
        return process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        return None


def _close(file: Any) -> None:
    process = getattr(file, "proc", None)
    if process is not None:
        process.terminate()  # closing would wait for it, which may wait for the network
    with suppress(OSError):  # how it ended does not matter any more
        file.close()
