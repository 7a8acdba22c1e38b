"""A run that is stopped anywhere and resumed sees the batches of the uninterrupted run."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest


class SaveEverywhere(pl.Callback):
    """Saves after each batch, validation and epoch; the name tells how many batches were used."""

    def __init__(self, folder):
        self.folder = folder

    def _save(self, trainer, module, kind):
        trainer.save_checkpoint(self.folder / f"{len(module.seen):02d}-{kind}.ckpt")

    def on_train_batch_end(self, trainer, module, *args):
        self._save(trainer, module, "batch")

    def on_validation_end(self, trainer, module):
        self._save(trainer, module, "val")

    def on_train_epoch_end(self, trainer, module):
        self._save(trainer, module, "epoch")


def resume_all(folder, whole, resume, every=2):
    paths = sorted(folder.glob("*.ckpt"))
    assert len(paths) >= 30
    wrong = []
    for path in paths[::every]:
        done = int(path.name[:2])
        if resume(path).seen != whole.seen[done:]:
            wrong.append(path.name)
    assert wrong == []


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_every_checkpoint_continues_identically(tmp_path, toy, views, fit, augment):
    def make():
        return toy(train_transform=views, augment=augment)

    whole = fit(make(), callbacks=[SaveEverywhere(tmp_path)])
    assert len(whole.seen) == 30  # 43 // 4 batches, 3 epochs
    assert len({seen[2] for seen in whole.seen}) == 30
    resume_all(tmp_path, whole, lambda path: fit(make(), path))


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 4, "limit_val_batches": 1.0},
        {"limit_val_batches": 1.0},
        {"accumulate_grad_batches": 2},
        {"max_epochs": -1, "max_steps": 30},
        {"max_epochs": -1, "max_steps": 30, "limit_val_batches": 1.0},
        {"limit_train_batches": 7, "max_epochs": 5},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_checkpoint_continues_with(tmp_path, toy, views, fit, options):
    def make():
        return toy(train_transform=views)

    whole = fit(make(), callbacks=[SaveEverywhere(tmp_path)], **options)
    resume_all(tmp_path, whole, lambda path: fit(make(), path, **options), every=2)


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 7}], ids=str)
def test_every_checkpoint_continues_where_the_module_asks_for_the_number_of_steps(
    tmp_path, toy, views, fit, recorder, options
):
    class Planner(recorder):
        def configure_optimizers(self):
            assert self.trainer.estimated_stepping_batches > 0  # makes the training loader
            return super().configure_optimizers()

    def make():
        return toy(train_transform=views)

    options["max_epochs"] = 5
    whole = fit(make(), module=Planner(), callbacks=[SaveEverywhere(tmp_path)], **options)
    resume_all(tmp_path, whole, lambda path: fit(make(), path, module=Planner(), **options))


def test_evaluating_a_checkpoint_does_not_move_a_later_training(tmp_path, toy, views, fit):
    fit(toy(train_transform=views), callbacks=[SaveEverywhere(tmp_path)], max_epochs=1)
    data = toy(train_transform=views)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    module = fit(data, max_epochs=1)
    seen = list(module.seen)
    trainer.validate(module, datamodule=data, ckpt_path=tmp_path / "03-batch.ckpt", verbose=False)
    module.seen = []
    assert fit(data, module=module, max_epochs=1).seen == seen


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_workers_that_stay_alive(tmp_path, toy, views, fit, augment):
    def make(workers):
        return toy(train_transform=views, augment=augment, num_workers=workers)

    whole = fit(make(2), callbacks=[SaveEverywhere(tmp_path)])
    assert whole.seen == fit(make(0)).seen
    resume_all(tmp_path, whole, lambda path: fit(make(2), path), every=9)


def test_resumed_runs_can_be_resumed(tmp_path, toy, views, fit):
    options = {"max_epochs": -1, "max_steps": 40}

    def make():
        return toy(train_transform=views)

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    whole = fit(make(), callbacks=[SaveEverywhere(tmp_path / "first")], **options)
    second = fit(
        make(),
        tmp_path / "first" / "20-epoch.ckpt",
        callbacks=[SaveEverywhere(tmp_path / "second")],
        **options,
    )
    assert second.seen == whole.seen[20:]
    for name in ("04-batch", "10-batch", "10-epoch", "13-batch"):
        third = fit(make(), tmp_path / "second" / f"{name}.ckpt", **options)
        # Lightning itself counts an epoch twice here; the batches have to be the same ones.
        expected = [seen[1:] for seen in whole.seen[20 + int(name[:2]) :]]
        assert [seen[1:] for seen in third.seen] == expected, name


def test_batch_that_failed_comes_again(tmp_path, toy, views, fit, recorder):
    def make():
        return toy(train_transform=views, num_workers=1)

    whole = fit(make())
    broken = recorder()
    broken.fail_at = 14
    save = pl.callbacks.OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(make(), module=broken, callbacks=[save], enable_checkpointing=True)
    rest = fit(make(), tmp_path / "on_exception.ckpt")
    assert broken.seen + rest.seen == whole.seen


def test_changed_batch_size_warns(tmp_path, toy, views, fit):
    fit(toy(train_transform=views), callbacks=[SaveEverywhere(tmp_path)], max_epochs=1)
    with pytest.warns(UserWarning, match="batch_size 4 -> 5"):
        fit(toy(train_transform=views, batch_size=5), tmp_path / "03-batch.ckpt", max_epochs=1)


def test_each_epoch_has_another_order_and_other_views(toy, views, fit):
    seen = fit(toy(train_transform=views, batch_size=43), max_epochs=2).seen
    assert sorted(seen[0][1]) == sorted(seen[1][1])
    assert seen[0][1] != seen[1][1]
    other_seed = fit(toy(train_transform=views, batch_size=43, seed=1), max_epochs=1).seen
    assert other_seed[0][1] != seen[0][1]


def test_overfit_batches_runs_without_the_sampler(toy, views, fit):
    seen = fit(toy(train_transform=views), overfit_batches=2, max_epochs=2).seen
    assert [entry[1] for entry in seen] == [(0, 1, 2, 3)] * 4
