"""Runs `lit-ssl` in process, in a working folder with a user's module and recipe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# Here, because Lightning's log handler keeps the error stream of the moment when it is imported.
from lit_ssl.__main__ import main
from lit_ssl.cli.training import LitSSLCLI

RECIPE = """\
# Toy recipe
model:
  class_path: toy_project.ToyModel
  init_args:
    lr: 0.2
data:
  class_path: toy_project.ToyData
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
"""


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def _project_folder(tmp_path_factory):
    """The module of the user is imported once in this process, so it must stay where it is."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(Path(__file__).with_name("toy_project.py"), folder)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch, _project_folder):
    """An empty working folder with `recipe.yaml`; `toy_project` can be imported."""
    monkeypatch.syspath_prepend(_project_folder)
    monkeypatch.chdir(tmp_path)
    for name in ("LIT_SSL_DEBUG", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")  # so that what a run sets is undone
        monkeypatch.delenv(name)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def lit_ssl(workdir, monkeypatch, capsys):
    """Runs `lit-ssl` with the given words; returns exit code and output."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lit-ssl", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            assert main() is None
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def built(lit_ssl, monkeypatch):
    """Runs a training command up to the point where all is built; returns the CLI object."""

    def run(*words):
        found = []
        monkeypatch.setattr(
            LitSSLCLI, "_run_subcommand", lambda self, subcommand: found.append(self)
        )
        result = lit_ssl(*words)
        assert (result.code, result.err.count("error:")) == (0, 0), result.err
        return found[0]

    return run


@pytest.fixture
def environment(workdir, _project_folder):
    """Environment of a sub-process that sees neither `PYTHONPATH` nor many threads."""
    shutil.copy(_project_folder / "toy_project.py", workdir)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LOSSES", "KILL_AT")}
    return {**kept, "OMP_NUM_THREADS": "1"}
