"""What the type of an option allows: classes with options of their own, lists of them, values."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from importlib import import_module
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from lit_ssl.checkpoints.parsing import names_here
from lit_ssl.errors import InputError, did_you_mean

__all__ = [
    "accepts",
    "class_called",
    "in_words",
    "item_type",
    "kinds",
    "path_of_function",
    "takes_functions",
]

_UNIONS = (Union, types.UnionType)
_FUNCTIONS = "lit_ssl.text"  # maskers, rates, taggers
_PLAIN = (str, bytes, int, float, complex, dict, list, tuple, set, Enum, os.PathLike, type(None))


def kinds(hint: Any) -> dict[type, int]:
    """The classes with options that a type allows.

    Each comes with how many of its arguments the caller fills in, as it does an optimiser's first.

    Args:
        hint: the type of an option.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return {base: handed for arg in args for base, handed in kinds(arg).items()}
    if origin is Annotated:
        return kinds(args[0])
    if origin is Callable and args:
        return dict.fromkeys(kinds(args[1]), len(args[0]) if isinstance(args[0], list) else 0)
    is_class = inspect.isclass(hint) and hint not in (Any, object) and origin is None
    is_class = is_class and not issubclass(hint, _PLAIN)
    return {hint: 0} if is_class else {}


def item_type(hint: Any) -> Any:
    """The type of the items, where a type allows a list; else None.

    Args:
        hint: the type of an option.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        found = [item for item in map(item_type, args) if item is not None]
        return Union[tuple(found)] if found else None  # noqa: UP007 -- of any number
    is_list = inspect.isclass(origin) and issubclass(list, origin)
    return args[0] if args and (is_list or origin in (tuple, set)) else None


def accepts(hint: Any, value: Any) -> bool:
    """Whether jsonargparse takes a value for a type; yes, if it cannot tell.

    Args:
        hint: the type of an option.
        value: what was given for it, plain as in a config.
    """
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except Exception:
        return True
    try:
        parser.parse_object({"value": value})
    except Exception:
        return False
    return True


def in_words(hint: Any) -> list[str]:
    """The types and values that an option may have, e.g. ``int``, ``'auto'`` and ``null``.

    Args:
        hint: the type of an option.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return [name for arg in args for name in in_words(arg)]
    if origin is Literal:
        return ["null" if arg is None else repr(arg) for arg in args]
    if hint in (None, type(None)):
        return ["null"]
    if inspect.isclass(hint) and origin is None:
        return [hint.__name__]
    return [str(hint).replace("typing.", "").replace("collections.abc.", "")]


def takes_functions(hint: Any) -> bool:
    """Whether a type allows functions, or objects that are called like one.

    Args:
        hint: the type of an option.
    """
    allowed = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    return any(get_origin(kind) is Callable for kind in allowed) and not kinds(hint)


def path_of_function(hint: Any, value: Any) -> str:
    """What to write for the bare name of a function, or of a class that is called like one.

    jsonargparse finds classes by their short names, but functions by their paths only.

    Args:
        hint: the type of the option.
        value: what was given for it.

    Returns:
        A sentence that begins with a space; empty where there is nothing to say.
    """
    if not takes_functions(hint) or not isinstance(value, str) or not value.isidentifier():
        return ""
    home = import_module(_FUNCTIONS)
    if value in home.__all__:
        return f" Write it with its path: {_FUNCTIONS}.{value}"
    near = did_you_mean(value, list(home.__all__), list_up_to=0)
    return f"{near} Functions, and classes called like one, are written {_FUNCTIONS}.NAME."


def class_called(name: str, bases: Collection[type]) -> type | None:
    """The class that a config calls by its short name or by its path.

    Args:
        name: ``ToyModel`` or ``my_project.ToyModel``.
        bases: it must be one of these, or below one.

    Returns:
        The class; None if it is a function, whose options are not known here.

    Raises:
        InputError: if there is no such class, with the nearest name.
    """
    if "." in name:
        found = _by_path(name, "class" if object not in bases else "class or function")
        if not inspect.isclass(found):
            return None
        try:
            fits = issubclass(found, tuple(bases))
        except TypeError:  # a protocol tells nothing about its classes
            fits = True
        if not fits:
            raise InputError(f"{name} is no {' or '.join(base.__name__ for base in bases)}.")
        return found
    known = {c for base in bases for c in (base, *_subclasses(base))}
    same = {f"{c.__module__}.{c.__qualname__}": c for c in known if c.__name__ == name}
    if len(same) > 1:
        raise InputError(f"several classes are called {name}: write {' or '.join(sorted(same))}.")
    if not same:
        public = [c.__name__ for c in known.difference(bases) if not c.__name__.startswith("_")]
        hint = did_you_mean(name, public)
        hint = hint or " Classes of lit_ssl go by their name, your own are written module.Class."
        raise InputError(f"no class named {name!r}.{hint}")
    return next(iter(same.values()))


def _by_path(path: str, what: str) -> Any:
    if (of_file := names_here()) is not None:
        of_file.find(path, "model.OPTION")
    module, _, name = path.rpartition(".")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if not f"{path}.".startswith(f"{missing}."):
            text = f"{path} cannot be imported: no module named {missing!r}."
            raise InputError(text) from error
        raise InputError(f"no module named {missing!r}.{_near_module(missing)}") from error
    except Exception as error:
        text = f"{path} cannot be imported: {type(error).__name__}: {error}"
        raise InputError(text) from error
    if not hasattr(home, name):
        wanted = inspect.isclass if what == "class" else callable
        names = [n for n, _ in inspect.getmembers(home, wanted) if n[0] != "_"]
        raise InputError(f"{module} has no {what} {name!r}.{did_you_mean(name, names)}")
    return getattr(home, name)


def _near_module(missing: str) -> str:
    parent, _, child = missing.rpartition(".")
    if parent:
        folders = getattr(sys.modules.get(parent), "__path__", [])
        return did_you_mean(child, [module.name for module in pkgutil.iter_modules(folders)])
    here = [module.name for module in pkgutil.iter_modules([os.getcwd()])]
    loaded = [name for name in sys.modules if "." not in name and not name.startswith("_")]
    return did_you_mean(missing, [*here, *loaded], list_up_to=0)


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(base)
    for child in children:
        yield child
        yield from _subclasses(child)
