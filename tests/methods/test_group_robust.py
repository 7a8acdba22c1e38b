"""Group-robust classification: the baselines as options, and what the data must have."""

from __future__ import annotations

import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lit_ssl import JTT, GroupRobustClassifier
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.groups.weights import balanced_weights, drawn_groups, subsample_weights
from lit_ssl.losses import GroupDROLoss
from lit_ssl.models import SmallCNN, TextBackbone
from lit_ssl.strategies import LocalSGDStrategy

GROUPS = np.array([0, 0, 0, 0, 1, 1, 3, -1])


def digits(**kwargs):
    return ColouredMNISTDataModule(**{"batch_size": 64, "seed": 0, **kwargs})


def classifier(**kwargs):
    torch.manual_seed(0)
    options = {"num_classes": 2, "lr": 0.05, "weight_decay": 1e-2, "step_size": 0.05}
    return GroupRobustClassifier(**{"backbone": SmallCNN(2), **options, **kwargs})


def trainer(tiny, **kwargs):
    return tiny.trainer(**{"num_sanity_val_steps": 0, "limit_train_batches": 3, **kwargs})


def test_balanced_weights_draw_present_groups_alike():
    weights = balanced_weights(GROUPS, 4)
    assert weights.tolist() == [2, 2, 2, 2, 4, 4, 8, 0]
    assert balanced_weights(np.array([-1, -1]), 2).tolist() == [0, 0]


def test_drawn_groups_add_up_the_weights_of_their_rows():
    assert drawn_groups(GROUPS, 4, None).tolist() == [4, 2, 0, 1]
    assert drawn_groups(GROUPS, 4, balanced_weights(GROUPS, 4)).tolist() == [8, 8, 0, 8]
    shares = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    assert drawn_groups(shares, 2, np.array([4.0, 0.5])).tolist() == [1.5, 3.0]


def test_subsample_takes_as_many_rows_of_each_group_as_the_smallest_has():
    groups = np.repeat([0, 1, 3, -1], [50, 7, 20, 5])
    weights = subsample_weights(groups, 4, seed=1)
    assert [int(weights[groups == g].sum()) for g in (0, 1, 3, -1)] == [7, 7, 7, 0]
    assert not np.array_equal(weights, subsample_weights(groups, 4, seed=2))
    assert np.array_equal(weights, subsample_weights(groups, 4, seed=1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"objective": "erm"}, None),
        ({"objective": "erm", "labelled_only": True}, [1, 1, 1, 1, 1, 1, 1, 0]),
        ({}, [2, 2, 2, 2, 4, 4, 8, 0]),
        ({"objective": "erm", "sampling": "balanced"}, [2, 2, 2, 2, 4, 4, 8, 0]),
        ({"sampling": "uniform"}, None),
    ],
)
def test_baselines_are_options(options, expected):
    model = classifier(num_attributes=2, **options)
    weights = model.sampling_weights(ColouredMNISTDataModule(seed=0), GROUPS)
    assert (None if weights is None else weights.tolist()) == expected
    assert isinstance(model.loss, GroupDROLoss) == (model.objective == "group_dro")


def test_a_fit_knows_the_groups_of_the_data_and_logs_the_worst(tiny):
    model, data = classifier(adjustment=2.0), digits()
    run = trainer(tiny)
    run.fit(model, datamodule=data)
    counts = np.bincount(data.true_group_array("train"), minlength=4)
    assert model.loss.group_counts.tolist() == counts.tolist()
    assert model.loss.group_weights.argmin() in (0, 3)  # the adjustment favours small groups
    metrics = run.callback_metrics
    groups = [metrics[f"val/acc_group_{g}"] for g in range(4)]
    assert metrics["val/acc_worst"] == min(groups)
    expected = np.dot(counts, [float(g) for g in groups]) / counts.sum()
    assert float(metrics["val/acc_adj"]) == pytest.approx(expected, abs=1e-6)
    assert sum(float(metrics[f"train/q_{g}"]) for g in range(4)) == pytest.approx(1)


def test_training_groups_that_a_split_lacks_are_told_once(tiny):
    class Lacking(ColouredMNISTDataModule):
        def load_rows(self, split):
            rows = super().load_rows(split)
            return rows if split == "train" else rows.select(np.flatnonzero(rows.labels == 0))

    data = Lacking(batch_size=64, seed=0)
    with pytest.warns(UserWarning, match="weighted over the groups that the split has") as told:
        trainer(tiny, max_epochs=2).fit(classifier(), datamodule=data)
    share = np.isin(data.true_group_array("train"), (2, 3)).mean()
    lines = [str(w.message) for w in told if "val/acc_adj" in str(w.message)]
    assert len(lines) == 1
    assert f"{share:.1%}" in lines[0]


def test_the_data_module_is_left_as_it_was(tiny):
    data = digits()
    trainer(tiny).fit(classifier(), datamodule=data)
    assert data._weights is None
    assert data._replaced is None


def test_erm_equals_plain_training(tiny):
    """Group DRO with one group, that is without groups, is ERM; and ERM needs no group labels."""
    erm, data = classifier(objective="erm"), digits(group_label_fraction=0.01)
    trainer(tiny).fit(erm, datamodule=data)
    start = classifier()
    optimizer = torch.optim.SGD(start.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    for batch, _ in zip(data.train_dataloader(), range(3), strict=False):
        images, labels, _ = data.on_after_batch_transfer(batch, 0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(start.logits(images), labels).backward()
        optimizer.step()
    for (name, one), other in zip(erm.named_parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_labelled_only_trains_on_labelled_rows(tiny):
    seen = []

    class Spy(GroupRobustClassifier):
        def training_step(self, batch, batch_idx):
            seen.append(batch[2])
            return super().training_step(batch, batch_idx)

    model = Spy(SmallCNN(2), num_classes=2, labelled_only=True)
    trainer(tiny).fit(model, datamodule=digits(group_label_fraction=0.05))
    assert (torch.cat(seen) >= 0).all()


def test_missing_group_labels_are_explained(tiny):
    with pytest.raises(InputError, match=r"3,040 of 3,200 training rows have no known .*BARACK"):
        trainer(tiny).fit(classifier(), datamodule=digits(group_label_fraction=0.05))


def test_a_group_without_training_rows_is_named(tiny):
    data = digits(correlation=1.0)
    model = classifier(adjustment=1.0)
    with pytest.warns(UserWarning, match="no training row is in the group 0-4, red or 5-9, green"):
        trainer(tiny).fit(model, datamodule=data)
    assert model.loss.group_weights[1:3].tolist() == [0, 0]
    assert all(p.isfinite().all() for p in model.parameters())


def test_other_data_modules_and_numbers_are_refused(tiny):
    loader = tiny.loader([(torch.rand(4, 2, 28, 28), torch.zeros(4, dtype=torch.int64))])
    with pytest.raises(ValueError, match="needs a data module whose rows have groups: none"):
        trainer(tiny).fit(classifier(), loader)
    with pytest.raises(ValueError, match="3 attributes, but ColouredMNISTDataModule has 2 and 2"):
        trainer(tiny).fit(classifier(num_attributes=3), datamodule=digits())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": None}, "num_classes >= 2, got None"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\), got 1.0"),
        ({"objective": "dro"}, "objective must be one of erm, group_dro, not 'dro'"),
        ({"sampling": "group"}, "sampling must be one of uniform, balanced, subsample"),
        ({"lr_schedule": "cosine"}, "lr_schedule must be one of constant, linear"),
        ({"adjustment": -1.0, "num_attributes": 2}, "adjustment >= 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options)


def test_batches_without_groups_are_explained(tiny):
    model = classifier(num_attributes=2)
    with pytest.raises(ValueError, match=r"needs batches \(inputs, labels \[B\], groups"):
        model.training_step((torch.rand(2, 2, 28, 28), torch.zeros(2)), 0)


def test_linear_schedule_ends_at_zero(tiny):
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(tiny, limit_train_batches=4, callbacks=[Watch()]).fit(
        classifier(lr_schedule="linear", lr=0.4), datamodule=digits()
    )
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_checkpoints_load_without_the_data(tiny, tmp_path):
    model = classifier()
    run = trainer(tiny)
    run.fit(model, datamodule=digits())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = GroupRobustClassifier.load_from_checkpoint(tmp_path / "a.ckpt", backbone=SmallCNN(2))
    assert torch.equal(loaded.loss.log_q, model.loss.log_q)
    assert not torch.allclose(loaded.loss.log_q.exp(), torch.full((4,), 0.25).double())


def test_jtt_draws_the_errors_of_its_first_network_more_often(tiny):
    torch.manual_seed(0)
    model = JTT(backbone=SmallCNN(2), num_classes=2, first_epochs=1, upweight=7.0, lr=0.05)
    weights = {}

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            weights.setdefault(trainer.current_epoch, trainer.datamodule._weights)

    data = digits()
    run = trainer(tiny, max_epochs=2, limit_train_batches=30, callbacks=[Watch()])
    run.fit(model, datamodule=data)
    assert weights[0] is None
    wrong = weights[1] == 7
    assert set(np.unique(weights[1])) == {1, 7}
    minority = np.isin(data.true_group_array("train"), [1, 2])
    assert wrong[minority].mean() > 5 * wrong[~minority].mean()


def test_jtt_checkpoints_load_and_its_options_are_checked(tiny, tmp_path):
    options = {"backbone": SmallCNN(2), "num_classes": 2, "first_epochs": 1, "lr": 0.05}
    model = JTT(**options)
    run = trainer(tiny, max_epochs=2)
    run.fit(model, datamodule=digits())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = JTT.load_from_checkpoint(tmp_path / "a.ckpt", backbone=SmallCNN(2))
    assert torch.equal(loaded.first.scores, model.first.scores)
    with pytest.raises(ValueError, match="upweight > 0, got 0"):
        JTT(**options, upweight=0)


def test_text_backbone(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    backbone = TextBackbone(str(tmp_path / "bert"))
    model = GroupRobustClassifier(backbone, num_classes=3, num_attributes=2)
    tokens = {
        "input_ids": torch.randint(0, 20, (4, 6)),
        "attention_mask": torch.ones(4, 6, dtype=torch.int64),
    }
    assert model.logits(tokens).shape == (4, 3)
    assert model.embed_dim == 8
    # a module starts in train mode, dropout inside the transformer included
    assert all(part.training for part in model.modules())
    hidden = [backbone.model(**tokens).last_hidden_state for _ in range(2)]
    assert not torch.equal(*hidden)
    with pytest.raises(FileNotFoundError, match="is neither a folder nor cached"):
        TextBackbone(str(tmp_path / "none"))


def test_warns_that_nothing_can_be_selected_without_groups_in_validation():
    class Data:
        groups = np.array([-1, -1])

        def group_array(self, split):
            assert split == "val"
            return self.groups

    data = Data()
    with pytest.warns(UserWarning, match="by it is that of the first epoch; select by"):
        GroupRobustClassifier.check_validation(data)
    data.groups = np.array([-1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GroupRobustClassifier.check_validation(data)


@pytest.mark.parametrize("sampling", ["balanced", "uniform"])
def test_accumulated_batches_are_one_batch_to_group_dro(tiny, sampling):
    """8 batches of 8 against one of 64: the same rows, so the same weights after each step."""
    weights = []
    for size, parts in ((64, 1), (8, 8)):
        model = classifier(lr=1e-6, step_size=1.0, sampling=sampling)
        run = trainer(tiny, limit_train_batches=3 * parts, accumulate_grad_batches=parts)
        run.fit(model, datamodule=digits(batch_size=size))
        assert run.global_step == 3
        weights.append(model.loss.log_q)
    assert weights[0].std() > 0.02
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"sampling": "uniform"}, {"adjustment": 1.0}])
def test_group_dro_runs_under_our_strategies(tiny, options):
    model = classifier(**options)
    strategy = LocalSGDStrategy(sync_every=2)
    trainer(tiny, limit_train_batches=4, strategy=strategy).fit(model, datamodule=digits())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
