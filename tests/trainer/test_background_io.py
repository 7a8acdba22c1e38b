"""Checkpoints that are written behind the training are those of the call, whole, and not lost."""

from __future__ import annotations

import errno
import os
import signal
import threading

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_ssl.callbacks import BackgroundCheckpoints, LastCheckpoint, SlurmRequeue
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.errors import InputError, OutputError
from lit_ssl.trainer import checkpoint_io
from lit_ssl.trainer.background_io import BackgroundCheckpointIO, copy_of
from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO

SAVE = checkpoint_io.save_whole


class Disk:
    """A disk that writes when it is told to, or is full."""

    def __init__(self):
        self.may_write, self.began, self.is_full = threading.Event(), threading.Event(), False
        self.threads = []

    def save(self, content, path):
        self.threads.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            self.began.set()
            assert self.may_write.wait(20)
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        SAVE(content, path)

    def in_background(self):
        return [thread is not threading.main_thread() for thread in self.threads]


@pytest.fixture
def disk(monkeypatch):
    found = Disk()
    monkeypatch.setattr(checkpoint_io, "save_whole", found.save)
    yield found
    found.may_write.set()


@pytest.fixture
def io():
    made = BackgroundCheckpointIO()
    yield made
    made.teardown()


class Act(pl.Callback):
    """Calls a function with the trainer after each batch."""

    def __init__(self, action):
        self.action = action

    def on_train_batch_end(self, trainer, *args):
        self.action(trainer)


class Adam(BoringModel):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def make_trainer(folder, *callbacks, steps=6, **options):
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, max_steps=steps,
        callbacks=[*callbacks, BackgroundCheckpoints()], **options,
    )  # fmt: skip


def keeper(folder, **options):
    named = {"filename": "{step}", "every_n_train_steps": 2, "save_on_train_epoch_end": False}
    return ModelCheckpoint(folder, **{**named, **options})


def read(path):
    return torch.load(path, weights_only=True)


def test_a_copy_is_the_same_file(tmp_path, io):
    whole_one = torch.arange(12.0)
    shared = torch.nn.Parameter(torch.ones(3))
    content = {
        "state_dict": {"a": whole_one[:4], "b": whole_one[4:], "c": whole_one.view(3, 4).t()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0), "lr": [0.1]}}}],
        "parameter": shared,
        "grows": torch.ones(2, requires_grad=True) * 2,
        "empty": torch.empty(0, 3),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    del content["grows"]
    io.save_checkpoint(content, tmp_path / "a.ckpt")
    io.wait()
    WholeCheckpointIO().save_checkpoint(content, tmp_path / "b.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size == (tmp_path / "b.ckpt").stat().st_size
    first, second = read(tmp_path / "a.ckpt"), read(tmp_path / "b.ckpt")
    for name, value in second["state_dict"].items():
        assert torch.equal(first["state_dict"][name], value)
        assert first["state_dict"][name].stride() == value.stride()
    first["state_dict"]["a"].zero_()
    assert first["state_dict"]["c"].sum() == whole_one[4:].sum()  # one memory, as it was
    assert type(first["parameter"]) is torch.nn.Parameter
    copied = copy_of(content)
    assert (
        copied["optimizer_states"][0]["state"][0] is not content["optimizer_states"][0]["state"][0]
    )


def test_what_changes_after_the_call_is_not_in_the_file(tmp_path, io, disk):
    content = {"a": torch.ones(3), "best": {"x": 1}}
    io.save_checkpoint(content, tmp_path / "a.ckpt")
    content["a"].zero_()
    content["best"]["y"] = 2
    disk.may_write.set()
    found = io.load_checkpoint(tmp_path / "a.ckpt", weights_only=True)  # waits
    assert found["a"].tolist() == [1, 1, 1]
    assert found["best"] == {"x": 1}


def test_older_files_go_when_the_newer_one_is_whole(tmp_path, io, disk):
    SAVE({"a": 1}, tmp_path / "old.ckpt")
    io.save_checkpoint({"a": 2}, tmp_path / "new.ckpt")
    assert disk.began.wait(20)
    io.remove_checkpoint(tmp_path / "old.ckpt")
    assert os.listdir(tmp_path) == ["old.ckpt"] or "old.ckpt" in os.listdir(tmp_path)
    disk.may_write.set()
    io.wait()
    assert os.listdir(tmp_path) == ["new.ckpt"]


def test_a_write_that_fails_keeps_the_older_file_and_is_raised(tmp_path, io, disk):
    SAVE({"a": 1, "global_step": 1, "state_dict": {}}, tmp_path / "old.ckpt")
    disk.is_full = True
    io.save_checkpoint({"a": 2}, tmp_path / "new.ckpt")
    io.remove_checkpoint(tmp_path / "old.ckpt")
    disk.may_write.set()
    with pytest.raises(
        OutputError, match=r"cannot write .*new\.ckpt: No space .*old\.ckpt is whole"
    ):
        io.wait()
    assert os.listdir(tmp_path) == ["old.ckpt"]
    io.check()  # said once
    io.save_checkpoint({"a": 3}, tmp_path / "newer.ckpt")
    with pytest.raises(OutputError, match=r"newer\.ckpt"):
        io.teardown()


def test_a_fit_goes_on_meanwhile(tmp_path, disk):
    """The file of step 2 is written when step 4 is done, and holds step 2."""
    seen = {}

    def look(trainer):
        step = trainer.global_step
        state = trainer.optimizers[0].state_dict()["state"]
        seen[step] = (
            {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()},
            {k: v["exp_avg"].clone() for k, v in state.items()},
        )
        if step == 4:
            assert disk.began.wait(20)
            assert not (tmp_path / "step=2.ckpt").exists()
            disk.may_write.set()

    keep = keeper(tmp_path, save_top_k=-1)
    make_trainer(tmp_path, keep, LastCheckpoint(), Act(look)).fit(Adam())
    for step in (2, 4, 6):
        saved = read(tmp_path / f"step={step}.ckpt")
        weights, moments = seen[step]
        assert saved["global_step"] == step
        for name, value in weights.items():
            assert torch.equal(saved["state_dict"][name], value)
        for key, value in moments.items():
            assert torch.equal(saved["optimizer_states"][0]["state"][key]["exp_avg"], value)
    assert not torch.equal(seen[2][0]["layer.weight"], seen[4][0]["layer.weight"])
    resumed = make_trainer(tmp_path, steps=8)
    resumed.fit(Adam(), ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    assert resumed.global_step == 8


def test_an_error_of_the_thread_ends_the_run_after_the_next_batch(tmp_path, disk):
    disk.is_full = True
    steps = []

    def look(trainer):
        steps.append(trainer.global_step)
        if trainer.global_step == 4:
            disk.may_write.set()
            for job in trainer.strategy.checkpoint_io._jobs:
                job.exception(20)

    trainer = make_trainer(tmp_path, Act(look), keeper(tmp_path, every_n_train_steps=3), steps=20)
    with pytest.raises(OutputError, match=r"cannot write .*step=3\.ckpt: No space left"):
        trainer.fit(Adam())
    assert steps == [1, 2, 3, 4]


def test_the_end_is_written_before_fit_returns_and_in_the_foreground(tmp_path, disk):
    disk.may_write.set()
    keep = keeper(tmp_path, every_n_train_steps=4, save_last=True)
    make_trainer(tmp_path, keep, LastCheckpoint()).fit(Adam())
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "step=4.ckpt"]
    assert read(tmp_path / "last.ckpt")["global_step"] == 6
    assert disk.in_background() == [True, True, False]


def test_sigterm_is_saved_in_the_foreground(tmp_path, disk):
    def end(trainer):
        if trainer.global_step == 3:
            assert disk.began.wait(20)
            disk.may_write.set()
            os.kill(os.getpid(), signal.SIGTERM)

    parts = [Act(end), keeper(tmp_path), LastCheckpoint(), SlurmRequeue()]
    with pytest.raises(SIGTERMException):
        make_trainer(tmp_path, *parts, steps=50).fit(Adam())
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "step=2.ckpt"]
    newest = read(tmp_path / "last.ckpt")["global_step"]
    assert newest in (3, 4)
    assert disk.in_background()[-1] is False


def test_a_link_leads_to_a_whole_file(tmp_path, disk):
    """What a kill would leave while the files of steps 2 and 4 are being written."""
    found = []

    def look(trainer):
        if trainer.global_step == 3:
            assert not [name for name in os.listdir(tmp_path) if name.endswith(".ckpt")]
            disk.may_write.set()
            trainer.strategy.checkpoint_io.wait()
            disk.may_write.clear()
        if trainer.global_step == 5:
            assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "step=2.ckpt"]
            assert os.readlink(tmp_path / "last.ckpt") == "step=2.ckpt"
            found.append(newest_checkpoint([tmp_path]).path.name)
            disk.may_write.set()

    keep = keeper(tmp_path, save_last="link")
    make_trainer(tmp_path, Act(look), keep, LastCheckpoint()).fit(Adam())
    assert found == ["last.ckpt"]
    assert "_link_checkpoint" not in vars(keep)
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "step=6.ckpt"]
    assert newest_checkpoint([tmp_path]).path.resolve() == tmp_path / "step=6.ckpt"


def test_a_newer_last_checkpoint_stays_until_the_link_can_take_its_place(tmp_path, disk):
    """``last.ckpt`` of step 4, where the monitor did not improve, while step 6 is written."""

    def look(trainer):
        step = trainer.global_step
        trainer.callback_metrics["m"] = torch.tensor({4: 2.0, 6: 0.0}.get(step, 1.0))
        if step in (3, 5):
            disk.may_write.set()
            trainer.strategy.checkpoint_io.wait()
            disk.may_write.clear()
        if step == 7:
            assert not (tmp_path / "last.ckpt").is_symlink()
            assert read(tmp_path / "last.ckpt")["global_step"] == 4
            assert sorted(os.listdir(tmp_path))[-2:] == ["last.ckpt", "step=2.ckpt"]
            disk.may_write.set()

    keep = keeper(tmp_path, save_last="link", monitor="m")
    make_trainer(tmp_path, Act(look), keep, LastCheckpoint(), steps=7).fit(Adam())
    assert read(tmp_path / "last.ckpt")["global_step"] == 7


@pytest.mark.parametrize("name", ["last.ckpt", "step=2.ckpt"])
def test_a_run_that_goes_on_from_its_first_file_keeps_its_link(tmp_path, name):
    def train(steps, path=None):
        keep = keeper(tmp_path, save_last="link", save_top_k=-1)
        made = make_trainer(tmp_path, keep, LastCheckpoint(), steps=steps)
        made.fit(Adam(), ckpt_path=path, weights_only=True if path else None)

    train(2)
    train(6, tmp_path / name)
    links = {n: os.readlink(tmp_path / n) for n in os.listdir(tmp_path) if n.startswith("last")}
    assert links == {"last.ckpt": "step=6.ckpt"}


def test_a_copy_of_lazy_conjugates_holds_their_values():
    x = torch.tensor([1 + 2j, 3 - 1j])
    copied = copy_of({"conjugate": x.conj(), "negative": x.conj().imag})
    assert copied["conjugate"].tolist() == [1 - 2j, 3 + 1j]
    assert copied["negative"].tolist() == [-2, 1]


def test_one_writer_at_a_time(tmp_path):
    other = {"plugins": [TorchCheckpointIO()]}
    with pytest.raises(InputError, match=r"BackgroundCheckpoints: .*TorchCheckpointIO does"):
        make_trainer(tmp_path, **other).fit(Adam())


def test_evaluations_need_nothing_of_it(tmp_path):
    make_trainer(tmp_path, enable_checkpointing=False).test(Adam(), verbose=False)
