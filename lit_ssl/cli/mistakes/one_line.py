"""Tell mistakes of a person, which one line explains, from bugs, which need their traceback."""

from __future__ import annotations

import errno
import os
import re
import traceback
from argparse import ArgumentParser
from typing import NoReturn

from lit_ssl.errors import InputError, shortened

__all__ = ["LineParser", "debugging", "disk_line", "one_line", "raised_in"]

# Errors of these packages that speak of a batch size, a number of workers, a learning rate, a name.
_DELIBERATE: dict[str, type[Exception] | tuple[type[Exception], ...]] = {
    "lightning": (ValueError, ModuleNotFoundError),  # of a logger's package, say
    "timm": RuntimeError,
    "torch.optim": ValueError,
    "torch.utils.data": ValueError,
}
_OF_WANDB = ("AuthenticationError", "UsageError")  # which are none of Python's kinds
_FILES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LONGEST = 4000  # characters of a line, whatever a file holds
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # what a terminal obeys
_PROGRAM = ("lit_ssl.cli", "lit_ssl.__main__")


class LineParser(ArgumentParser):
    """Parser whose errors are an ``InputError``, with the usage in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise InputError(f"{message}; {' '.join(self.format_usage().split())}")


def debugging() -> bool:
    """Whether ``LIT_SSL_DEBUG`` asks for tracebacks."""
    return os.environ.get("LIT_SSL_DEBUG", "0") not in ("", "0")


def one_line(error: BaseException) -> str | None:
    """The message for an error that happened before training, if it is a person's to repair.

    These are: ``lit_ssl.errors.InputError``, at any time; before training also errors of
    values that Lightning, timm or torch's optimisers and loaders raise themselves, files that one
    of our modules could not open, what W&B says of its use, and Lightning's
    ``MisconfigurationException``.

    Args:
        error: the exception, with its traceback.

    Returns:
        The message in one line, or None: then the traceback should be shown.
    """
    message = shortened(" ".join(_without_worker(str(error)).split()), _LONGEST)
    message = _CONTROL.sub(lambda sign: f"\\x{ord(sign[0]):02x}", message)
    if isinstance(error, InputError):
        return message
    if (line := disk_line(error)) is not None:
        return line
    modules = _modules(error)
    module = modules[-1] if modules else ""
    foreign = any(
        isinstance(error, kind) and f"{module}.".startswith(f"{name}.")
        for name, kind in _DELIBERATE.items()
    )
    ours = [n for n in modules if n.startswith("lit_ssl.") and not n.startswith(_PROGRAM)]
    our_file = isinstance(error, _FILES) and ours
    # somebody is not logged in, say
    of_logger = module.startswith("wandb.") and type(error).__name__ in _OF_WANDB
    if foreign or our_file or of_logger or type(error).__name__ == "MisconfigurationException":
        return f"{message} (LIT_SSL_DEBUG=1 shows where)"
    return None


def disk_line(error: BaseException) -> str | None:
    """The message for a disk that is full or read-only, at any time; None for other errors.

    Args:
        error: any exception.
    """
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    where = f" at {shortened(error.filename)}" if error.filename else ""
    return (
        f"{error.strerror}{where}: make room, or set trainer.default_root_dir to a folder that can"
        " be written; checkpoints that are complete are kept, and --ckpt_path last goes on from"
        " the newest"
    )


def _without_worker(text: str) -> str:
    """The message itself, where a loader's worker has put its traceback around it."""
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.rstrip().splitlines()[-1].partition(": ")[2]
    return text


def raised_in(error: BaseException) -> str:
    """Name of the module whose code raised an exception; empty if it was never raised.

    Args:
        error: the exception, with its traceback.
    """
    return next(reversed(_modules(error)), "")


def _modules(error: BaseException) -> list[str]:
    """Modules that an exception passed through, outermost first."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return [str(frame.f_globals.get("__name__", "")) for frame in frames]
