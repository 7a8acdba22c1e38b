"""``lit-ssl completion``: a script by which a shell completes words, options and recipes.

The script is static: it is made once, and completing starts no Python.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal, NoReturn, get_args, get_origin
from unittest.mock import patch

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.recipes import list_configs
from lit_ssl.errors import InputError, InputImportError, did_you_mean

__all__ = ["run"]

_TRAINING = ("fit", "validate", "test", "predict")
_PLAIN = ("completion", "configs", "methods")  # words without a parser of their own
_USAGE = "usage: lit-ssl completion bash|zsh|fish, such as `lit-ssl completion bash > FILE`"
_HINTS = {
    "bash": "source it in ~/.bashrc, or name it ~/.local/share/bash-completion/completions/lit-ssl",
    "zsh": "name it _lit-ssl in a folder of $fpath",
    "fish": "name it ~/.config/fish/completions/lit-ssl.fish",
}
# Recipes, or files here; shtab asks for a function's name per shell, and for its text.
_RECIPES = "_lit_ssl_recipes"
_FUNCTIONS = {
    "bash": _RECIPES + '() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": _RECIPES + "() {{ _alternative 'recipes:recipe:({names})' 'files:file:_files' }}",
    "fish": f"function {_RECIPES}\n  printf '%s\\n' {{names}}\n  __fish_complete_path\nend",
}


class _Found(Exception):
    """The parser of a word, in place of what the word does."""

    def __init__(self, parser: argparse.ArgumentParser, takes_more: bool) -> None:
        super().__init__()
        self.parser = parser
        self.takes_more = takes_more  # hands unknown options on to the training commands' parser


def run(words: Sequence[str], known: Mapping[str, tuple[str, Callable]]) -> None:
    """Print the script.

    Args:
        words: What follows ``completion`` on the command line.
        known: Every word of the program, its line in the help, and its function.

    Raises:
        InputError: For wrong words, or a shell that the installed shtab does not know.
        InputImportError: shtab is missing.
    """
    if list(words) in (["-h"], ["--help"]):
        print(_USAGE, *(f"  {shell:<5} {hint}" for shell, hint in _HINTS.items()), sep="\n")
        return
    if len(words) != 1 or words[0] not in _HINTS:
        hint = did_you_mean(words[0], _HINTS) if len(words) == 1 else f" {_USAGE}"
        raise InputError(f"completion takes the name of a shell.{hint}")
    try:
        import shtab
    except ImportError as error:
        raise InputImportError(
            "completion needs the package shtab: pip install lit-ssl[completion]"
        ) from error
    (shell,) = words
    if shell not in shtab.SUPPORTED_SHELLS:
        raise InputError(
            f"the installed shtab knows {', '.join(shtab.SUPPORTED_SHELLS)}, and no {shell}: "
            "pip install --upgrade shtab"
        )
    function = _FUNCTIONS[shell].format(names=" ".join(list_configs()))
    print(shtab.complete(_program(known), shell, preamble=function))


def _program(known: Mapping[str, tuple[str, Callable]]) -> argparse.ArgumentParser:
    """A parser of the whole command line, made to be read and not to parse."""
    program = argparse.ArgumentParser("lit-ssl")
    program.add_argument("--version", action="store_true", help="print the version")
    commands = program.add_subparsers()
    options = _training_options()
    for name, (text, function) in known.items():
        line = text.partition("\n")[0].partition("  ")[0].partition(": lit-ssl")[0].rstrip(":")
        if name in _TRAINING:
            _add_options(commands.add_parser(name, help=line), options[name])
        elif name in _PLAIN:
            commands.add_parser(name, help=line)
        else:
            parser, takes_more = _parser_of(function)
            command = commands.add_parser(name, help=line, parents=[parser], add_help=False)
            if takes_more:
                _add_options(command, {n: v for n, v in options["fit"].items() if _is_data(n)})
    configs = commands.choices["configs"].add_subparsers()
    for name, text in {"list": "list them", "show": "print one", "copy": "copy one here"}.items():
        shown = configs.add_parser(name, help=text)
        if name != "list":
            shown.add_argument("name", choices=list_configs())
    commands.choices["completion"].add_argument("shell", choices=list(_HINTS))
    return program


def _parser_of(function: Callable[[Sequence[str]], None]) -> tuple[argparse.ArgumentParser, bool]:
    """The parser of a word, and whether it hands unknown options on to that of training."""

    def parse_args(self: LineParser, *args: object, **kwargs: object) -> NoReturn:
        raise _Found(self, takes_more=False)

    def parse_known_args(self: LineParser, *args: object, **kwargs: object) -> NoReturn:
        raise _Found(self, takes_more=True)

    with patch.multiple(LineParser, parse_args=parse_args, parse_known_args=parse_known_args):
        try:
            function([])
        except _Found as found:
            return found.parser, found.takes_more
    raise TypeError("a word without a parser belongs to _PLAIN")


def _is_data(name: str) -> bool:
    return name == "config" or name.partition(".")[0] == "data"


def _training_options() -> dict[str, dict[str, Sequence[str]]]:
    """Command → option → its values where they are few, else none."""
    from lit_ssl.cli.training import LitSSLCLI
    from lit_ssl.trainer.private import option_types, subcommand_parsers

    found: dict[str, dict[str, Sequence[str]]] = {}

    class Options(LitSSLCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            for name, part in subcommand_parsers(self).items():
                types = option_types(part)
                found[name] = {option: _values(kind) for option, kind in types.items()}
            raise _Found(parser, takes_more=False)

    with suppress(_Found):
        Options(args=["fit"])
    for part, room in {"model": "methods", "data": "datamodules"}.items():
        classes, options = _classes(f"lit_ssl.{room}")
        for name in found:
            found[name][part] = classes
            found[name].update({f"{part}.{option}": kind for option, kind in options.items()})
    return found


def _classes(package: str) -> tuple[list[str], dict[str, Sequence[str]]]:
    """Names of the modules of a package, and the options of all of them together."""
    import lightning.pytorch as pl

    from lit_ssl.cli.objects import class_parser
    from lit_ssl.trainer.private import option_types

    home = import_module(package)
    names: list[str] = []
    options: dict[str, Sequence[str]] = {}
    for name in home.__all__:
        kind = getattr(home, name)
        is_module = isinstance(kind, type) and issubclass(
            kind, pl.LightningModule | pl.LightningDataModule
        )
        if is_module and not inspect.isabstract(kind):
            names.append(name)
            for option, hint in option_types(class_parser(kind)).items():
                options.setdefault(option, _values(hint))
    return names, options


def _values(kind: Any) -> Sequence[str]:
    """What an option can be, of a type with few values."""
    if kind is bool:
        return ("true", "false")
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return ()


def _add_options(command: argparse.ArgumentParser, options: Mapping[str, Iterable[str]]) -> None:
    for name, values in options.items():
        if len(name) < 2 or not name.replace(".", "").replace("_", "").isalnum():
            continue  # -h, which is there, and what is typed as YAML
        if name in ("help", "print_shtab"):
            continue
        action = command.add_argument(f"--{name}", choices=list(values) or None)
        if name == "config":
            calls = {"bash": _RECIPES, "zsh": _RECIPES, "fish": f"({_RECIPES})"}
            action.complete = calls  # type: ignore[attr-defined]
        elif name == "ckpt_path":
            import shtab

            action.complete = shtab.FILE  # type: ignore[attr-defined]
