"""What the Trainer writes is whole or not there; what is damaged is not loaded."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_ssl.checkpoints import whole
from lit_ssl.errors import InputError, OutputError
from lit_ssl.strategies import LocalSGDStrategy
from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO, write_whole

sys.path.insert(0, str(Path(__file__).parents[1]))
from damages import flip_bit


def content(step=1, size=2000):
    return {"epoch": 0, "global_step": step, "state_dict": {"a": torch.ones(size)}}


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which nothing fits any more once it is called."""

    def write(self, data):
        self.error = OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    return lambda: monkeypatch.setattr(whole._Target, "write", write)


def trainer(folder, **options):
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, limit_train_batches=3, limit_val_batches=0,
        plugins=[WholeCheckpointIO()], **options,
    )  # fmt: skip


def test_a_run_in_python(tmp_path):
    trainer(tmp_path, max_epochs=1).fit(BoringModel())
    (path,) = (tmp_path / "checkpoints").iterdir()
    resumed = trainer(tmp_path, max_epochs=2)
    resumed.fit(BoringModel(), ckpt_path=path, weights_only=True)
    assert resumed.global_step == 6
    path = resumed.checkpoint_callback.best_model_path
    flip_bit(Path(path), 0.1)
    with pytest.raises(InputError, match="cannot be read as a checkpoint: it is damaged"):
        trainer(tmp_path, max_epochs=3).fit(BoringModel(), ckpt_path=path, weights_only=True)


def test_a_full_disk(tmp_path, full_disk):
    io = WholeCheckpointIO()
    io.save_checkpoint(content(1), tmp_path / "step=1.ckpt")
    before = (tmp_path / "step=1.ckpt").read_bytes()
    full_disk()
    line = (
        r"^cannot write .*/step=2\.ckpt: No space left on device \(4\.0 MB needed, [\d,.]+ MB "
        r"free\)\. .*/step=1\.ckpt is whole: go on from it$"
    )
    with pytest.raises(OutputError, match=line):
        io.save_checkpoint(content(2, size=10**6), tmp_path / "step=2.ckpt")
    with pytest.raises(OutputError, match=r"step=1\.ckpt is whole"):
        io.save_checkpoint(content(2), tmp_path / "step=1.ckpt")
    assert (tmp_path / "step=1.ckpt").read_bytes() == before
    assert os.listdir(tmp_path) == ["step=1.ckpt"]
    with pytest.raises(OutputError, match="no checkpoint was written before"):
        io.save_checkpoint(content(1), tmp_path / "other/step=1.ckpt")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*/file/a\.ckpt: Not a directory|exists"):
        WholeCheckpointIO().save_checkpoint(content(), tmp_path / "file/a.ckpt")
    (tmp_path / "a.ckpt").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        WholeCheckpointIO().save_checkpoint(content(), tmp_path / "a.ckpt")
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "file"]


def left_by_a_kill(folder, name):
    """An unfinished file; it is of another machine, and old."""
    path = folder / f".{name}.17-{'0' * 16}.part"
    path.touch()
    os.utime(path, (1000, 1000))
    return path


def test_leftovers_are_removed_where_a_run_writes_and_was_resumed_from(tmp_path):
    killed, new = tmp_path / "version_0", tmp_path / "version_1"
    io = WholeCheckpointIO()
    io.save_checkpoint(content(), killed / "last.ckpt")
    left = left_by_a_kill(killed, "last.ckpt")
    io = WholeCheckpointIO()
    io.load_checkpoint(killed / "last.ckpt", weights_only=True)
    assert left.exists()  # an evaluation changes nothing
    io.save_checkpoint(content(), new / "last.ckpt")
    assert not left.exists()
    left = left_by_a_kill(new, "last.ckpt")
    WholeCheckpointIO().save_checkpoint(content(), new / "last.ckpt")
    assert os.listdir(new) == ["last.ckpt"]


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    io = WholeCheckpointIO()
    for path in ("a.ckpt", "~/a.ckpt", f"file://{tmp_path}/b/a.ckpt", "memory://c/a.ckpt"):
        io.save_checkpoint(content(), path)
        assert torch.equal(io.load_checkpoint(path, weights_only=True)["state_dict"]["a"],
                           torch.ones(2000))  # fmt: skip
        io.remove_checkpoint(path)
        io.remove_checkpoint(path)
    assert sorted(os.listdir(tmp_path)) == ["b", "home"]
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint(content(), "a.ckpt", storage_options={})


def test_who_writes_whole():
    strategy = SingleDeviceStrategy()
    write_whole(strategy)
    assert type(strategy.checkpoint_io) is WholeCheckpointIO
    chosen = SingleDeviceStrategy(checkpoint_io=TorchCheckpointIO())
    write_whole(chosen)
    assert type(chosen.checkpoint_io) is TorchCheckpointIO
    behind = SingleDeviceStrategy(checkpoint_io=AsyncCheckpointIO())
    write_whole(behind)
    assert type(behind.checkpoint_io.checkpoint_io) is WholeCheckpointIO


def test_the_strategies_do(tmp_path):
    fit = pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, max_steps=2,
        strategy=LocalSGDStrategy(sync_every=2, process_group_backend="gloo"),
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    fit.fit(BoringModel())
    assert type(fit.strategy.checkpoint_io) is WholeCheckpointIO
