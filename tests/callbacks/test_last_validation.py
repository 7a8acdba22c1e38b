"""A fit is validated at its end, and says at its start what will never be evaluated."""

from __future__ import annotations

import warnings
from datetime import timedelta

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from lit_ssl.callbacks import (
    KNNEvaluator,
    LastValidation,
    LinearProbeEvaluator,
    LowShotEvaluator,
    SoftNNEvaluator,
)
from lit_ssl.errors import InputError


class Steps(pl.Callback):
    """The steps at which the run was validated, and those at which an evaluator measured."""

    def __init__(self):
        self.validated, self.epochs, self.values = [], [], {}

    def on_validation_end(self, trainer, pl_module):
        self.validated.append(trainer.global_step)
        self.epochs.append(trainer.current_epoch)
        for evaluator in trainer.callbacks:
            for name, step in getattr(evaluator, "measured", {}).items():
                if step == trainer.global_step:
                    self.values.setdefault(name, []).append(step)


class Stop(pl.Callback):
    """Stops after a batch, or when an epoch is over."""

    def __init__(self, step=None, epoch=None):
        self.step, self.epoch = step, epoch

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop |= trainer.global_step == self.step

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop |= trainer.current_epoch == self.epoch


ENDS = [
    # settings, callbacks, steps at which it is validated (5 in an epoch)
    ({"max_epochs": 4, "check_val_every_n_epoch": 10}, [], [20]),
    ({"max_epochs": 4, "check_val_every_n_epoch": 3}, [], [15, 20]),
    ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [], [10, 20]),
    ({"max_epochs": -1, "max_steps": 7}, [], [5, 7]),
    ({"max_epochs": -1, "max_steps": 10}, [], [5, 10]),
    ({"max_epochs": -1, "max_steps": 7, "check_val_every_n_epoch": 3}, [], [7]),
    ({"max_epochs": 2, "val_check_interval": 2}, [], [2, 4, 7, 9, 10]),
    ({"max_epochs": 2, "val_check_interval": 4, "check_val_every_n_epoch": None}, [], [4, 8, 10]),
    ({"max_epochs": 9, "check_val_every_n_epoch": 5}, [Stop(step=8)], [8]),
    ({"max_epochs": 9, "check_val_every_n_epoch": 5}, [Stop(epoch=1)], [10]),
    ({"max_epochs": 9, "check_val_every_n_epoch": 5}, [Stop(epoch=4)], [25]),
    ({"max_epochs": 3, "accumulate_grad_batches": 2, "check_val_every_n_epoch": 2}, [], [6, 9]),
]


@pytest.mark.parametrize(("settings", "callbacks", "steps"), ENDS)
@pytest.mark.parametrize("by", ["callback", "evaluator"])
def test_the_end_is_validated(toys, make_trainer, settings, callbacks, steps, by):
    seen = Steps()
    added = LastValidation() if by == "callback" else KNNEvaluator()
    trainer = make_trainer(callbacks=[added, *callbacks, seen], **settings)
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert seen.validated == steps
    assert trainer.global_step == steps[-1]
    if "val_check_interval" not in settings and "max_steps" not in settings:
        per_epoch = 3 if "accumulate_grad_batches" in settings else 5
        assert seen.epochs == [(step - 1) // per_epoch for step in steps]


def test_the_end_by_time_is_validated(toys, make_trainer):
    seen = Steps()
    timer = Timer(duration=timedelta(0), interval="step")
    timer.on_fit_start = lambda *args: None  # else it ends before its first batch
    trainer = make_trainer(
        callbacks=[LastValidation(), seen, timer], max_epochs=9, check_val_every_n_epoch=4
    )
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert seen.validated == [1]


def test_the_trained_weights_are_those_without_the_last_validation(toys, make_trainer):
    def train(*callbacks):
        pl.seed_everything(0)
        module = toys.ToyModule()
        make_trainer(callbacks=list(callbacks), max_epochs=3, check_val_every_n_epoch=2).fit(
            module, toys.ToyData()
        )
        return module.state_dict()

    plain, validated = train(), train(LastValidation(), KNNEvaluator())
    assert all(torch.equal(plain[name], validated[name]) for name in plain)


@pytest.mark.parametrize("saved", ["after validation", "after the epoch"])
def test_a_run_goes_on_from_its_last_validation_as_if_it_had_not_ended(toys, make_trainer, saved):
    """Also where a longer run would not have been validated there."""

    def train(epochs, ckpt_path=None):
        pl.seed_everything(0)
        module, seen = toys.ToyModule(), Steps()
        saver = ModelCheckpoint(save_on_train_epoch_end=saved == "after the epoch")
        trainer = make_trainer(
            callbacks=[LastValidation(), seen, saver], max_epochs=epochs,
            check_val_every_n_epoch=4, enable_checkpointing=True,
        )  # fmt: skip
        trainer.fit(module, toys.ToyData(), ckpt_path=ckpt_path)
        return trainer.global_step, seen.validated, module.losses, saver.best_model_path

    _, validated, first, path = train(2)
    assert validated == [10]
    steps, validated, second, _ = train(6, path)
    assert (steps, validated, len(first + second)) == (30, [20, 30], 30)


MONITORED = [
    (KNNEvaluator, "val/knn_acc1"),
    (LinearProbeEvaluator, "val/linear_acc1"),
    (LowShotEvaluator, "val/lowshot_2_acc1"),
    (SoftNNEvaluator, "val/soft_nn_acc1"),
]


@pytest.mark.parametrize(("evaluator", "name"), MONITORED)
@pytest.mark.parametrize("epochs", [4, 5])
def test_a_checkpoint_waits_for_the_values_that_it_monitors(
    toys, make_trainer, tmp_path, evaluator, name, epochs
):
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor=name, mode="max", save_top_k=-1)
    seen = Steps()
    trainer = make_trainer(
        callbacks=[evaluator(every_n_epochs=2), saver, seen], max_epochs=epochs,
        enable_checkpointing=True,
    )  # fmt: skip
    trainer.fit(toys.ToyModule(), toys.ToyData())
    measured = [1, 3] if epochs == 4 else [1, 3, 4]  # the end is always evaluated
    assert seen.values[name] == [5 * (epoch + 1) for epoch in measured]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [
        f"epoch={epoch}.ckpt" for epoch in measured
    ]


def test_early_stopping_counts_measurements(toys, make_trainer):
    """Values are worse from the start on: it stops at the second one after the first."""

    class Worse(KNNEvaluator):
        def evaluate(self, trainer, pl_module, split):
            return {"mine": -float(trainer.global_step)}

    seen = Steps()
    stopper = EarlyStopping("val/mine", mode="max", patience=2)
    trainer = make_trainer(callbacks=[Worse(every_n_epochs=3), stopper, seen], max_epochs=30)
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert seen.values["val/mine"] == [15, 30, 45]
    assert trainer.current_epoch == 9


def test_a_wrong_name_is_still_an_error(toys, make_trainer):
    stopper = EarlyStopping("val/knn_acc2", mode="max")
    trainer = make_trainer(callbacks=[KNNEvaluator(), stopper])
    with pytest.raises(RuntimeError, match="val/knn_acc2"):
        trainer.fit(toys.ToyModule(), toys.ToyData())


def test_a_wrong_name_is_an_error_as_soon_as_the_evaluators_have_run(toys, make_trainer):
    stopper = EarlyStopping("val/knn_acc2", mode="max")
    trainer = make_trainer(callbacks=[KNNEvaluator(every_n_epochs=2), stopper], max_epochs=9)
    with pytest.raises(RuntimeError, match="val/knn_acc2"):
        trainer.fit(toys.ToyModule(), toys.ToyData())
    assert trainer.current_epoch == 1


def test_an_early_stop_is_evaluated_though_no_evaluation_was_due(toys, make_trainer):
    class Logs(toys.ToyModule):
        def validation_step(self, batch, batch_idx):
            self.log("val/same", 1.0)
            return super().validation_step(batch, batch_idx)

    seen = Steps()
    stopper = EarlyStopping("val/same", patience=2)
    trainer = make_trainer(
        callbacks=[KNNEvaluator(every_n_epochs=50), stopper, seen], max_epochs=99
    )
    trainer.fit(Logs(), toys.ToyData())
    assert trainer.current_epoch == 3
    assert seen.values["val/knn_acc1"] == [15]


class NoStep(pl.LightningModule):
    """Trains, and cannot be validated."""

    embed_dim = 4

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 4)

    def forward(self, images):
        return self.layer(images.flatten(1))

    def training_step(self, batch, batch_idx):
        return {"loss": self(batch[0]).square().mean(), "features": self(batch[0]).detach()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lines_of(trainer, module, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, data)
    texts = [str(w.message) for w in caught]
    return [text for text in texts if "this fit" in text]


def without_images(toys):
    data = toys.ToyData()
    data.val_dataloader = lambda: []
    return data


def test_what_never_runs_is_said_once_with_its_reason(toys, make_trainer, tmp_path):
    def lines(module, data, **settings):
        saver = ModelCheckpoint(tmp_path / "saved", monitor="val/knn_acc1")
        callbacks = [LastValidation(), KNNEvaluator(), LowShotEvaluator(), saver]
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, **settings)
        return lines_of(trainer, module, data)

    never = ". Never runs: KNNEvaluator, LowShotEvaluator, ModelCheckpoint(monitor='val/knn_acc1')"
    start = "nothing is validated in this fit: "
    assert lines(NoStep(), toys.ToyData()) == [f"{start}NoStep has no validation_step{never}"]
    assert lines(toys.ToyModule(), without_images(toys)) == [
        f"{start}there are no validation data in ToyData{never}"
    ]
    assert lines(toys.ToyModule(), toys.ToyData(), limit_val_batches=0) == [
        f"{start}limit_val_batches is 0{never}"
    ]
    assert lines(toys.ToyModule(), toys.ToyData()) == []
    assert lines(toys.ToyModule(), toys.ToyData(), check_val_every_n_epoch=9) == [
        "this fit is validated only at its end: check_val_every_n_epoch is 9, and it ends in "
        "epoch 2"
    ]


def test_intervals_that_do_not_meet_are_said(toys, make_trainer):
    def lines(every, **settings):
        trainer = make_trainer(callbacks=[KNNEvaluator(every_n_epochs=every)], **settings)
        return lines_of(trainer, toys.ToyModule(), toys.ToyData())

    assert lines(2, max_epochs=5, check_val_every_n_epoch=3) == [
        "KNNEvaluator runs only at the end of this fit: its every_n_epochs (2) and "
        "check_val_every_n_epoch (3) first meet in epoch 6, and it ends in epoch 5"
    ]
    assert lines(2, max_epochs=6, check_val_every_n_epoch=3) == []
    assert lines(2, max_epochs=-1, max_steps=9, check_val_every_n_epoch=2) == []
    assert len(lines(3, max_epochs=-1, max_steps=9)) == 1


def test_nothing_is_said_where_nobody_waits(toys, make_trainer):
    trainer = make_trainer(callbacks=[LastValidation()], limit_val_batches=0)
    assert lines_of(trainer, toys.ToyModule(), toys.ToyData()) == []
    trainer = make_trainer(callbacks=[LastValidation()])
    assert len(lines_of(trainer, toys.ToyModule(), without_images(toys))) == 1


def test_early_stopping_without_validation_is_refused_before_training(toys, make_trainer):
    module = toys.ToyModule()
    trainer = make_trainer(callbacks=[LastValidation(), EarlyStopping("val/knn_acc1")])
    with pytest.raises(
        InputError,
        match="nothing is validated in this fit: there are no valid",
    ):
        trainer.fit(module, without_images(toys))
    assert module.losses == []


@pytest.mark.parametrize(("evaluator", "name"), MONITORED)
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_a_monitor_of_an_evaluator_that_is_off_is_refused_before_training(
    toys, make_trainer, tmp_path, evaluator, name, kind
):
    """Another evaluator of the kind may bring the value; there is one linear probe only."""
    data = toys.ToyData()
    data.num_classes = 0

    def fit(watcher, *others):
        module = toys.ToyModule()
        callbacks = [evaluator(), *others, ModelCheckpoint(tmp_path), watcher]
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=1)
        try:
            trainer.fit(module, data)
        finally:
            assert bool(module.losses) == bool(others)

    line = rf"{kind.__name__}\(monitor='{name}'\) waits for {evaluator.__name__}, which is off"
    with pytest.raises(InputError, match=line):
        fit(kind(monitor=name))
    if evaluator is not LinearProbeEvaluator:
        fit(kind(monitor=name), evaluator(num_classes=4))
