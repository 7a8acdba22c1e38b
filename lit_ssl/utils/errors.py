"""Tell mistakes of the user, which one line explains, from bugs, which need their traceback."""

from __future__ import annotations

import dis
import os
import traceback
from types import TracebackType

from lit_ssl.utils.suggest import UserError

__all__ = ["debugging", "one_line", "raised_in"]

# Errors that these packages raise on purpose to tell the user something.
_DELIBERATE: dict[str, tuple[type[Exception], ...]] = {
    "lit_ssl": (
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ),
    "lightning": (ValueError,),
    "timm": (RuntimeError,),
    # a batch size, a number of workers, a learning rate
    "torch.optim": (ValueError,),
    "torch.utils.data": (ValueError,),
}
_FILES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_PROGRAM = ("lit_ssl.cli", "lit_ssl.cli_objects", "lit_ssl.__main__", "__main__")


def debugging() -> bool:
    """Whether ``LIT_SSL_DEBUG`` asks for tracebacks."""
    return os.environ.get("LIT_SSL_DEBUG", "0") not in ("", "0")


def one_line(error: BaseException) -> str | None:
    """The message for an error that happened before training, if it is the user's to repair.

    These are: our own ``UserError``; errors that lit_ssl, Lightning, timm or torch's optimisers and
    loaders raise by a ``raise`` statement of theirs (so not those of a function they happen to
    call, which may be a bug); files that one of our modules could not open; and Lightning's
    ``MisconfigurationException``.

    Returns:
        The message in one line, or None: then the traceback should be shown.
    """
    message = " ".join(_without_worker(str(error)).split())
    if isinstance(error, UserError):
        return message
    module = raised_in(error)
    kinds = [k for name, k in _DELIBERATE.items() if f"{module}.".startswith(f"{name}.")]
    deliberate = any(isinstance(error, k) for k in kinds) and _raised(error.__traceback__)
    passed = [name for name in _modules(error) if name not in _PROGRAM]
    our_file = isinstance(error, _FILES) and any(name.startswith("lit_ssl.") for name in passed)
    if deliberate or our_file or type(error).__name__ == "MisconfigurationException":
        return f"{message} (LIT_SSL_DEBUG=1 shows where)"
    return None


def _without_worker(text: str) -> str:
    """The message itself, where a loader's worker has put its traceback around it."""
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.rstrip().splitlines()[-1].partition(": ")[2]
    return text


def raised_in(error: BaseException) -> str:
    """Name of the module whose code raised an exception; empty if it was never raised."""
    return next(reversed(_modules(error)), "")


def _modules(error: BaseException) -> list[str]:
    """Modules that an exception passed through, outermost first."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return [str(frame.f_globals.get("__name__", "")) for frame in frames]


def _raised(tb: TracebackType | None) -> bool:
    """Whether the innermost frame stopped at a ``raise`` statement."""
    if tb is None:
        return False
    while tb.tb_next is not None:
        tb = tb.tb_next
    return dis.opname[tb.tb_frame.f_code.co_code[tb.tb_lasti]] == "RAISE_VARARGS"
