"""`lit-ssl` where the disk is full: the training ends well, and the program does not."""

from __future__ import annotations

import textwrap

import pytest

FILLS = """
from pathlib import Path
import lightning.pytorch as pl

class DiskFills(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        path = Path(trainer.logger.log_dir) / "metrics.csv"
        if not path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/full")
"""


@pytest.fixture
def fills(workdir):
    (workdir / "filling_disk.py").write_text(textwrap.dedent(FILLS))


@pytest.mark.filterwarnings("ignore")
def test_lost_logs_are_said_at_the_end_and_the_weights_are_kept(lit_ssl, fills, workdir):
    result = lit_ssl(
        "fit", "--config", "recipe.yaml", "--trainer.logger", "CSVLogger",
        "--trainer.logger.save_dir", "logs", "--trainer.log_every_n_steps", 1,
        "--trainer.callbacks+", "filling_disk.DiskFills",
    )  # fmt: skip
    assert result.code == 2
    assert "error: not everything could be written: the logs of CSVLogger" in result.err
    assert "results: " in result.out
    assert len(list(workdir.rglob("*.ckpt"))) == 1


def test_a_config_that_cannot_be_written_is_one_line_before_training(lit_ssl, workdir):
    (workdir / "runs").write_text("a file where the folder should be")
    result = lit_ssl("fit", "--config", "recipe.yaml", "--trainer.default_root_dir", "runs/a")
    assert result.code == 2
    assert result.err.count("error: ") == 1
    assert "runs/a" in result.err
    assert "Traceback" not in result.err
