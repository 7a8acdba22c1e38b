"""jsonargparse, while it builds what a file describes: it resolves no name that is not allowed.

Class paths are in the hyper-parameters of a checkpoint by themselves, and there they can be
checked. But jsonargparse also takes a plain string for the path of a class or a function, where the
type of an argument allows one, and the name of a YAML file for what is in it. All these ways end in
one function of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from lit_ssl.checkpoints.classes import Names
from lit_ssl.errors import InputImportError

__all__ = ["names_here", "only_names"]

_names: ContextVar[Names | None] = ContextVar("names", default=None)
_RESOLVER = "import_object"


def names_here() -> Names | None:
    """What the file may name that is being read at the moment; None: no file is."""
    return _names.get()


@contextmanager
def only_names(names: Names) -> Iterator[None]:
    """Let jsonargparse resolve only names that a file may have in it.

    Args:
        names: which these are; those that a person has named count inside for other files, too.
    """
    _watch()
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def _watch() -> None:
    """Put a check in front of jsonargparse's function, once, wherever it has been imported to."""
    import jsonargparse  # noqa: F401 - loads the modules below

    homes = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "jsonargparse" and _RESOLVER in vars(module)
    ]
    if not homes:  # a version that works otherwise
        raise InputImportError(
            "checkpoints cannot be read safely with this version of jsonargparse: install one that "
            "lit-ssl's requirements name"
        )
    for module in homes:
        resolve = getattr(module, _RESOLVER)
        if not hasattr(resolve, "__wrapped__"):
            setattr(module, _RESOLVER, _checked(resolve))


def _checked(resolve: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(resolve)
    def checked(name: Any, *args: Any, **kwargs: Any) -> Any:
        names = _names.get()
        # without check_path the name is one that jsonargparse has made, of an object in code
        if names is not None and kwargs.get("check_path") is not False:
            names.find(name, "model.OPTION")
        return resolve(name, *args, **kwargs)

    return checked
