"""Commands of the pages: `lit-ssl` is run in this process, others are judged by a table."""

from __future__ import annotations

import argparse
import ast
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from fences import ROOT

# Here, because Lightning's log handler keeps the error stream of the moment when it is imported.
from lit_ssl.__main__ import main
from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.training import LitSSLCLI

TRAINING = ("fit", "validate", "test", "predict")
# run as they are, in the working folder
FILE_COMMANDS = ("cat", "cp", "head", "ls", "mkdir")
# of other programs, and what a shell needs around a command
NOT_RUN = (
    "[", "aws", "break", "cd", "do", "done", "exit", "export", "git", "hf", "huggingface-cli",
    "jupyter", "source", "tensorboard", "trap", "wandb",
)  # fmt: skip
# in front of a command that they start
_STARTERS = ("srun", "torchrun", "until", "while", "do", "if", "then", "!")
_OPERATORS = {"&&", "||", ";", "|", "&"}


class Command(NamedTuple):
    """The words of a command, and the file that its output goes to."""

    words: list[str]
    output: str | None = None


class Failed(Exception):
    """A command that is wrong, or ended so."""


class _Parsed(Exception):
    """All options were read; `rest` are those of a training command that the word leaves to it."""

    def __init__(self, rest: Sequence[str] = ()) -> None:
        super().__init__()
        self.rest = list(rest)


def commands(text: str) -> Iterator[Command]:
    """The commands of a block, without comments."""
    for line in text.replace("\\\n", " ").split("\n"):
        reader = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        reader.whitespace_split = True
        words: list[str] = []
        for word in [*reader, ";"]:
            if word not in _OPERATORS:
                words.append(word)
                continue
            if words := _without_starter(words):
                output = words[words.index(">") + 1] if ">" in words else None
                yield Command(words[: words.index(">")] if output else words, output)
            words = []


def _without_starter(words: list[str]) -> list[str]:
    while words and (words[0] in _STARTERS or re.fullmatch(r"[A-Z_]+=.*", words[0])):
        if words[0] in ("srun", "torchrun"):
            return words[words.index("lit-ssl") :]
        words = words[1:]
    return words


def run(command: Command, options: str, check: bool) -> None:
    """Run a command, or check it.

    Args:
        command: Its words.
        options: What is added to training commands.
        check: Only parse it.

    Raises:
        Failed: With what it printed.
    """
    program, *words = command.words
    if program == "lit-ssl":
        if words[:1] and words[0] in TRAINING:
            words += shlex.split(options)
        printed = _lit_ssl(words, check)
        if command.output and not check:
            Path(command.output).write_text(printed)
    elif program == "make":
        _check_targets(words)
    elif program == "pip":
        _check_packages(words)
    elif program == "python" and words[:1] == ["-c"]:
        ast.parse(words[1])
    elif program == "python" and words[:1] != ["-m"]:
        _check_script(words)
    elif program in FILE_COMMANDS:
        if not check:
            done = subprocess.run(command.words, capture_output=True, text=True)
            if done.returncode:
                raise Failed(done.stderr)
    elif program != "python" and program not in NOT_RUN:
        raise Failed(f"tests/docs/commands.py does not know {program!r}")


def _lit_ssl(words: list[str], check: bool) -> str:
    """What `lit-ssl` prints."""
    check = check and words[:1] not in (["configs"], ["methods"])  # these only print
    if check and words[:1] and words[0] in TRAINING:
        parts = [patch.object(LitSSLCLI, "_parse_ckpt_path", _stop)]
    elif check:
        parts = [
            patch.object(LineParser, "parse_args", _parse_all),
            patch.object(LineParser, "parse_known_args", _parse_some),
        ]
    else:
        parts = []
    out, err, code = io.StringIO(), io.StringIO(), 0
    rest: list[str] = []
    for part in parts:
        part.start()
    try:
        with (
            patch.object(sys, "argv", ["lit-ssl", *words]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
        if check and len(words) > 1:
            raise Failed("it ended without reading its options, so that they were not checked")
    except _Parsed as parsed:
        rest = parsed.rest
    except SystemExit as stop:
        code = stop.code
    except Failed:
        raise
    except Exception as error:
        raise Failed(f"{err.getvalue()[-3000:]}\n{type(error).__name__}: {error}") from error
    finally:
        for part in parts:
            part.stop()
        if "wandb" in sys.modules:  # as the end of a process does
            sys.modules["wandb"].finish()
    if code:
        raise Failed(f"status {code}: {err.getvalue()[-3000:]}")
    if rest:
        _lit_ssl(["fit", *rest], check)
    return out.getvalue()


def _stop(self: LitSSLCLI) -> None:
    """In place of reading the checkpoint: all configs and options have been parsed by then."""
    raise _Parsed


_known = LineParser.parse_known_args


def _parse_all(
    self: LineParser, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
) -> None:
    _, left_over = _known(self, args, namespace)
    if left_over:
        self.error(f"unrecognized arguments: {' '.join(left_over)}")
    raise _Parsed


def _parse_some(
    self: LineParser, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
) -> tuple[argparse.Namespace, list[str]]:
    found, rest = _known(self, args, namespace)
    if " " in self.prog.removeprefix("lit-ssl "):  # of a word of a word: the outer one goes on
        return found, rest
    raise _Parsed(rest)


def _check_targets(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for word in words:
        if "=" not in word and word not in targets:
            raise Failed(f"the Makefile has no target {word!r}")


def _check_packages(words: list[str]) -> None:
    """`pip install` of this package names extras that it has; others are taken as they are."""
    project = (ROOT / "pyproject.toml").read_text()
    table = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^([\w-]+) = \[", table, re.MULTILINE)
    if words[:1] != ["install"]:
        raise Failed(f"pip {' '.join(words)}: only pip install is known")
    for word in words[1:]:
        asked = re.fullmatch(r"(?:lit-ssl|\.)\[([\w,-]+)\].*", word)
        for extra in asked[1].split(",") if asked else ():
            if extra not in extras:
                raise Failed(f"pyproject.toml has no extra {extra!r}")


def _check_script(words: list[str]) -> None:
    """A script of the repository is there and has these options."""
    script, *options = words
    if not (ROOT / script).is_file():
        raise Failed(f"there is no {script}")

    def parse(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        raise _Parsed

    original = argparse.ArgumentParser.parse_args
    err = io.StringIO()
    try:
        with (
            patch.object(sys, "argv", [script, *options]),
            patch.object(sys, "path", [str((ROOT / script).parent), *sys.path]),
            patch.object(argparse.ArgumentParser, "parse_args", parse),
            redirect_stderr(err),
        ):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except _Parsed:
        return
    except SystemExit as stop:
        raise Failed(f"status {stop.code}: {err.getvalue()}") from None
    raise Failed(f"{script} ended without reading its options")
