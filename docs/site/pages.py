"""Pages made of the command line: packaged recipes, and the words of ``lit-ssl``."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import groupby

from lit_ssl.cli.recipes import describe_config, list_configs
from lit_ssl.cli.words import WORDS, help_text

__all__ = ["commands", "recipes"]

_TRAINING = ("fit", "validate", "test", "predict")


def recipes() -> str:
    """The page of recipes: each with the first line of its comment."""
    lines = [
        "# Recipes",
        "",
        "`lit-ssl fit --config NAME` finds these; `lit-ssl configs show NAME` prints one,",
        "`lit-ssl configs copy NAME` copies it to be changed ([the command line](../cli.md)).",
    ]
    for folder, names in groupby(list_configs(), key=lambda name: name.partition("/")[0]):
        lines += ["", f"## {folder}", "", "| recipe | what it does |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(describe_config(name))} |" for name in names]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The page of words: what ``--help`` prints of each."""
    lines = ["# Words of lit-ssl", "", *_block(help_text())]
    for section in WORDS.values():
        for word in section:
            if word in _TRAINING[1:]:  # the same options
                continue
            title = ", ".join(_TRAINING) if word in _TRAINING else word
            lines += ["", f"## {title}", "", *_block(_help(word))]
    return "\n".join(lines) + "\n"


def _help(word: str) -> str:
    """What a word prints, in a process of its own, since some of them set up the whole program."""
    done = subprocess.run(
        [sys.executable, "-m", "lit_ssl", word, "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _block(text: str) -> list[str]:
    return ["```text", text.rstrip(), "```"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
