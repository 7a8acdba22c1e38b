"""The two metrics: any order of batches, doubled images, several processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import read_annotations
from lit_ssl.metrics import FactorAccuracy, FactorScores, ImageNetXMetric, factor_table


@pytest.fixture
def annotations(random_annotations):
    return random_annotations(200)


@pytest.fixture
def logits(annotations):
    generator = torch.Generator().manual_seed(1)
    out = torch.randn(200, 10, generator=generator)
    out[torch.arange(200), torch.from_numpy(annotations.labels)] += 2
    return out


NUMBERS = torch.arange(1, 201)


def test_order_batches_and_doubles_do_not_matter(annotations, logits):
    whole = ImageNetXMetric(annotations)
    whole.update(logits, NUMBERS)
    pieces = ImageNetXMetric(annotations)
    order = torch.randperm(200)
    for part in [*order.split(17), order[:30]]:  # the last come twice, as where data are padded
        pieces.update(logits[part], NUMBERS[part])
    expected, found = whole.compute(), pieces.compute()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    labels = torch.from_numpy(annotations.labels)
    hits = logits.argmax(dim=1) == labels
    assert expected["average"].item() == pytest.approx(hits.double().mean().item())
    members = torch.from_numpy(annotations.members)
    for f in range(4):
        inside = hits[members[:, f]].double().mean().item()
        assert expected["accuracy"][f].item() == pytest.approx(inside)
    assert expected["error_ratio"].dtype == torch.float64
    assert whole.table().factors == ("a", "b", "c", "d")


def test_logits_classes_and_probabilities(annotations, logits):
    by_logits, by_class = ImageNetXMetric(annotations), ImageNetXMetric(annotations)
    by_logits.update(logits, NUMBERS)
    p, classes = logits.softmax(dim=1).max(dim=1)
    by_class.update(classes, NUMBERS, p)
    assert torch.equal(by_logits.compute()["accuracy"], by_class.compute()["accuracy"])
    error = by_logits.compute()["calibration_error"]
    assert error.item() == pytest.approx(by_class.compute()["calibration_error"].item(), abs=1e-6)
    without = ImageNetXMetric(annotations)
    without.update(classes, NUMBERS)
    assert math.isnan(without.compute()["calibration_error"])


def test_the_first_of_equal_logits_wins(annotations):
    metric = ImageNetXMetric(annotations)
    metric.update(torch.zeros(200, 10), NUMBERS)
    assert metric.classes[1:].unique().tolist() == [0]


def test_missing_predictions_are_an_error_or_are_counted(annotations, logits):
    metric = ImageNetXMetric(annotations, name="half")
    metric.update(logits[:150], NUMBERS[:150])
    with pytest.raises(InputError, match=r"half has no prediction for 50 of the 200 annotated"):
        metric.compute()
    partial = ImageNetXMetric(annotations, partial=True)
    partial.update(logits[:0], NUMBERS[:0])
    with pytest.raises(InputError, match="200 of the 200"):  # also then, something must be there
        partial.compute()
    partial.update(logits[:150], NUMBERS[:150])
    assert partial.table().images == 150
    partial.reset()
    partial.update(logits[:3], NUMBERS[:3])
    assert partial.table().images == 3


def test_wrong_updates(annotations, logits):
    metric = ImageNetXMetric(annotations)
    with pytest.raises(ValueError, match="logits have 11 classes, the annotations 10"):
        metric.update(torch.zeros(2, 11), NUMBERS[:2])
    with pytest.raises(ValueError, match="expected logits"):
        metric.update(torch.zeros(2), NUMBERS[:2])
    with pytest.raises(ValueError, match="expected logits"):
        metric.update(torch.zeros(2, dtype=torch.int64), NUMBERS[:3])
    metric.update(logits, NUMBERS - 1)  # as if images were counted from 0
    with pytest.raises(ValueError, match="image numbers outside of 1 … 200"):
        metric.compute()
    metric.reset()
    metric.update(torch.full((200,), 10), NUMBERS)
    with pytest.raises(ValueError, match="update got class 10, there are 10"):
        metric.compute()
    with pytest.raises(ValueError, match="error_type must be class, metaclass or real"):
        ImageNetXMetric(annotations, error_type="label")
    with pytest.raises(ValueError, match="has nothing for error_type 'real'"):
        ImageNetXMetric(annotations, error_type="real")


def test_from_files_to_official_csv_and_back(folder, predict, tmp_path):
    predictions = predict()
    for kind, error_type in (("top", "class"), ("multi", "real")):
        metric = ImageNetXMetric(str(folder), kind, error_type, real_empty="wrong")
        metric.update(
            torch.from_numpy(predictions.classes[1:]),
            torch.arange(1, 61),
            torch.from_numpy(predictions.probability[1:]),
        )
        direct = FactorScores(predictions, read_annotations(str(folder), kind), error_type, "wrong")
        np.testing.assert_array_equal(metric.table().accuracy, direct.table().accuracy)
    path = metric.to_csv(tmp_path / "out" / "p.csv")
    header, *lines = path.read_text().splitlines()
    assert header == "file_name,predicted_class,predicted_probability"
    order = sorted(range(1, 61), key=lambda n: (metric.annotations.labels[n - 1], n))
    assert [int(line[15:23]) for line in lines] == order  # the official package needs it
    classes = predictions.classes
    assert lines[0].startswith(f"ILSVRC2012_val_{order[0]:08d}.JPEG,{classes[order[0]]},0.")
    other = ImageNetXMetric(str(folder), "multi", "real", real_empty="wrong", name="b")
    other.update(torch.from_numpy(predict(1).classes[1:]), torch.arange(1, 61))
    change = metric.compare(other)
    difference = other.table().accuracy - metric.table().accuracy
    np.testing.assert_allclose(change.accuracy, difference, atol=1e-15)


# ------------------------------------------------------- FactorAccuracy


@pytest.mark.parametrize("multi", [False, True])
def test_factor_accuracy_is_the_table_of_all_batches(random_annotations, multi):
    annotations = random_annotations(150, multi=multi)
    target = torch.from_numpy(annotations.labels)
    preds = torch.where(torch.rand(150) < 0.6, target, (target + 1) % 10)
    members = torch.from_numpy(annotations.members)
    factors = members if multi else members.int().argmax(dim=1)
    metric = FactorAccuracy(annotations.factors)
    for part in torch.randperm(150).split(40):
        metric.update(preds[part], target[part], factors[part])
    expected = factor_table((preds == target).numpy(), annotations.members, annotations.factors)
    values = metric.compute()
    for name in ("accuracy", "accuracy_low", "error_ratio", "error_ratio_high", "count"):
        np.testing.assert_array_equal(values[name], getattr(expected, name))
    assert metric.table().worst_factor == expected.worst_factor
    assert values["worst_factor"].item() == expected.worst_accuracy


def test_unknown_labels_and_images_without_a_factor():
    metric = FactorAccuracy(2)
    logits = torch.eye(3)[[0, 1, 2, 0]]
    target = torch.tensor([0, 1, -1, 1])
    metric.update(logits, target, torch.tensor([0, -1, 0, 1]))
    values = metric.compute()
    assert values["count"].tolist() == [1, 1]
    assert values["accuracy"].tolist() == [1.0, 0.0]
    assert values["average"].item() == pytest.approx(2 / 3)
    assert metric.table().factors == ("0", "1")


def test_wrong_values_of_factor_accuracy():
    with pytest.raises(ValueError, match="at least one factor"):
        FactorAccuracy([])
    metric = FactorAccuracy(["a", "b", "c"])
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"factors \[B\] or \[B, 3\], got \[4\], \[4\] and \[4, 2\]"
    ):
        metric.update(labels, labels, torch.zeros(4, 2))


# ------------------------------------------------------- several processes


@pytest.mark.distributed
def test_two_processes_with_padding_equal_one(tmp_path, annotations, logits):
    script = Path(__file__).with_name("ddp_metric.py")
    np.savez(
        tmp_path / "data.npz", labels=annotations.labels, members=annotations.members,
        logits=logits.numpy(),
    )  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(rank)],
            env={**env, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    errors = [run.communicate(timeout=200)[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    one = ImageNetXMetric(annotations)
    one.update(logits, NUMBERS)
    expected = {name: value.tolist() for name, value in one.compute().items()}
    counts = FactorAccuracy(annotations.factors)
    counts.update(
        logits, torch.from_numpy(annotations.labels), torch.from_numpy(annotations.members)
    )
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["by_number"] == expected
        assert found["counts"] == {name: v.tolist() for name, v in counts.compute().items()}
