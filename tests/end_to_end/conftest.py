"""Runs `lit-ssl` in process as its console script does, on small data, and trains one network."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

# Here, because Lightning's log handler keeps the error stream of the moment when it is imported.
from lit_ssl.__main__ import main
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.cli.training import LitSSLCLI

# The recipe on the embedded digits, with a network and a length that take seconds.
TINY = (
    "--model.backbone_kwargs.depth=1",
    "--model.backbone_kwargs.embed_dim=16",
    "--model.backbone_kwargs.num_heads=2",
    "--model.proj_hidden_dim=32",
    "--model.warmup_epochs=5",
    "--data.batch_size=64",
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=6",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=2",
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.every_n_train_steps=4",
    "--trainer.callbacks.save_top_k=-1",
    "--trainer.callbacks.filename={step}",
    "--trainer.callbacks+=user_project.LossWriter",
)
RECIPE = ("--config", "msn/mnist5k.yaml", *TINY, "--trainer.callbacks.file=losses.txt")
VARIABLES = ("LIT_SSL_DEBUG", "PL_GLOBAL_SEED", "PL_SEED_WORKERS")


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Run(NamedTuple):
    """A finished training: its folder, the folder of its logs, and what was printed."""

    folder: Path
    logs: Path
    result: Result

    @property
    def last(self):
        return torch.load(self.logs / "checkpoints/last.ckpt", weights_only=True)

    @property
    def losses(self):
        """Loss of each step, in hexadecimal; of a step that was made twice, the second."""
        return dict(line.split() for line in (self.folder / "losses.txt").read_text().splitlines())


def run_command(folder, project, words):
    """Run `lit-ssl` with these words in a working folder; returns exit code and output."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lit-ssl", *map(str, words)])
        for name in VARIABLES:
            patch.setenv(name, "")  # so that what a run sets is undone
            patch.delenv(name)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                assert main() is None
            except SystemExit as stop:
                code = stop.code
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def recipe():
    """Words that name the recipe on the digits, small; losses go to `losses.txt`."""
    return list(RECIPE)


@pytest.fixture(scope="session")
def _project(tmp_path_factory):
    """The module of the user is imported once in this process, so it must stay where it is."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(Path(__file__).with_name("user_project.py"), folder)
    return folder


@pytest.fixture(scope="session")
def lit_ssl_in(_project):
    """Runs `lit-ssl` in a folder."""
    return lambda folder, *words: run_command(folder, _project, words)


@pytest.fixture
def lit_ssl(tmp_path, lit_ssl_in):
    """Runs `lit-ssl` in the test's folder."""
    return lambda *words: lit_ssl_in(tmp_path, *words)


@pytest.fixture
def built(lit_ssl, monkeypatch):
    """Runs a training command up to the point where all is built; returns the CLI object."""

    def run(*words):
        found = []
        monkeypatch.setattr(LitSSLCLI, "_run_subcommand", lambda self, _: found.append(self))
        result = lit_ssl(*words)
        assert result.code == 0, result.err
        return found[0]

    return run


@pytest.fixture
def warned(recwarn):
    """What was warned so far, without what other packages tell only to programmers."""
    silent = (DeprecationWarning, PendingDeprecationWarning)
    return lambda: [str(w.message) for w in recwarn if not issubclass(w.category, silent)]


@pytest.fixture
def console_script(tmp_path):
    """Runs the installed `lit-ssl` in a process of its own, in the test's folder."""
    shutil.copy(Path(__file__).with_name("user_project.py"), tmp_path)
    hidden = ("PYTHONPATH", *VARIABLES)
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    script = str(Path(sys.executable).with_name("lit-ssl"))

    def run(*words):
        done = subprocess.run(
            [script, *map(str, words)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, _project):
    """Three epochs of the recipe on the digits. Tests must not write into its folder."""
    folder = tmp_path_factory.mktemp("trained")
    result = run_command(folder, _project, ["fit", *RECIPE])
    assert result.code == 0, result.err
    return Run(folder, folder / "lightning_logs/version_0", result)


@pytest.fixture
def finished(tmp_path):
    """The last run of the test's folder."""

    def find():
        last = newest_checkpoint([tmp_path]).path
        return Run(tmp_path, last.parent.parent, Result(0, "", ""))

    return find


@pytest.fixture(scope="session")
def write_images():
    """Writes small random photographs."""

    def write(folder, count, name="{}.JPEG", seed=0, size=(40, 56)):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, *folder.name.encode()])
        for number in range(count):
            coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
            picture.save(folder / name.format(number), format="JPEG")

    return write


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory, write_images):
    """ImageNet's official layout: two classes with two training images and one for validation."""
    root = tmp_path_factory.mktemp("imagenet")
    for wnid in ("n01440764", "n01443537"):
        write_images(root / "train" / wnid, 2, wnid + "_{}.JPEG")
        write_images(root / "val" / wnid, 1, "ILSVRC2012_val_0000000{}.JPEG", seed=1)
    return root
