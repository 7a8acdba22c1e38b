"""Learning rates that the user sets, and lengths of a run that change after it was set up."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl import JTT, MSN, PAWS, PMSN, GroupRobustClassifier, ImageClassifier, RoPAWS, SuNCEt
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.methods import FineTuning, LinearEvaluation
from lit_ssl.methods.groups.attribute_predictor import AttributePredictor
from lit_ssl.models import SmallCNN
from lit_ssl.optim import Schedule, decay_groups
from lit_ssl.trainer.length import epochs_to_steps, total_steps

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
NET = {"stem_width": 4, "channels": [4, 8, 8, 16]}
BY_NAME = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": VIT}
MASKED = {**BY_NAME, "num_prototypes": 8, "proj_hidden_dim": 8, "proj_output_dim": 4}
CROPS = {"backbone": "resnet10t", "backbone_kwargs": NET, "num_classes": 3, "proj_output_dim": 8}
LABELS = torch.arange(6) % 3


def labelled():
    return torch.randn(6, 3, 16, 16), LABELS


def views():
    return [torch.randn(6, 2, 3, 16, 16)]


def two_streams():
    return {"unlabelled": (views(), LABELS), "support": (torch.randn(6, 3, 16, 16), LABELS)}


METHODS = {
    MSN: (MASKED, views),
    PMSN: (MASKED, views),
    PAWS: (CROPS, two_streams),
    RoPAWS: (CROPS, two_streams),
    SuNCEt: (CROPS, two_streams),
    ImageClassifier: ({**BY_NAME, "num_classes": 3}, labelled),
    FineTuning: ({**BY_NAME, "num_classes": 3}, labelled),
}


class Rates(pl.Callback):
    """Learning rate and weight decay of the first group in every step."""

    def __init__(self):
        self.lr, self.weight_decay = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lr.append(optimizer.param_groups[0]["lr"])
        self.weight_decay.append(optimizer.param_groups[0]["weight_decay"])


def loader(make, count):
    return DataLoader([make() for _ in range(count)], batch_size=None)


def groups_case(method, **kwargs):
    options = {"num_classes": 2, **kwargs}
    return method(backbone=SmallCNN(2), **options), ColouredMNISTDataModule(batch_size=64, seed=0)


def spied(method):
    """A method that notes the rates at which its optimizer really steps."""

    class Spied(method):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            self.seen = [*getattr(self, "seen", []), optimizer.param_groups[0]["lr"]]

    return Spied


# ------------------------------------------------------------- learning-rate finder


@pytest.mark.parametrize("method", METHODS)
def test_the_finder_reports_rates_that_were_used(tiny, method):
    options, make = METHODS[method]
    module = spied(method)(**options)
    found = Tuner(tiny.trainer(max_epochs=4)).lr_find(
        module, loader(make, 9), min_lr=1e-5, max_lr=1e-3, num_training=12,
        early_stop_threshold=None, update_attr=False,
    )  # fmt: skip
    assert module.seen[1:] == pytest.approx(found.results["lr"][1:])
    assert len(set(module.seen)) == 12


def test_the_finder_keeps_the_scales_of_layers(tiny):
    rates = []

    class Layers(FineTuning):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            rates.append([group["lr"] for group in optimizer.param_groups])

    module = Layers(**BY_NAME, num_classes=3, layer_decay=0.5)
    found = Tuner(tiny.trainer(max_epochs=4)).lr_find(
        module, loader(labelled, 9), min_lr=1e-5, max_lr=1e-3, num_training=6,
        early_stop_threshold=None, update_attr=False,
    )  # fmt: skip
    assert [step[-1] for step in rates] == pytest.approx(found.results["lr"])
    assert [step[0] for step in rates] == pytest.approx([lr / 4 for lr in found.results["lr"]])


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_finder_with_groups(tiny, schedule):
    module, data = groups_case(spied(GroupRobustClassifier), lr_schedule=schedule)
    trainer = tiny.trainer(max_epochs=1)
    found = Tuner(trainer).lr_find(
        module, datamodule=data, num_training=5, early_stop_threshold=None, update_attr=False
    )
    assert module.seen[1:] == pytest.approx(found.results["lr"][1:])


def test_the_finder_would_try_rates_on_the_wrong_network(tiny):
    module, data = groups_case(JTT, first_epochs=1)
    with pytest.raises(InputError, match=r"network of JTT .*with GroupRobustClassifier"):
        Tuner(tiny.trainer(max_epochs=2)).lr_find(module, datamodule=data, num_training=3)


@pytest.mark.parametrize("method", [MSN, PAWS, ImageClassifier])
def test_a_fit_peaks_at_the_rate_that_its_finder_found(tiny, method):
    """The callback finds it when the schedule may already have been laid out."""
    options, make = METHODS[method]
    module = method(**options, warmup_epochs=1, lr=5.0)
    finder = LearningRateFinder(num_training_steps=30, early_stop_threshold=None)
    rates = Rates()
    trainer = tiny.trainer(max_epochs=3, callbacks=[finder, rates])
    trainer.fit(module, loader(make, 12))
    assert module.lr == finder.optimal_lr.suggestion() != 5.0
    assert rates.lr[11 if method is MSN else 12] == pytest.approx(module.lr)


def test_schedules_keep_their_length_while_a_rate_is_searched_for(tiny):
    lengths = []

    class Look(MSN):
        def training_step(self, batch, batch_idx):
            lengths.append(total_steps(self.trainer))
            return super().training_step(batch, batch_idx)

    trainer = tiny.trainer(max_epochs=5)
    Tuner(trainer).lr_find(Look(**MASKED), loader(views, 9), num_training=4, update_attr=False)
    assert set(lengths) == {45}


# ------------------------------------------------------- a subclass's own optimisation


@pytest.mark.parametrize("method", METHODS)
def test_a_scheduler_of_a_subclass_has_the_last_word(tiny, method):
    class Own(method):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            for group in optimizer.param_groups:
                group["lr"] = 0.5
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    options, make = METHODS[method]
    rates = Rates()
    module = Own(**options, weight_decay=0.25)
    trainer = tiny.trainer(callbacks=[rates])
    trainer.fit(module, loader(make, 4))
    assert rates.lr == [0.5, 0.25, 0.125, 0.0625]
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] >= 0.25  # still the method's
    if "train/lr" in trainer.callback_metrics:
        assert float(trainer.callback_metrics["train/lr"]) == 0.0625


@pytest.mark.parametrize("method", METHODS)
def test_a_scheduler_of_a_subclass_starts_from_lr(tiny, method):
    """Not from the rate of the method's own first step, which begins a warm-up."""

    class Own(method):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    options, make = METHODS[method]
    rates = Rates()
    tiny.trainer(callbacks=[rates]).fit(Own(**options, lr=0.5, start_lr=0.125), loader(make, 2))
    assert rates.lr == [0.5, 0.25]


def test_a_scheduler_of_a_subclass_keeps_the_scales_of_layers(tiny):
    class Own(FineTuning):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 9)]

    trainer = tiny.trainer(max_epochs=2)
    for _ in range(2):  # a second fit finds the scheduler of the first
        module = Own(**BY_NAME, num_classes=3, layer_decay=0.5, lr=1.0)
        trainer.fit_loop.epoch_progress.reset()
        trainer.fit(module, loader(labelled, 2))
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        assert (rates[0], rates[-1]) == (0.125, 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_an_optimizer_of_a_subclass_keeps_its_values(tiny, method, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")

    class Own(method):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0625, weight_decay=0.5)

    options, make = METHODS[method]
    rates = Rates()
    tiny.trainer(callbacks=[rates]).fit(Own(**options), loader(make, 3))
    assert rates.lr == [0.0625] * 3
    assert rates.weight_decay == [0.5] * 3
    assert caplog.text.count("keeps its learning rate and weight decay") == 1  # and says so


def test_an_optimizer_of_a_subclass_on_our_groups_follows_the_schedules(tiny):
    class Own(MSN):
        def configure_optimizers(self):
            return torch.optim.RAdam(decay_groups(self.named_parameters(), 0.1), lr=9.0)

    rates = Rates()
    module = Own(**MASKED, warmup_epochs=0)
    tiny.trainer(callbacks=[rates]).fit(module, loader(views, 4))
    assert rates.lr == pytest.approx([Schedule(0, 1e-3, 1e-6, 5)(step) for step in (1, 2, 3, 4)])
    assert rates.weight_decay[0] > 0.04


def test_the_factory_of_an_optimizer_may_make_groups_of_its_own(tiny):
    def flat(groups):
        return torch.optim.SGD([p for group in groups for p in group["params"]], lr=9.0)

    rates = Rates()
    module = MSN(**MASKED, optimizer=flat, warmup_epochs=0)
    tiny.trainer(callbacks=[rates]).fit(module, loader(views, 4))
    assert max(rates.lr) < 1e-3


def test_own_optimisation_with_groups_and_with_heads(tiny):
    class Robust(GroupRobustClassifier):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 9)]

    class Heads(LinearEvaluation):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 9)]

    rates = Rates()
    module, data = groups_case(Robust, lr=0.5, lr_schedule="linear")
    tiny.trainer(callbacks=[rates], limit_train_batches=3).fit(module, datamodule=data)
    assert rates.lr == [0.25] * 3
    rates = Rates()
    module = Heads(**BY_NAME, num_classes=3)
    tiny.trainer(callbacks=[rates]).fit(module, loader(labelled, 3))
    assert rates.lr == [0.5] * 3


def test_the_first_network_alone_has_no_schedule(tiny):
    class Own(AttributePredictor):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 9)]

    rates = Rates()
    module, data = groups_case(Own, lr=0.5)
    tiny.trainer(callbacks=[rates], limit_train_batches=2).fit(module, datamodule=data)
    assert rates.lr == [0.25] * 2


@pytest.mark.parametrize("method", [MSN, ImageClassifier, FineTuning, GroupRobustClassifier])
def test_what_a_callback_unfreezes_keeps_the_weight_decay(tiny, method):
    unfreeze = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)
    trainer = tiny.trainer(max_epochs=2, limit_train_batches=1, callbacks=[unfreeze])
    if method is GroupRobustClassifier:
        module, source = groups_case(method, weight_decay=0.25)
        trainer.fit(module, datamodule=source)
    else:
        options, make = METHODS[method]
        trainer.fit(method(**options, weight_decay=0.25), loader(make, 1))
    added = trainer.optimizers[0].param_groups[-1]
    assert (added["lr"], added["weight_decay"]) == (1e-3, 0.25)


# --------------------------------------------------------------- lengths of a run


def length_of(tiny, batches, method=MSN, **kwargs):
    """What the schedules take for the length in every step, and the steps that were made."""
    seen = []

    class Look(method):
        def training_step(self, batch, batch_idx):
            seen.append((total_steps(self.trainer), epochs_to_steps(self.trainer, 1.5, "x")))
            return super().training_step(batch, batch_idx)

    options, make = METHODS[method]
    trainer = tiny.trainer(**kwargs)
    trainer.fit(Look(**options), loader(make, batches))
    return set(seen), trainer.global_step


@pytest.mark.parametrize("batches", [7, 8])
def test_accumulation_that_changes_counts_in_the_length(tiny, batches):
    accumulation = GradientAccumulationScheduler({0: 4, 2: 2})
    lengths, made = length_of(tiny, batches, max_epochs=4, callbacks=[accumulation])
    assert lengths == {(made, 3.0)}
    assert made == 2 * 2 + 2 * 4


def test_the_epoch_that_weight_averaging_adds_does_not_count(tiny):
    """It trains nothing: BatchNorm looks at the images once more."""
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=3)
    found = []

    class Look(PAWS):
        def training_step(self, batch, batch_idx):
            found.append((self.trainer.current_epoch, total_steps(self.trainer)))
            return super().training_step(batch, batch_idx)

    trainer = tiny.trainer(max_epochs=4, callbacks=[averaging])
    trainer.fit(Look(**CROPS), loader(two_streams, 2))
    assert {length for epoch, length in found if epoch < 4} == {8}
    assert max(found)[0] == 4  # there was one more


def test_the_shorter_of_epochs_and_steps_is_the_length(tiny):
    assert length_of(tiny, 5, max_epochs=2, max_steps=7) == ({(7, 7.5)}, 7)
    assert length_of(tiny, 5, max_epochs=2, max_steps=70) == ({(10, 7.5)}, 10)
    assert length_of(tiny, 5, max_epochs=2, accumulate_grad_batches=3) == ({(4, 3.0)}, 4)


def test_a_batch_size_found_at_the_start_counts_in_the_length(tiny):
    class Data(pl.LightningDataModule):
        batch_size = 2

        def train_dataloader(self):
            images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 3
            return DataLoader(TensorDataset(images, labels), batch_size=self.batch_size)

        val_dataloader = train_dataloader

    rates = Rates()
    module = ImageClassifier(**BY_NAME, num_classes=3, warmup_epochs=1, final_lr=0.0)
    finder = BatchSizeFinder(mode="power", steps_per_trial=1, init_val=2, max_trials=3)
    data = Data()
    trainer = tiny.trainer(max_epochs=2, callbacks=[finder, rates])
    trainer.fit(module, datamodule=data)
    assert data.batch_size == 8
    expected = [Schedule(0.01, 0.1, 0.0, 16, 8)(step) for step in range(16)]
    assert rates.lr[-16:] == pytest.approx(expected)


def test_lengths_are_those_of_the_reference(tiny):
    """``int(1.25 * steps)`` for rate and weight decay; momentum and temperature do not round."""
    rates = Rates()
    module = MSN(**MASKED, warmup_epochs=0.5)
    trainer = tiny.trainer(max_epochs=2, callbacks=[rates])
    trainer.fit(module, loader(views, 5))
    lr, decay = Schedule(2e-4, 1e-3, 1e-6, 12, 2), Schedule(0.0, 0.04, 0.4, 12)
    assert rates.lr == pytest.approx([lr(step) for step in range(1, 11)], rel=1e-12)
    assert rates.weight_decay == pytest.approx([decay(step) for step in range(1, 11)], rel=1e-12)
    assert module.ema_decay_at(10) == pytest.approx(0.996 + 0.004 * 10 / 12.5, rel=1e-12)
