"""The table by group with its label budget, and DFR."""

from __future__ import annotations

import csv
import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl import BARACK, GroupRobustClassifier
from lit_ssl.callbacks import GroupReport, LastLayerRefit
from lit_ssl.callbacks.last_layer import unstandardise
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.metrics import fit_linear_probe
from lit_ssl.models import SmallCNN


def digits(**kwargs):
    return ColouredMNISTDataModule(**{"batch_size": 64, "seed": 0, **kwargs})


def trainer(tmp_path, *callbacks, **kwargs):
    options = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
        "limit_train_batches": 30, "default_root_dir": tmp_path,
    }  # fmt: skip
    return pl.Trainer(**{**options, **kwargs}, callbacks=list(callbacks))


def classifier(**kwargs):
    torch.manual_seed(0)
    options = {"num_classes": 2, "lr": 0.05, "weight_decay": 1e-2, "objective": "erm"}
    return GroupRobustClassifier(SmallCNN(2), **{**options, **kwargs})


def test_report_counts_rows_and_labels(tmp_path, capsys):
    model = BARACK(backbone=SmallCNN(2), num_classes=2, num_attributes=2)
    data = digits(group_label_fraction=0.05)
    run = trainer(tmp_path, GroupReport())
    (logged,) = run.test(model, datamodule=data, verbose=False)
    report = json.loads((tmp_path / "group_report.json").read_text())
    assert report["worst"] == pytest.approx(logged["test/acc_worst"], abs=1e-6)
    assert report["adjusted_average"] == pytest.approx(logged["test/acc_adj"], abs=1e-6)
    counts = np.bincount(data.true_group_array("train"), minlength=4)
    assert [group["training_rows"] for group in report["groups"]] == counts.tolist()
    assert sum(group["known_in_training"] for group in report["groups"]) == 160
    assert [group["test_rows"] for group in report["groups"]] == [500] * 4
    assert report["training_group_labels"] == 160
    assert report["validation_group_labels"] == 1600
    with (tmp_path / "group_report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == data.group_names
    shown = capsys.readouterr().out
    assert "group labels: 160 of 3,200 training rows (5.0 %) and 1,600 validation rows" in shown


def test_plain_training_uses_no_training_labels_unless_the_last_layer_does(tmp_path):
    for extra, used in (((), 0), ((LastLayerRefit(rows="train", subsets=1),), 3200)):
        folder = tmp_path / str(used)
        trainer(folder, *extra, GroupReport()).test(classifier(), datamodule=digits())
        report = json.loads((folder / "group_report.json").read_text())
        assert report["training_group_labels"] == used


def test_report_needs_scores_by_group(tmp_path):
    class Plain(pl.LightningModule):
        def test_step(self, batch, batch_idx):
            pass

    with pytest.raises(AttributeError, match=r"Plain has no group_scores\['test'\]"):
        trainer(tmp_path, GroupReport()).test(Plain(), datamodule=digits(), verbose=False)


def test_refitting_the_last_layer_helps_the_worst_group(tmp_path):
    model, data = classifier(), digits()
    run = trainer(tmp_path, max_epochs=3, limit_train_batches=50)
    run.fit(model, datamodule=data)
    before = run.test(model, datamodule=data, verbose=False)[0]["test/acc_worst"]
    backbone = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    for rows in ("val", "train"):
        refit = trainer(tmp_path, LastLayerRefit(rows=rows, subsets=3))
        (logged,) = refit.test(model, datamodule=data, verbose=False)
        assert logged["test/acc_worst"] > before + 0.2
    assert all(torch.equal(t, backbone[n]) for n, t in model.backbone.state_dict().items())


def test_layer_is_the_regression_on_plain_features():
    features = 3 + 5 * torch.randn(60, 4)
    labels = (features[:, 0] > 3).long()
    probe = fit_linear_probe(features, labels, 2)
    weight, bias = unstandardise(probe.weights, probe.mean, probe.scale)
    assert torch.equal((features @ weight.T + bias).argmax(dim=1), probe.predict(features))


def test_a_group_without_known_rows_is_named(tmp_path):
    run = trainer(tmp_path, LastLayerRefit(rows="train"))
    data = digits(group_label_fraction=0.01)
    with pytest.raises(ValueError, match="no train row is known to be in the group 0-4, red or"):
        run.test(classifier(), datamodule=data, verbose=False)


def test_a_group_that_the_data_lack_is_left_out(tmp_path):
    data = digits(correlation=1.0)
    model = classifier()
    before = model.classifier.weight.detach().clone()
    with pytest.warns(
        UserWarning, match="no train row is in the group 0-4, red or 5-9, green: the"
    ):
        trainer(tmp_path, LastLayerRefit(rows="train", subsets=2)).test(
            model, datamodule=data, verbose=False
        )
    assert not torch.equal(model.classifier.weight, before)
    assert model.classifier.weight.isfinite().all()
    assert float(model.group_scores["test"].per_group[0]) > 0.9


class PartlyLabelled(ColouredMNISTDataModule):
    """The data themselves do not say most of the attributes: 25 rows of each group are known."""

    def attribute_array(self, split):
        attributes = super().attribute_array(split)
        if split == "train":
            groups = self.labels(split) * 2 + attributes
            for group in range(4):
                attributes[np.flatnonzero(groups == group)[25:]] = -1
        return attributes


def test_how_training_is_made_up_is_not_guessed_from_the_rows_that_are_known(tmp_path, capsys):
    model = BARACK(backbone=SmallCNN(2), num_classes=2, predictor_epochs=1, held_out=0.0)
    data = PartlyLabelled(batch_size=64, seed=0)
    run = trainer(tmp_path, GroupReport(), max_epochs=2, limit_train_batches=2)
    with pytest.warns(UserWarning, match="acc_adj is not logged: the groups of 3,100 of 3,200"):
        run.fit(model, datamodule=data)
    assert "val/acc_adj" not in run.callback_metrics
    (logged,) = run.test(model, datamodule=data, verbose=False)
    assert "test/acc_adj" not in logged
    assert logged["test/acc_avg"] > 0
    report = json.loads((tmp_path / "group_report.json").read_text())
    assert report["adjusted_average"] is None
    assert report["headline_average"] == "average"
    assert [group["training_rows"] for group in report["groups"]] == [None] * 4
    assert [group["known_in_training"] for group in report["groups"]] == [25] * 4
    assert report["training_rows_of_unknown_group"] == 3100
    assert "the groups of 3,100 training rows are unknown" in capsys.readouterr().out


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="rows 'train' or 'val'"):
        LastLayerRefit(rows="test")
    with pytest.raises(ValueError, match=r"GroupRobustClassifier\.head is no linear layer"):
        trainer(tmp_path, LastLayerRefit(layer="head")).test(classifier(), datamodule=digits())
