"""What `docs/loggers.md` says of loggers, with real ones, in one short run of three at once."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest
import yaml

LOGGERS = """\
trainer:
  logger:
    - class_path: TensorBoardLogger
      init_args: {save_dir: runs}
    - class_path: CSVLogger
      init_args: {save_dir: runs, name: table}
    - class_path: WandbLogger
      init_args: {save_dir: runs, project: digits, offline: true}
"""
CUT = (
    "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1"
    " --trainer.log_every_n_steps 1 --model.warmup_epochs 0"
)
SCALARS = ("train/loss", "val/knn_acc1", "monitor/rankme")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("loggers")
    (folder / "loggers.yaml").write_text(LOGGERS)
    words = f"fit --config msn/mnist5k.yaml --config loggers.yaml {CUT}".split()
    # a process of its own: W&B goes on with the folder in which it was first used
    done = subprocess.run(
        [sys.executable, "-m", "lit_ssl", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_files_of_the_run_lie_in_the_folder_of_the_first(folder):
    home = folder / "runs/lightning_logs/version_0"
    for name in ("config.yaml", "hparams.yaml", "checkpoints/last.ckpt"):
        assert (home / name).is_file()
    assert list((home / "views").glob("*.png"))
    assert yaml.safe_load((home / "config.yaml").read_text())["trainer"]["max_epochs"] == 1
    assert not (folder / "lit_ssl_runs").exists()


def test_tensorboard_has_numbers_and_pictures(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "runs/lightning_logs/version_0"))
    events.Reload()
    tags = events.Tags()
    assert set(SCALARS) <= set(tags["scalars"])
    assert [name for name in tags["images"] if name.startswith("views")]
    assert len(events.Scalars("train/loss")) == 2


def test_csv_has_a_column_for_each_number(folder):
    with open(folder / "runs/table/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(SCALARS) <= set(rows[0])
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1"]


def test_wandb_has_numbers_and_pictures(folder):
    (log,) = (folder / "runs/wandb").glob("offline-run-*/run-*.wandb")
    written = log.read_bytes()
    for name in (*SCALARS, "mask_ratio"):
        assert name.encode() in written
    assert list(log.parent.glob("files/media/images/views*.png"))
