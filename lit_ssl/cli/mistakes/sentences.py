"""One line for a wrong entry of the command line or a config file, with the nearest valid name."""

from __future__ import annotations

import ast
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from lit_ssl.cli.mistakes.messages import Problem, read_problem
from lit_ssl.cli.mistakes.sources import broken_file, source_file
from lit_ssl.errors import did_you_mean

__all__ = ["explain", "option_names"]


def explain(
    message: str, options: Sequence[str] = (), argv: Sequence[str] = (), files: Sequence[str] = ()
) -> str:
    """Say in one line what is wrong, where, and which valid name is nearest.

    Args:
        message: the text of jsonargparse.
        options: dotted names of all options of the subcommand, e.g. ``trainer.max_epochs``.
        argv: the command line, to tell its mistakes from those of a file.
        files: the config files given, in order.
    """
    problem = read_problem(message)
    if problem.kind == "syntax":
        reason = problem.found["name"].replace(' in "<unicode string>",', " in")
        return f"{broken_file(files) or 'the config'} is no valid YAML: {reason}"
    if argv and argv[0].startswith("-") and problem.kind == "option":
        problem.kind = "before"
    sentence = _SENTENCES.get(problem.kind, _other)(problem, options)
    source = source_file(problem, argv, files)
    return sentence + (f" (in {source})" if source else "")


def option_names(class_type: type) -> list[str]:
    """Names of the options that a class takes, with those it hands on to its parents."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    added = parser.add_class_arguments(class_type, "object", fail_untyped=False)
    return [name.removeprefix("object.") for name in added]


def _option(problem: Problem, options: Sequence[str]) -> str:
    name = problem.found["name"]
    short = problem.class_path.rpartition(".")[2]
    if name == "class_path":
        names = ", ".join(
            key for key in _given_keys(problem) if key not in ("class_path", "init_args")
        )
        return f"{problem.path}: options of {short} ({names}) belong under init_args."
    if problem.base_only:
        return (
            f"{problem.path}: option {name!r} is given but no class; write {problem.path}: "
            f"{{class_path: CLASS, init_args: {{{name}: ...}}}}."
        )
    class_type = _locate(problem.class_path)
    valid = option_names(class_type) if class_type else []
    place = f"{problem.path}: " if problem.path else ""
    return f"{place}{short or 'the command'} has no option {name!r}.{did_you_mean(name, valid)}"


def _unaccepted(problem: Problem, options: Sequence[str]) -> str:
    name = problem.found["name"]
    if "group" in problem.found:
        name = f"{problem.found['group']}.{name}"
    return f"no option {name!r}.{_near_option(name, options)}"


def _unrecognized(problem: Problem, options: Sequence[str]) -> str:
    words = problem.found["name"].split()
    typed = next((word for word in words if word.startswith("-")), "")
    if not typed:
        return f"unexpected {words[0]!r}: options are written --name value."
    name = typed.partition("=")[0]
    return f"no option {name}.{_near_option(name.lstrip('-'), options, '--')}"


def _near_option(name: str, options: Sequence[str], prefix: str = "") -> str:
    """Suggest an option; a wrong first part is answered with first parts."""
    tops = {option.partition(".")[0] for option in options}
    top = name.partition(".")[0]
    if top not in tops:
        return did_you_mean(prefix + top, [prefix + t for t in tops])
    inside = [prefix + option for option in options if option.startswith(f"{top}.")]
    return did_you_mean(prefix + name, inside)


def _before(problem: Problem, options: Sequence[str]) -> str:
    return "options come after the command: lit-ssl fit --config ... --model.lr ..."


def _required(problem: Problem, options: Sequence[str]) -> str:
    names = (problem.found.get("name") or problem.found["key"]).split(", ")
    names = [name.partition(".")[2] if name.startswith(_COMMANDS) else name for name in names]
    if problem.class_path:
        short = problem.class_path.rpartition(".")[2]
        return f"{problem.path}: {short} needs {' and '.join(names)}."
    return (
        f"{' and '.join(names)} missing: give --config NAME (`lit-ssl configs` lists recipes) or "
        + " ".join(f"--{name} CLASS" for name in names)
        + "."
    )


_COMMANDS = ("fit.", "validate.", "test.", "predict.")


def _choice(problem: Problem, options: Sequence[str]) -> str:
    valid = re.findall(r"'([^']+)'", problem.found["valid"])
    return f"no command {problem.found['name']!r}.{did_you_mean(problem.found['name'], valid)}"


def _module(problem: Problem, options: Sequence[str]) -> str:
    missing = problem.found["name"]
    asked = problem.class_path or problem.block.given or ""
    if not (asked == missing or asked.startswith(f"{missing}.")):
        return f"{problem.path}: {asked} cannot be imported: no module named {missing!r}."
    parent, _, child = missing.rpartition(".")
    if parent:
        folders = getattr(sys.modules.get(parent), "__path__", [])
        valid = [module.name for module in pkgutil.iter_modules(folders)]
        hint = did_you_mean(child, valid)
    else:
        here = [module.name for module in pkgutil.iter_modules([os.getcwd()])]
        loaded = [name for name in sys.modules if "." not in name and not name.startswith("_")]
        hint = did_you_mean(missing, [*here, *loaded], list_up_to=0)
    return f"{problem.path}: no module named {missing!r}.{hint}"


def _attribute(problem: Problem, options: Sequence[str]) -> str:
    module, name = problem.found["module"], problem.found["name"]
    asked = problem.class_path or problem.block.given or ""
    if asked.startswith(f"{module}.{name}."):  # not the class, but a module on the way to it
        return _module(replace(problem, found={"name": f"{module}.{name}"}), options)
    classes = inspect.getmembers(sys.modules.get(module), inspect.isclass)
    hint = did_you_mean(name, [n for n, _ in classes])
    return f"{problem.path}: {module} has no class {name!r}.{hint}"


def _subclass(problem: Problem, options: Sequence[str]) -> str:
    return f"{problem.path}: {problem.block.given} is no {problem.found['base']}."


def _ambiguous(problem: Problem, options: Sequence[str]) -> str:
    paths = problem.found["paths"].rstrip(".").replace(", ", " or ")
    return f"{problem.path}: several classes are called {problem.found['name']}: write {paths}."


def _class(problem: Problem, options: Sequence[str]) -> str:
    name = problem.found["name"]
    hint = did_you_mean(name, _known_classes(problem))
    hint = hint or " Classes of lit_ssl go by their name, your own are written module.Class."
    return f"{problem.path}: no class named {name!r}.{hint}"


def _file(problem: Problem, options: Sequence[str]) -> str:
    path = Path(problem.found["name"])
    valid = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    return f"{problem.path}: no file {path}.{did_you_mean(path.name, valid, list_up_to=0)}"


def _type(problem: Problem, options: Sequence[str]) -> str:
    value = problem.found.get("value") or problem.block.given
    choices = [c for text in problem.expected for c in _literal_values(text)]
    types = sorted(map(_plain_type, problem.expected), key=lambda name: name == "null")
    hint = did_you_mean(str(value), choices, list_up_to=0)
    return f"{problem.path}: expected {' or '.join(dict.fromkeys(types))}, got {value!r}.{hint}"


def _other(problem: Problem, options: Sequence[str]) -> str:
    place = f"{problem.path}: " if problem.path else ""
    given = problem.block.given
    text = problem.found["name"]
    # what jsonargparse before 4.41 says of a value that no Literal has
    if text.startswith("Cannot take a Union of no types"):
        text = "no valid value"
    return place + text + (f" (got {given!r})" if given else "")


_SENTENCES: dict[str, Callable[[Problem, Sequence[str]], str]] = {
    "option": _option,
    "unaccepted": _unaccepted,
    "group": _unaccepted,
    "unrecognized": _unrecognized,
    "before": _before,
    "required": _required,
    "choice": _choice,
    "ambiguous": _ambiguous,
    "module": _module,
    "attribute": _attribute,
    "subclass": _subclass,
    "class": _class,
    "file": _file,
    "type": _type,
}


def _literal_values(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text) if "Literal[" in text else []


def _plain_type(text: str) -> str:
    """``<class 'int'>`` → ``int``; ``typing.Literal['a', 'b']`` → ``'a' or 'b'``."""
    if values := _literal_values(text):
        return " or ".join(map(repr, values))
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return text.replace("NoneType", "null").replace("typing.", "")


def _locate(class_path: str) -> type | None:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _given_keys(problem: Problem) -> list[str]:
    try:
        given = ast.literal_eval(problem.block.given or "")
    except (ValueError, SyntaxError):
        return []
    return list(given) if isinstance(given, dict) else []


def _known_classes(problem: Problem) -> list[str]:
    """Names of the imported classes that a key accepts."""
    bases = [_locate(path) for path in re.findall(r"(?:\w+\.)+\w+", problem.block.subtypes)]
    found: set[str] = set()
    for base in filter(None, bases):
        found.update(c.__name__ for c in _subclasses(base) if not c.__name__.startswith("_"))
    return sorted(found)


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(base)
    for child in children:
        yield child
        yield from _subclasses(child)
