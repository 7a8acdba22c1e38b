"""Configs over configs: keys stand once, a list replaces a list, and what is kept is said.

jsonargparse merges a list into an earlier one of the same length, item by item, so that a crop or a
callback would keep options that nobody sees. Emptying the earlier list first replaces it. So it is
with the choices of a ``subset``, of which there can be one only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_ssl.cli.recipes import config_name
from lit_ssl.datamodules.selection.subset import SUBSET_CHOICES
from lit_ssl.errors import InputError, listed
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = [
    "Entry",
    "kept_options",
    "origin_of",
    "plain_name",
    "read_entries",
    "with_empty_lists",
]

_CONFIG = ("config", "c")
_FILES = (".yaml", ".yml", ".json")
_SUBSET = "subset"
_NOTHING = object()


class Entry(NamedTuple):
    """One option of the command line, with what it says.

    Attributes:
        position: number of its first word.
        name: the option, without dashes, e.g. ``trainer.callbacks``.
        value: the text, or the loaded YAML where it is a config or in braces.
        file: the config that it names.
    """

    position: int
    name: str
    value: Any
    file: str | None

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Dotted names, without ``init_args``, and values; lists are values."""
        yield from _leaves(self.value, "" if self.name in _CONFIG else plain_name(self.name))


def read_entries(words: Sequence[str]) -> list[Entry]:
    """The options of a command line, in their order.

    Args:
        words: the words after ``lit-ssl``; the first may be the command.

    Raises:
        InputError: if a key stands twice in one mapping, of which YAML would take the last, or a
            config is one that nobody should build (see ``load_yaml``).
    """
    entries: list[Entry] = []
    place = 0 if words and words[0].startswith("-") else 1
    while place < len(words):
        start = place
        name, is_pair, value = words[place].partition("=")
        place += 1
        if not is_pair and place < len(words) and not words[place].startswith("--"):
            is_pair, value = "=", words[place]
            place += 1
        if is_pair and name.startswith("-"):
            key = name.lstrip("-")
            entries.append(Entry(start, key, *_load(value, key in _CONFIG)))
    return entries


def with_empty_lists(words: Sequence[str]) -> list[str]:
    """The words, with options in between that empty a list before a later one takes its place.

    So does a subset that makes a choice. ``callbacks+`` and ``--trainer.callbacks+=`` go on adding
    to the list that is there.

    Args:
        words: the words after ``lit-ssl``, with a file for each ``--config``.
    """
    result = list(words)
    inserted, has_lists = 0, False
    for entry in read_entries(words):
        name = entry.name.removeprefix("-")
        adds = name.endswith("+")
        emptied = _NOTHING if adds else _emptied(entry.value, name.rpartition(".")[2])
        if emptied is not _NOTHING and has_lists:
            text = f"--{name}={json.dumps(emptied)}".replace("--c=", "--config=")
            result.insert(entry.position + inserted, text)
            inserted += 1
        has_lists = has_lists or adds or emptied is not _NOTHING
    return result


def kept_options(entries: Sequence[Entry]) -> dict[str, tuple[str, str, list[str]]]:
    """What stays of an object of a recipe when a later entry names another class.

    Args:
        entries: see ``read_entries``.

    Returns:
        By the dotted name of the object: its new class, the class before, and the names of the
        options that were given to that one and not again. The new class may not take them all.
    """
    classes: dict[str, str] = {}
    given: dict[str, set[str]] = {}
    changed: dict[str, tuple[str, str, list[str]]] = {}
    for entry in entries:
        leaves = dict(entry.leaves())
        for name, value in leaves.items():
            path = name.removesuffix(".class_path")
            is_class = isinstance(value, str) and (path != name or path in classes)
            before, now = classes.get(path), str(value).rpartition(".")[2]
            if not is_class or before == now:
                continue
            classes[path] = now
            again = {key.removeprefix(f"{path}.") for key in leaves if key.startswith(f"{path}.")}
            if before is not None:
                kept = {key.partition(".")[0] for key in given.get(path, set())}
                kept -= {key.partition(".")[0] for key in again}
                changed[path] = (now, before, sorted(kept))
        for path in classes:
            inside = {k.removeprefix(f"{path}.") for k in leaves if k.startswith(f"{path}.")}
            given.setdefault(path, set()).update(inside - {"class_path"})
    return changed


def origin_of(entries: Sequence[Entry], message: str) -> str:
    """Which options that a message names, with their values, come from a config, in words.

    Args:
        entries: see ``read_entries``.
        message: of an error.

    Returns:
        A text such as `` (num_prototypes: 1 is set in recipe.yaml)``; empty where there is none.
    """
    last: dict[str, tuple[Any, str | None]] = {}
    for entry in entries:
        last |= {name: (value, entry.file) for name, value in entry.leaves()}
    found: dict[str, None] = {}
    for name, (value, file) in last.items():
        option = name.rpartition(".")[2]
        words = [repr(value)] if isinstance(value, str) else [option, str(value)]
        said = (
            re.search(rf"(?<!\w)(?<!\d\.){re.escape(word)}(?!\w|\.\d)", message) for word in words
        )
        if file is not None and all(said):
            found[f"{option}: {value} is set in {config_name(file)}"] = None
    return f" ({listed(list(found), 3)})" if found else ""


def plain_name(name: str) -> str:
    """A dotted name as one types it, without ``init_args``.

    Args:
        name: of an entry, perhaps with a ``+`` at its end.
    """
    return name.removesuffix("+").replace(".init_args", "")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            name = str(key).removesuffix("+")
            here = f"{path}.{name}" if path else name
            yield from _leaves(inner, path if name == "init_args" else here)
    else:
        yield path, value


def _emptied(value: Any, name: str) -> Any:
    """What is to be empty before a value takes its place: lists of objects, and a chosen subset.

    Args:
        value: of an option.
        name: of the option, without the objects around it.

    Returns:
        The empty lists and the null in place of the subset, with the classes on the way; or
        ``_NOTHING``.
    """
    if isinstance(value, list):
        objects = (isinstance(v, Mapping) or (isinstance(v, str) and _is_class(v)) for v in value)
        return [] if any(objects) else _NOTHING
    if not isinstance(value, Mapping):
        return _NOTHING
    if name == _SUBSET and _has_choice(value):
        return None
    found = {k: _emptied(v, str(k)) for k, v in value.items() if not str(k).endswith("+")}
    found = {key: inner for key, inner in found.items() if inner is not _NOTHING}
    if found and "class_path" in value:
        found = {"class_path": value["class_path"], **found}
    return found or _NOTHING


def _has_choice(subset: Mapping[str, Any]) -> bool:
    return any(subset.get(choice) is not None for choice in SUBSET_CHOICES)


def _is_class(name: str) -> bool:
    return name.rpartition(".")[2][:1].isupper()


def _load(value: str, is_config: bool) -> tuple[Any, str | None]:
    """What an option says, and its file; wrong YAML is left to the parser, which names it."""
    file = None
    if value[:1] not in ("{", "["):
        path = Path(value).expanduser()
        is_file = (value.endswith(_FILES) or is_config) and path.is_file()
        if not is_file:
            return (None if is_config else value), None
        file = str(path)
    try:
        text = Path(file).read_text(encoding="utf-8") if file else value
        loaded = load_yaml(text)
    except YAMLError as error:
        raise InputError(f"{config_name(file) if file else 'the config'}: {error}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None, file
    return _with_objects_of_files(loaded, Path(file).parent if file else Path()), file


def _with_objects_of_files(value: Any, folder: Path) -> Any:
    """A config with the objects, and lists, that it takes from files beside it in their place."""
    if isinstance(value, Mapping):
        return {key: _with_objects_of_files(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_objects_of_files(inner, folder) for inner in value]
    if isinstance(value, str) and value.endswith(_FILES):
        inner, file = _load(str(folder / Path(value).expanduser()), is_config=False)
        is_object = isinstance(inner, Mapping) and "class_path" in inner
        if file is not None and (is_object or isinstance(inner, list)):
            return inner
    return value
