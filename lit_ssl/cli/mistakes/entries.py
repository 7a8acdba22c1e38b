"""Find the wrong entry of a command line or a config, by the options of the classes it speaks of.

The parser has the last word on what is valid. When it has refused, its message is a tree of every
type that it tried; this search goes through the entries itself, in the order in which they count,
and stops at the first that no class takes. So a valid configuration is never in question here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from lit_ssl.cli.mistakes.types import (
    accepts,
    class_called,
    in_words,
    item_type,
    kinds,
    path_of_function,
    takes_functions,
)
from lit_ssl.cli.objects import class_parser
from lit_ssl.cli.recipes import config_name
from lit_ssl.errors import InputError, did_you_mean, listed
from lit_ssl.trainer.private import option_types, required_options
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = ["wrong_entry"]

_OF_AN_OBJECT = ("class_path", "init_args", "dict_kwargs")
_WITHOUT_VALUE = ("h", "help", "print_config")


def wrong_entry(
    options: Mapping[str, Any], entries: Sequence[str] | Mapping[str, Any], linked: Sequence[str]
) -> str | None:
    """Say in one line which entry is wrong, where it stands, and which valid name is nearest.

    Args:
        options: the types of the command's options, e.g. of ``trainer.max_epochs``.
        entries: what the parser refused: the words of the command line, or a loaded configuration.
        linked: options that get their value from another, and so may be left out.

    Returns:
        The line; None if every entry is known and has the right type.
    """
    search = _Search(options)
    try:
        if isinstance(entries, Mapping):
            search.options(entries, options)
        else:
            search.words(entries)
        search.required(linked)
    except InputError as found:
        return str(found)
    return None


@dataclass
class _Object:
    """What is known of an object that the entries describe."""

    class_type: type
    handed: int = 0
    given: set[str] = field(default_factory=set)


class _Search:
    """Goes through entries in their order, and knows the classes named so far."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.all_options = options
        self.typed = False
        self.file: str | None = None
        self.objects: dict[str, _Object] = {}  # by path, items of lists as callbacks[2]
        self.lengths: dict[str, int] = {}  # of the lists, by path

    def fail(self, text: str) -> NoReturn:
        raise InputError(text + (f" (in {config_name(self.file)})" if self.file else ""))

    def words(self, words: Sequence[str]) -> None:
        """The command line, after its first word."""
        rest = list(words)
        while rest:
            self.typed, self.file = True, None
            name, is_pair, value = rest.pop(0).partition("=")
            key = name.lstrip("-")
            if key == name:
                self.fail(f"unexpected {name!r}: options are written --name value.")
            if not is_pair and key not in _WITHOUT_VALUE and rest and not rest[0].startswith("--"):
                is_pair, value = "=", rest.pop(0)
            if key in ("c", "config"):
                self.config(value)
            elif key.endswith(".help"):
                self.help_of(key.removesuffix(".help"), is_pair)
            else:
                tree: Any = value if is_pair else None
                for part in reversed(key.split(".")):
                    tree = {part: tree}
                self.options(tree, self.all_options)

    def help_of(self, path: str, has_class: str) -> None:
        """Help of an object inside another, of a class that nobody has named."""
        owner, _, name = path.rpartition(".")
        known = self.objects.get(owner)
        hint = option_types(class_parser(known.class_type)).get(name) if known else None
        if takes_functions(hint):
            self.fail(
                f"--{path} may be a function, and has no help here: python -m pydoc MODULE.NAME"
            )
        if has_class or known is None or path in self.objects:
            return
        bases = list(kinds(hint))
        if bases and not is_dataclass(bases[0]):
            ours = bases[0].__module__.startswith("lit_ssl.")
            example = bases[0].__name__ if ours else "CLASS"
            self.fail(f"--{path}.help of which class? Write it behind, as --{path}.help {example}")

    def config(self, value: str) -> None:
        """A file, or a configuration that was typed as such."""
        if value == "-" or "://" in value:
            return
        is_file = Path(value).is_file()
        try:
            tree = load_yaml(Path(value).read_text(encoding="utf-8") if is_file else value)
        except (yaml.YAMLError, YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split()).replace(' in "<unicode string>",', " in")
            self.fail(f"{value if is_file else 'the config'} is no valid YAML: {reason}")
        self.typed, self.file = False, value if is_file else None
        if tree and isinstance(tree, dict) and all(part is None for part in tree.values()):
            what, self.file = value if is_file else "the config", None
            self.fail(
                f"{what} has nothing under {listed([str(key) for key in tree], 3)}: a config has "
                "entries such as trainer: {max_epochs: 1}"
            )
        if isinstance(tree, dict):
            self.options(tree, self.all_options)
        elif is_file:
            got = "is empty" if tree is None else f"holds {str(tree)[:40]!r}"
            self.file = None
            self.fail(f"{value} {got}: a config has entries such as trainer: {{max_epochs: 1}}")

    def options(
        self, tree: Mapping[str, Any], options: Mapping[str, Any], path: str = "", owner: str = ""
    ) -> None:
        """Entries of the command, or of an object.

        Args:
            tree: the entries.
            options: valid names, with their types.
            path: where they stand.
            owner: name of the object's class.
        """
        for key, value in tree.items():
            name = str(key).removesuffix("+")
            here = f"{path}.{name}" if path else name
            group = {k[len(name) + 1 :]: t for k, t in options.items() if k.startswith(f"{name}.")}
            if options.get(name) is not None:
                self.value(value, options[name], here, append=name != key)
            elif group and isinstance(value, Mapping):
                self.options(value, group, here, owner)
            elif name not in options and owner:
                place = self.shown(path)
                self.fail(f"{place}: {owner} has no option {name!r}.{did_you_mean(name, options)}")
            elif name not in options:
                self.no_option(here, value)

    def no_option(self, name: str, value: Any) -> NoReturn:
        """The command has no such option; a wrong first part is answered with first parts."""
        while isinstance(value, Mapping) and value:
            key, value = next(iter(value.items()))
            name = f"{name}.{key}"
        dashes = "--" if self.typed else ""
        top, known = name.partition(".")[0], self.all_options
        if top in {option.partition(".")[0] for option in known}:
            valid = [dashes + option for option in known if option.startswith(f"{top}.")]
            hint = did_you_mean(dashes + name, valid)
        else:
            hint = did_you_mean(dashes + top, [dashes + o.partition(".")[0] for o in known])
        self.fail(f"no option {dashes + name if dashes else repr(name)}.{hint}")

    def value(self, value: Any, hint: Any, path: str, append: bool = False) -> None:
        """The value of an option, of this type."""
        items = item_type(hint)
        valid = kinds(hint)
        of_objects = items is not None and bool(kinds(items))
        if self.typed and value is None:  # the word after it is missing
            return
        functions = takes_functions(hint)
        is_object = valid or of_objects or functions
        if self.typed and isinstance(value, str) and is_object and value[:1] in "{[":
            with suppress(yaml.YAMLError, YAMLError):
                value = load_yaml(value)
        if of_objects:
            if append or isinstance(value, list):
                self.items(value if isinstance(value, list) else [value], items, path, append)
                return
            if isinstance(value, Mapping) and path in self.lengths and path not in self.objects:
                self.last_of(path, value, items)
                return
        if valid and isinstance(value, Mapping | str):
            try:
                entry = {"class_path": value} if isinstance(value, str) else value
                self.object(entry, valid, path)
            except InputError:
                if not accepts(hint, value):  # the type may allow other strings and mappings too
                    raise
        elif functions and self.function(value, path):
            return
        elif not accepts(hint, value) and not (append and accepts(items, value)):
            self.wrong_type(value, hint, path)

    def function(self, value: Any, path: str) -> bool:
        """What stands for a function: its path, or an object; returns whether it is looked at."""
        entry = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(entry, Mapping):
            return False
        name = entry.get("class_path")
        if "." not in name if isinstance(name, str) else path not in self.objects:
            return False  # jsonargparse finds functions by their paths only
        self.object(entry, {object: 0}, path)
        return True

    def items(self, values: Sequence[Any], hint: Any, path: str, append: bool) -> None:
        """A list of objects, or more of them."""
        start = self.lengths.get(path, 0) if append else 0
        self.lengths[path] = start + len(values)
        if not append:  # a list replaces a list
            kept = {k: v for k, v in self.objects.items() if not k.startswith(f"{path}[")}
            self.objects = kept
        for index, value in enumerate(values, start):
            self.value(value, hint, f"{path}[{index}]")

    def last_of(self, path: str, value: Mapping[str, Any], hint: Any) -> None:
        """Options for the last object of a list, where another has them, perhaps."""
        count = self.lengths[path]
        last = self.objects.get(f"{path}[{count - 1}]")
        options = value.get("init_args", value)
        options = options if isinstance(options, Mapping) else {}
        for name in options if last is not None and "class_path" not in value else ():
            takers = [
                known.class_type.__name__
                for place, known in self.objects.items()
                if re.fullmatch(rf"{re.escape(path)}\[\d+\]", place)
                and str(name) in option_types(class_parser(known.class_type))
            ]
            if takers and last is not None and last.class_type.__name__ not in takers:
                who = last.class_type.__name__
                have = "has" if len(takers) == 1 else "have"
                self.fail(
                    f"{path}.{name} is for {who}, the last of {count}, which has no such option; "
                    f"{' and '.join(takers)} {have}: give the list again, with it, in a config"
                )
        self.value(value, hint, f"{path}[{count - 1}]")

    def object(self, value: Mapping[str, Any], valid: Mapping[type, int], path: str) -> None:
        """An object: its class and options, or only options where the class is known."""
        name, place = value.get("class_path"), self.shown(path)
        outside = [str(key) for key in value if key not in _OF_AN_OBJECT]
        dataclasses = [base for base in valid if is_dataclass(base)]
        if isinstance(name, str) and dataclasses == list(valid) and "." not in name:
            first = next(iter(option_types(class_parser(dataclasses[0]))))
            what = dataclasses[0].__name__
            if name != what:
                self.fail(f"{place}: expected options of {what}, as {{{first}: ...}}, got {name!r}")
        if isinstance(name, str):
            try:
                found = class_called(name, valid)
            except InputError as error:
                self.fail(f"{place}: {error}")
            if found is None:
                return
            before = self.objects.get(path)
            given = before.given if before else set()
            self.objects[path] = _Object(found, max(valid.values()), given)
            if outside:
                keys = ", ".join(outside)
                self.fail(f"{place}: options of {found.__name__} ({keys}) belong under init_args.")
        args = value.get("init_args") if any(key in value for key in _OF_AN_OBJECT) else value
        if "init_args" in value and not isinstance(args, Mapping):
            self.fail(f"{place}.init_args: expected options, as {{name: value}}, got {args!r}")
        if not isinstance(args, Mapping) or not args:
            return
        if path not in self.objects and len(dataclasses) == 1:
            self.objects[path] = _Object(dataclasses[0])
        if path not in self.objects:
            first = next(iter(args))
            self.fail(
                f"{place}: option {first!r} is given but no class; write {place}: "
                f"{{class_path: CLASS, init_args: {{{first}: ...}}}}."
            )
        known = self.objects[path]
        known.given |= {str(key).removesuffix("+") for key in args}
        types = option_types(class_parser(known.class_type))
        self.options(args, types, path, known.class_type.__name__)

    def wrong_type(self, value: Any, hint: Any, path: str) -> NoReturn:
        """A value that the type does not allow."""
        names = sorted(dict.fromkeys(in_words(hint)), key=lambda name: name == "null")
        words = [name.strip("'") for name in names if name[0] == "'"]
        near = did_you_mean(str(value), words, list_up_to=0)
        near = near or path_of_function(hint, value)
        if kinds(item_type(hint)) and isinstance(value, str):
            near = f" Write a list, as [{{class_path: {value}}}], or --{path}+={value}"
        self.fail(f"{self.shown(path)}: expected {' or '.join(names)}, got {str(value)!r}.{near}")

    def required(self, linked: Sequence[str]) -> None:
        """Objects without an option that their class needs."""
        self.file = None
        for path, known in self.objects.items():
            missing = required_options(class_parser(known.class_type))[known.handed :]
            given = {*known.given, *(n.removeprefix(f"{path}.") for n in linked)}
            missing = [name for name in missing if name.partition(".")[0] not in given]
            if missing:
                name = known.class_type.__name__
                self.fail(f"{self.shown(path)}: {name} needs {' and '.join(missing)}.")

    @staticmethod
    def shown(path: str) -> str:
        """The path as one types it, without the number of an item."""
        return re.sub(r"\[\d+\]", "", path)
