from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.callbacks import (
    KNNEvaluator,
    LinearProbeEvaluator,
    LowShotEvaluator,
    RepresentationEvaluator,
    extract_features,
)
from lit_ssl.metrics import draw_labelled, knn_predict, low_shot_accuracies


def expected_features(module, dataset, data):
    module.eval()
    with torch.no_grad():
        return module(data.normalise(dataset.images))


def test_knn_and_low_shot_equal_a_computation_by_hand(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    trainer = make_trainer(callbacks=[KNNEvaluator(k=3), LowShotEvaluator(shots=(1, 2), draws=2)])
    trainer.fit(module, data)
    bank, queries = (expected_features(module, d, data) for d in (data.bank, data.val))
    ranked = knn_predict(bank, data.bank.labels, queries, 4, k=3)
    accuracy = (ranked[:, 0] == data.val.labels).float().mean().item()
    assert trainer.callback_metrics["val/knn_acc1"].item() == pytest.approx(accuracy)
    supports = [draw_labelled(data.bank.labels, 2, seed) for seed in range(2)]
    values = torch.tensor(
        low_shot_accuracies(bank, data.bank.labels, queries, data.val.labels, 4, supports)
    )
    logged = trainer.callback_metrics
    assert logged["val/lowshot_2_acc1"].item() == pytest.approx(values.mean().item())
    assert logged["val/lowshot_2_std"].item() == pytest.approx(values.std().item(), abs=1e-6)


def test_features_of_an_evaluation_are_computed_once(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    evaluators = [KNNEvaluator(), KNNEvaluator(k=1), LowShotEvaluator(draws=1)]
    trainer = make_trainer(callbacks=evaluators, max_epochs=3, limit_train_batches=1)
    trainer.fit(module, data)
    assert data.bank_passes == 3
    training, validation, bank, queries = 3, 3 * 3, 3 * 6, 3 * 3
    assert module.forwards == training + validation + bank + queries


def test_another_feature_method_is_another_set_of_features(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    seen = {}

    class Widths(RepresentationEvaluator):
        def evaluate(self, trainer, pl_module, split):
            queries = self.labelled(trainer, pl_module, split)
            seen[self.feature_method] = queries.features.shape[1]
            return {}

    callbacks = [Widths(), Widths(feature_method="doubled")]
    make_trainer(callbacks=callbacks).validate(module, data, verbose=False)
    assert seen == {"forward": 16, "doubled": 32}


class Spy(RepresentationEvaluator):
    """Breaks a little of everything that an extraction must leave as it was."""

    def evaluate(self, trainer, pl_module, split):
        pl_module.linear.train()  # a user's odd but legal state inside evaluation
        before = {name: part.training for name, part in pl_module.named_modules()}
        running = pl_module.norm.running_mean.clone()
        state = torch.get_rng_state()
        extract_features(trainer, pl_module, "bank")
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(pl_module.norm.running_mean, running)
        assert {name: part.training for name, part in pl_module.named_modules()} == before
        assert not any(p.grad is not None and p.grad.requires_grad for p in pl_module.parameters())
        return {"ok": 1.0}


def test_extraction_leaves_modes_statistics_and_random_state_alone(toys, make_trainer):
    trainer = make_trainer(callbacks=[Spy()], max_epochs=1)
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert trainer.callback_metrics["val/ok"] == 1


def test_training_is_the_same_with_and_without_evaluators(toys, make_trainer):
    losses = []
    for callbacks in ([], [KNNEvaluator(), LowShotEvaluator(draws=1)]):
        pl.seed_everything(0, verbose=False)
        module = toys.ToyModule()
        make_trainer(callbacks=callbacks).fit(module, toys.ToyData())
        losses.append(module.losses)
    assert losses[0] == losses[1]


def test_evaluation_is_due_every_n_epochs_after_the_last_and_never_in_sanity(toys, make_trainer):
    epochs = []

    class Note(RepresentationEvaluator):
        def evaluate(self, trainer, pl_module, split):
            epochs.append((trainer.state.fn.value, trainer.current_epoch))
            return {}

    trainer = make_trainer(callbacks=[Note(every_n_epochs=2)], max_epochs=5, num_sanity_val_steps=1)
    module, data = toys.ToyModule(), toys.ToyData()
    trainer.fit(module, data)
    trainer.validate(module, data, verbose=False)
    assert epochs == [("fit", 1), ("fit", 3), ("fit", 4), ("validate", 5)]


def test_test_and_a_later_checkpoint_are_not_served_stale_features(toys, make_trainer, tmp_path):
    module, data = toys.ToyModule(), toys.ToyData()
    trainer = make_trainer(callbacks=[KNNEvaluator(k=1)])
    trainer.fit(module, data)
    trained = trainer.test(module, data, verbose=False)[0]["test/knn_acc1"]
    with torch.no_grad():
        module.linear.weight.zero_()
        module.linear.bias.zero_()
    ruined = trainer.test(module, data, verbose=False)[0]["test/knn_acc1"]
    assert trained > 0.8
    assert ruined < 0.5


def test_checkpoints_can_be_chosen_by_the_logged_value(toys, make_trainer, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/knn_acc1", mode="max")
    trainer = make_trainer(callbacks=[KNNEvaluator(), checkpoint], enable_checkpointing=True)
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert checkpoint.best_model_score is not None


def test_acc5_appears_from_ten_classes_on(toys, make_trainer):
    for classes, expected in ((4, False), (10, True)):
        trainer = make_trainer(callbacks=[KNNEvaluator(num_classes=classes)])
        trainer.validate(toys.ToyModule(), toys.ToyData(), verbose=False)
        assert ("val/knn_acc5" in trainer.callback_metrics) is expected


def test_unlabelled_samples_are_left_out(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    data.bank.labels[::2] = -1
    data.val.labels[:5] = -1
    sizes = {}

    class Count(RepresentationEvaluator):
        def evaluate(self, trainer, pl_module, split):
            for part in ("bank", split):
                sizes[part] = len(self.labelled(trainer, pl_module, part).labels)
            return {}

    make_trainer(callbacks=[Count()]).validate(module, data, verbose=False)
    assert sizes == {"bank": 20, "val": 8}


def test_fast_dev_run_touches_one_batch_of_the_bank(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    trainer = make_trainer(callbacks=[KNNEvaluator(), LowShotEvaluator()], fast_dev_run=True)
    trainer.fit(module, data)
    assert module.forwards == 1 + 1 + 1 + 1  # train, validation, bank, queries
    assert "val/lowshot_5_acc1" in trainer.callback_metrics


def test_limit_val_batches_limits_the_queries_but_not_the_bank(toys, make_trainer):
    module = toys.ToyModule()
    trainer = make_trainer(callbacks=[KNNEvaluator()], limit_val_batches=1)
    trainer.validate(module, toys.ToyData(), verbose=False)
    assert module.forwards == 1 + 6 + 1


def test_bf16_features_are_evaluated_in_float32(toys, make_trainer):
    kinds = []

    class Kind(RepresentationEvaluator):
        def evaluate(self, trainer, pl_module, split):
            kinds.append(self.labelled(trainer, pl_module, split).features)
            return {}

    module, data = toys.ToyModule(), toys.ToyData()
    make_trainer(callbacks=[Kind()]).validate(module, data, verbose=False)
    make_trainer(callbacks=[Kind()], precision="bf16-mixed").validate(module, data, verbose=False)
    exact, rounded = kinds
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)  # autocast was on
    torch.testing.assert_close(exact, rounded, rtol=0.02, atol=0.02)


def test_warning_names_classes_that_are_too_small_for_the_protocol(toys, make_trainer):
    data = toys.ToyData(train=9)
    trainer = make_trainer(callbacks=[LowShotEvaluator(shots=(3,))])
    with pytest.warns(UserWarning, match="3 classes of the bank have fewer than 3 labelled"):
        trainer.validate(toys.ToyModule(), data, verbose=False)


def test_missing_bank_is_named_before_training(toys, make_trainer):
    class NoBank(toys.ToyData):
        bank_dataloader = None

    module = toys.ToyModule()
    with pytest.raises(AttributeError, match=r"data module NoBank has no bank_dataloader\(\)"):
        make_trainer(callbacks=[KNNEvaluator()]).fit(module, NoBank())
    assert module.forwards == 0


def test_missing_class_count_method_and_labels_are_named(toys, make_trainer):
    class NoClasses(toys.ToyData):
        num_classes = None

    module = toys.ToyModule()
    with pytest.raises(AttributeError, match="NoClasses has no num_classes, so the data counts as"):
        make_trainer(callbacks=[KNNEvaluator()]).fit(module, NoClasses())
    with pytest.raises(AttributeError, match="module ToyModule has no method 'tokens'"):
        make_trainer(callbacks=[KNNEvaluator(feature_method="tokens")]).fit(module, toys.ToyData())
    with pytest.raises(ValueError, match="all 41 labels of the bank split are −1"):
        make_trainer(callbacks=[KNNEvaluator()]).fit(module, toys.ToyData(labelled=False))
    with pytest.raises(ValueError, match="bank split has label 3 but num_classes is 3"):
        make_trainer(callbacks=[KNNEvaluator(num_classes=3)]).fit(module, toys.ToyData())


def test_evaluators_are_off_for_data_without_classes(toys, make_trainer):
    class Unlabelled(toys.ToyData):
        num_classes = 0

    callbacks = [KNNEvaluator(), LowShotEvaluator(), LinearProbeEvaluator()]
    trainer = make_trainer(callbacks=callbacks, max_epochs=1)
    with pytest.warns(UserWarning, match="is off: Unlabelled has no classes") as caught:
        trainer.fit(toys.ToyModule(), Unlabelled(labelled=False))
    told = [str(w.message).split()[0] for w in caught if " is off: " in str(w.message)]
    assert told == ["KNNEvaluator", "LowShotEvaluator", "LinearProbeEvaluator"]
    assert trainer.callback_metrics == {}
    with pytest.raises(ValueError, match="all 41 labels of the bank split are −1"):
        make_trainer(callbacks=[KNNEvaluator(num_classes=4)]).fit(
            toys.ToyModule(), Unlabelled(labelled=False)
        )


def test_features_of_a_wrong_shape_and_bare_images_are_named(toys, make_trainer):
    class Spatial(toys.ToyModule):
        def forward(self, images):
            return images

        def training_step(self, batch, batch_idx):
            return None

    class Bare(toys.ToyData):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return super().on_after_batch_transfer(batch, dataloader_idx)[0]

    class Lenient(toys.ToyModule):
        def validation_step(self, batch, batch_idx):
            pass

    with pytest.raises(ValueError, match=r"expected features \[7, D\] for Tensor\[7, 1, 8, 8\]"):
        make_trainer(callbacks=[KNNEvaluator()]).validate(Spatial(), toys.ToyData(), verbose=False)
    with pytest.raises(ValueError, match=r"needs labelled bank batches .* got list\(Tensor"):
        make_trainer(callbacks=[KNNEvaluator()]).validate(Lenient(), Bare(), verbose=False)


def test_data_hooks_may_live_on_the_module(toys, make_trainer):
    data = toys.ToyData()

    class AllInOne(toys.ToyModule):
        num_classes = 4

        def val_dataloader(self):
            return data.val_dataloader()

        def bank_dataloader(self):
            return torch.utils.data.DataLoader(data.bank, batch_size=7)

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return data.on_after_batch_transfer(batch, dataloader_idx)

    trainer = make_trainer(callbacks=[KNNEvaluator()])
    trainer.validate(AllInOne(), verbose=False)
    assert trainer.callback_metrics["val/knn_acc1"] > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KNNEvaluator(k=0), "k >= 1"),
        (lambda: KNNEvaluator(temperature=0), "temperature > 0"),
        (lambda: KNNEvaluator(every_n_epochs=0), "every_n_epochs must be >= 1"),
        (lambda: LowShotEvaluator(shots=()), "shots >= 1"),
        (lambda: LowShotEvaluator(draws=0), "draws >= 1"),
        (lambda: LowShotEvaluator(l2=0), "l2 > 0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
