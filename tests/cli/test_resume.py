"""A run that is killed in the middle of an epoch continues on the identical trajectory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

CHECKPOINT = """\
trainer:
  max_epochs: 2
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {every_n_train_steps: 2, save_top_k: -1}
"""


def losses(path):
    """Loss of each step, in hexadecimal; of a step that was made twice, the second."""
    return dict(line.split() for line in path.read_text().splitlines())


def test_killed_run_continues_identically(lit_ssl, workdir, environment, monkeypatch):
    (workdir / "often.yaml").write_text(CHECKPOINT)
    words = ["fit", "--config", "recipe.yaml", "--config", "often.yaml"]

    monkeypatch.setenv("LOSSES", str(workdir / "whole.txt"))
    assert lit_ssl(*words, "--trainer.default_root_dir=whole").code == 0
    whole = losses(workdir / "whole.txt")
    assert list(whole) == [str(step) for step in range(12)]

    words.append("--trainer.default_root_dir=killed")
    environment.update(LOSSES=str(workdir / "killed.txt"), KILL_AT="9")
    # the console script, which does not see modules of the working folder by itself
    script = str(Path(sys.executable).with_name("lit-ssl"))
    done = subprocess.run([script, *words], cwd=workdir, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert len(losses(workdir / "killed.txt")) == 9

    monkeypatch.setenv("LOSSES", str(workdir / "killed.txt"))
    resumed = lit_ssl(*words, "--ckpt_path", "last")
    assert resumed.out.startswith("--ckpt_path last: killed/")
    assert "step=8.ckpt" in resumed.out.splitlines()[0]  # of epoch 1, whose first step is 6
    assert losses(workdir / "killed.txt") == whole
