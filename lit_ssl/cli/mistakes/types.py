"""What the type of an option allows: classes with options of their own, lists of them, values."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from lit_ssl.errors import InputError, did_you_mean

__all__ = ["Kind", "accepts", "choices", "class_called", "in_words", "item_type", "kinds"]

_PLAIN = (str, bytes, int, float, complex, dict, list, tuple, set, Enum, os.PathLike, type(None))


@dataclass
class Kind:
    """A class that a value may be an object of.

    Attributes:
        base: the class or its base.
        handed: so many of its first arguments come from the caller, as the parameters of an
            optimiser do.
    """

    base: type
    handed: int = 0


def kinds(hint: Any) -> Iterator[Kind]:
    """The classes with options that a type allows."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for arg in args:
            yield from kinds(arg)
    elif origin is Annotated:
        yield from kinds(args[0])
    elif origin is Callable and args:
        handed = len(args[0]) if isinstance(args[0], list) else 0
        yield from (Kind(kind.base, handed) for kind in kinds(args[1]))
    elif inspect.isclass(hint) and origin is None and not issubclass(hint, _PLAIN):
        yield Kind(hint)


def item_type(hint: Any) -> Any:
    """The type of the items, where a type allows a list; else None."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [item for item in map(item_type, args) if item is not None]
        return Union[tuple(found)] if found else None  # noqa: UP007 -- of any number
    is_list = inspect.isclass(origin) and issubclass(list, origin)
    return args[0] if args and (is_list or origin in (tuple, set)) else None


def accepts(hint: Any, value: Any) -> bool:
    """Whether jsonargparse takes a value for a type; yes, if it cannot tell."""
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
    """The types and values that an option may have, e.g. ``int`` and ``null``; null comes last."""
    names = sorted(_names(hint), key=lambda name: name == "null")
    return list(dict.fromkeys(names))


def choices(hint: Any) -> list[str]:
    """The words that an option may be."""
    if get_origin(hint) is Literal:
        return [arg for arg in get_args(hint) if isinstance(arg, str)]
    return [word for arg in get_args(hint) for word in choices(arg)]


def _names(hint: Any) -> Iterator[str]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for arg in args:
            yield from _names(arg)
    elif origin is Literal:
        yield from ("null" if arg is None else repr(arg) for arg in args)
    elif hint in (None, type(None)):
        yield "null"
    elif inspect.isclass(hint) and origin is None:
        yield hint.__name__
    else:
        yield str(hint).replace("typing.", "").replace("collections.abc.", "")


def class_called(name: str, bases: Sequence[type]) -> type | None:
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
        found = _by_path(name)
        if not inspect.isclass(found):
            return None
        if not _is_below(found, bases):
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


def _by_path(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if not f"{path}.".startswith(f"{missing}."):
            text = f"{path} cannot be imported: no module named {missing!r}."
            raise InputError(text) from error
        raise InputError(f"no module named {missing!r}.{_near_module(missing)}") from error
    if not hasattr(home, name):
        classes = [n for n, _ in inspect.getmembers(home, inspect.isclass)]
        raise InputError(f"{module} has no class {name!r}.{did_you_mean(name, classes)}")
    return getattr(home, name)


def _near_module(missing: str) -> str:
    parent, _, child = missing.rpartition(".")
    if parent:
        folders = getattr(sys.modules.get(parent), "__path__", [])
        return did_you_mean(child, [module.name for module in pkgutil.iter_modules(folders)])
    here = [module.name for module in pkgutil.iter_modules([os.getcwd()])]
    loaded = [name for name in sys.modules if "." not in name and not name.startswith("_")]
    return did_you_mean(missing, [*here, *loaded], list_up_to=0)


def _is_below(found: type, bases: Sequence[type]) -> bool:
    try:
        return issubclass(found, tuple(bases))
    except TypeError:  # a protocol, which says nothing about its classes
        return True


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(base)
    for child in children:
        yield child
        yield from _subclasses(child)
