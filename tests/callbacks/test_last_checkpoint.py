"""A run leaves a checkpoint to go on from, however it is validated, ended or killed."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.callbacks import LastCheckpoint
from lit_ssl.errors import InputError

STEPS = 5  # in an epoch


class Killed(pl.Callback):
    """What is lost if the run is killed now: steps since the newest checkpoint, at its worst."""

    def __init__(self, folder):
        self.folder, self.lost = Path(folder), []

    def on_train_batch_start(self, trainer, *args):
        self.lost.append(trainer.global_step - newest(self.folder))


def newest(folder):
    """Step of the newest checkpoint from which a run can go on."""
    found = [torch.load(path, weights_only=False) for path in folder.glob("*.ckpt")]
    return max((one["global_step"] for one in found if "optimizer_states" in one), default=0)


def train(toys, make_trainer, folder, saver, data=None, module=None, ckpt_path=None, **settings):
    pl.seed_everything(0)
    saver = ModelCheckpoint(folder, **saver)
    killed = Killed(folder)
    trainer = make_trainer(
        callbacks=[killed, saver, LastCheckpoint()], enable_checkpointing=True, **settings
    )
    module = module or toys.ToyModule()
    trainer.fit(module, data or toys.ToyData(), ckpt_path=ckpt_path)
    return trainer, module, max(killed.lost)


def nothing_to_validate(toys):
    data = toys.ToyData()
    data.val_dataloader = lambda: []
    return data


@pytest.fixture
def scored(toys):
    class Worse(toys.ToyModule):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", -float(self.global_step))

    return Worse


SAVERS = {
    "plain": ({}, 1),
    "last": ({"save_last": True}, 1),
    "every second": ({"save_last": True, "every_n_epochs": 2}, 2),
    "all": ({"save_top_k": -1, "every_n_epochs": 2}, 2),
    "last only": ({"save_last": True, "save_top_k": 0}, 1),
    "best": ({"monitor": "val/score", "mode": "max", "filename": "best"}, 1),
    "best and last": ({"monitor": "val/score", "mode": "max", "save_last": True}, 1),
    "best of two": ({"monitor": "val/score", "mode": "max", "save_last": True,
                     "every_n_epochs": 2}, 2),
}  # fmt: skip


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"check_val_every_n_epoch": 3},
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": 3, "limit_val_batches": 0},
        {"check_val_every_n_epoch": None, "val_check_interval": 7, "limit_val_batches": 0},
    ],
    ids=lambda settings: "-".join(f"{k[:9]}={v}" for k, v in settings.items()),
)
def test_a_killed_run_loses_an_interval_at_most(
    toys, make_trainer, tmp_path, scored, saver, settings
):
    options, epochs = SAVERS[saver]
    trainer, _, lost = train(
        toys, make_trainer, tmp_path, options, module=scored(), max_epochs=5, **settings
    )
    assert lost <= epochs * STEPS
    assert newest(tmp_path) == trainer.global_step == 5 * STEPS
    if saver == "all":
        assert len(list(tmp_path.glob("epoch=[13]-step=*.ckpt"))) == 2


@pytest.mark.parametrize("saver", ["plain", "every second", "best"])
def test_without_validation_images_it_is_the_same(toys, make_trainer, tmp_path, saver):
    options, epochs = SAVERS[saver]
    _, _, lost = train(
        toys, make_trainer, tmp_path, options, data=nothing_to_validate(toys), max_epochs=5,
        check_val_every_n_epoch=2,
    )  # fmt: skip
    assert (lost <= epochs * STEPS, newest(tmp_path)) == (True, 25)


@pytest.mark.parametrize("monitor", [None, "val/score"])
def test_steps_between_validations(toys, make_trainer, tmp_path, scored, monitor):
    options = {"every_n_train_steps": 3, "monitor": monitor}
    _, _, lost = train(
        toys, make_trainer, tmp_path, options, module=scored(), max_epochs=4,
        check_val_every_n_epoch=3,
    )  # fmt: skip
    assert (lost, newest(tmp_path)) == (2, 20)


@pytest.mark.parametrize(
    "settings", [{"max_steps": 7}, {"max_steps": 10}, {"max_epochs": 1}, {"max_steps": 1}]
)
@pytest.mark.parametrize("saver", ["plain", "best"])
def test_the_end_is_saved_and_can_be_gone_on_from(
    toys, make_trainer, tmp_path, scored, settings, saver
):
    options = {**SAVERS[saver][0], "every_n_epochs": 10}
    settings = {"max_epochs": -1, "check_val_every_n_epoch": 2, **settings}
    trainer, first, _ = train(
        toys, make_trainer, tmp_path / "a", options, module=scored(), **settings
    )
    (path,) = (tmp_path / "a").glob("*.ckpt")
    assert path.name == "last.ckpt"
    assert newest(path.parent) == trainer.global_step
    end = {**settings, "max_epochs": 4, "max_steps": -1}
    same = {"module": scored(), "ckpt_path": path}
    _, second, _ = train(toys, make_trainer, tmp_path / "b", options, **same, **end)
    # Lightning counts an epoch that max_steps cuts short as one that is over
    left = 4 - -(-trainer.global_step // STEPS)
    assert (len(first.losses), len(second.losses)) == (trainer.global_step, left * STEPS)
    assert newest(tmp_path / "b") == trainer.global_step + left * STEPS


def test_a_file_of_another_run_is_kept(toys, make_trainer, tmp_path):
    tmp_path.joinpath("last.ckpt").write_bytes(b"theirs")
    options = {"monitor": "val/none", "save_last": True}
    saver = ModelCheckpoint(tmp_path, **options)
    trainer = make_trainer(callbacks=[saver, LastCheckpoint()], enable_checkpointing=True)
    trainer.fit(toys.ToyModule(), nothing_to_validate(toys))
    assert tmp_path.joinpath("last.ckpt").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.glob("last-*")] == ["last-v1.ckpt"]
    # a resumed run goes on with its own
    saver = ModelCheckpoint(tmp_path, **options)
    trainer = make_trainer(
        callbacks=[saver, LastCheckpoint()], enable_checkpointing=True, max_epochs=4
    )
    path = tmp_path / "last-v1.ckpt"
    trainer.fit(toys.ToyModule(), nothing_to_validate(toys), ckpt_path=path)
    assert [p.name for p in tmp_path.glob("last-*")] == [path.name]
    assert torch.load(path, weights_only=False)["global_step"] == 20


def test_several_callbacks_write_no_more_than_is_needed(toys, make_trainer, tmp_path, scored):
    best = ModelCheckpoint(tmp_path, "best", monitor="val/score", mode="max")
    often = ModelCheckpoint(tmp_path, "often", every_n_train_steps=2, enable_version_counter=False)
    trainer = make_trainer(
        callbacks=[best, often, LastCheckpoint()], enable_checkpointing=True, max_epochs=2
    )
    trainer.fit(scored(), toys.ToyData())
    names = {path.name: torch.load(path, weights_only=False) for path in tmp_path.glob("*")}
    steps = {name: one["global_step"] for name, one in names.items()}
    assert steps == {"best.ckpt": 5, "often.ckpt": 10}


@pytest.mark.parametrize("options", [{"save_weights_only": True}, {"save_top_k": 0}])
def test_what_was_chosen_on_purpose_is_left(toys, make_trainer, tmp_path, options):
    train(toys, make_trainer, tmp_path, options)
    assert newest(tmp_path) == 0


@pytest.mark.parametrize("command", ["fit", "test"])
def test_alone_it_is_refused(toys, make_trainer, command):
    """Lightning adds no callback of its own beside it, so that nothing would be saved."""
    trainer = make_trainer(callbacks=[LastCheckpoint()], enable_checkpointing=True)
    with pytest.raises(InputError, match="LastCheckpoint needs a ModelCheckpoint before it"):
        getattr(trainer, command)(toys.ToyModule(), toys.ToyData())


def test_a_link_to_the_best_is_replaced_and_not_written_through(
    toys, make_trainer, tmp_path, scored
):
    options = {**SAVERS["best"][0], "save_last": "link"}
    _, _, lost = train(toys, make_trainer, tmp_path, options, module=scored(), max_epochs=3)
    steps = {
        path.name: torch.load(path, weights_only=False)["global_step"]
        for path in tmp_path.glob("*.ckpt")
    }
    assert (steps, lost <= STEPS) == ({"best.ckpt": 5, "last.ckpt": 15}, True)


def test_last_is_never_older_than_the_best(toys, make_trainer, tmp_path):
    class Uneven(toys.ToyModule):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", [3.0, 1.0, 4.0][self.current_epoch])

    train(toys, make_trainer, tmp_path, SAVERS["best"][0], module=Uneven(), max_epochs=3)
    for name in ("best", "last"):
        path = tmp_path / f"{name}.ckpt"
        assert torch.load(path, weights_only=False)["global_step"] == 15, name
