"""The examples of Neural Attentive Circuits run, and compare like with like."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    threads = torch.get_num_threads()

    def call(module, *words):
        monkeypatch.setattr(sys, "argv", ["example", "--quick", *words, "--out", str(tmp_path)])
        module.main()
        return capsys.readouterr().out, list(csv.DictReader((tmp_path / "results.csv").open()))

    yield call
    torch.set_num_threads(threads)


def record(accuracy, alone=20.0, times=(32.0, 4.0, 2.0)):
    sizes = ("64", "8", "1")
    scores = {order: dict(zip(sizes, values, strict=True)) for order, values in accuracy.items()}
    ms = dict(zip(sizes, times, strict=True))
    return {
        "accuracy": scores, "one_random_module": [alone], "milliseconds": {"64": ms, "1": ms},
        "cpu_seconds": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_module_dropping_trains_once_and_reports_every_order(run, tmp_path, monkeypatch):
    module = load("nac_module_dropping")
    monkeypatch.setattr(module, "BATCHES", {64: 2, 1: 2})
    out, rows = run(module, "--seeds", "0", "--dropout", "nested", "none")
    assert list(dict.fromkeys(row["row"] for row in rows)) == [
        "NAC, nested", "Perceiver IO, nested", "NAC, plain, by eigenvector",
        "NAC, plain, by taylor", "NAC, plain, by loo", "NAC, plain, by random",
        "NAC, plain, best order", "Perceiver IO, plain, by taylor", "Perceiver IO, plain, by loo",
        "Perceiver IO, plain, by random", "Perceiver IO, plain, best order", "NAC, 1/8 trained",
        "NAC, 1/16 trained",
    ]  # fmt: skip
    assert [r["modules"] for r in rows if r["row"] == "NAC, nested"] == ["16", "8", "4", "2", "1"]
    whole = {r["accuracy"] for r in rows if "NAC, plain" in r["row"] and r["modules"] == "16"}
    assert len(whole) == 1  # no order matters to the whole circuit
    assert (tmp_path / "module_dropping.png").stat().st_size > 0
    assert "# NAC, nested, seed 0" in out
    saved = json.loads((tmp_path / "NAC_nested_seed0.json").read_text())
    assert len(saved["one_random_module"]) == 10
    again, same = run(module, "--seeds", "0", "--dropout", "nested", "none")
    assert "# NAC" not in again
    assert same == rows


def test_module_dropping_says_what_shows_and_what_does_not(capsys):
    module = load("nac_module_dropping")
    nested, plain = module.Variant("NAC", "nested"), module.Variant("Perceiver IO", "none")

    def verdict(variant, *records):
        module.print_verdict(variant, list(records), module.rows_of({variant: list(records)}))
        return capsys.readouterr().out

    good, bad = ({"nested": (90.0, last, 60.0)} for last in (88.0, 86.0))
    out = verdict(nested, record(good), record(good))
    assert "gate of 5 points holds" in out
    assert "8 modules are 8.0 times faster and cost 2.0 ± 0.0 points" in out
    assert out.endswith("less than 3 in each seed: yes\n")
    # 2 and 4 points: not in each seed, nor on average
    assert verdict(nested, record(good), record(bad)).endswith("in each seed: no\n")
    rows = module.rows_of({nested: [record(good)] * 2})
    rows["NAC, plain, best order"] = [{"64": 95.0}] * 2
    module.print_verdict(nested, [record(good)] * 2, rows)
    assert "without module dropout: 7.0 ± 0.0 points" in capsys.readouterr().out
    assert "is missed" in verdict(nested, record(good), record(good, alone=86.0))
    slow = verdict(nested, record(good, times=(32.0, 8.0, 5.0)))
    assert "no size is 8 times faster" in slow
    orders = {"random": (90.0, 40.0, 9.0), "taylor": (90.0, 70.0, 9.0), "loo": (90.0, 60.0, 9.0)}
    assert "cost 20.0 ± 0.0 points" in verdict(plain, record(orders), record(orders))


def test_times_are_of_really_smaller_circuits(monkeypatch):
    module = load("nac_module_dropping")
    settings = {"modules": 16, "dim": 16, "depth": 1}
    net = module.build(module.Variant("NAC", "none"), settings).eval()
    net.reset_classifier(10)
    seen = {}
    pruned = type(net).prune

    def prune(self, keep):
        small = seen[len(keep)] = pruned(self, keep)
        return small

    monkeypatch.setattr(type(net), "prune", prune)
    times = module.milliseconds(net, [16, 4], torch.randn(3, 1, 28, 28), rounds=2)
    assert set(times) == {16, 4}
    assert min(times.values()) > 0
    assert [seen[n].num_modules for n in (16, 4)] == [16, 4]
    assert seen[4].is_folded
    assert not net.is_folded
    assert net.num_modules == 16


@pytest.mark.slow
def test_low_shot_prints_all_rows_and_paired_differences(run, tmp_path):
    module = load("nac_low_shot")
    words = ("--seeds", "0", "--shots", "1", "3", "--episodes", "2")
    out, rows = run(module, *words)
    assert list(dict.fromkeys(row["row"] for row in rows)) == [
        "NAC, head", "NAC, head+signatures", "NAC, head+codes", "NAC, all", "NAC, from scratch",
        "linear, on pixels", "Perceiver IO, head", "Perceiver IO, head+codes", "Perceiver IO, all",
        "Perceiver IO, from scratch",
    ]  # fmt: skip
    assert len(rows) == 10 * 2 * 2
    pixels = {
        (r["shots"], r["episode"]): float(r["accuracy"]) for r in rows if "pixels" in r["row"]
    }
    assert pixels["1", "0"] != pixels["1", "1"]  # other examples in each episode
    assert sum(pixels["3", e] - pixels["1", e] for e in "01") > 5
    scores = {
        (r["row"], r["shots"], r["episode"]): float(r["accuracy"]) for r in rows
    }  # fmt: skip
    pairs = [scores["NAC, all", "1", e] - scores["NAC, head", "1", e] for e in "01"]
    assert f"| NAC, all − NAC, head | {module.interval(pairs)} |" in out
    assert (tmp_path / "low_shot.png").stat().st_size > 0


def test_low_shot_adapts_what_it_says_on_unseen_digits():
    module = load("nac_low_shot")
    data = module.episode(seed=0, number=1, shots=2, unseen=[0, 2, 6, 8])
    assert data.classes.tolist() == [0, 2, 6, 8]
    assert len(data.labels("train")) == 8
    settings = {"modules": 4, "dim": 16, "depth": 1}
    torch.manual_seed(0)
    net = module.build("NAC", settings)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adapted = module.adapted(net, "all", data, steps=2, rate=1e-3).net
    assert not torch.equal(adapted.codes["mediator"], net.codes["mediator"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_intervals_are_those_of_student():
    interval = load("nac_low_shot").interval
    assert interval([1.0, 2.0, 3.0]) == "+2.0 ± 2.5"  # 4.303 · 1 / √3
    assert interval([1.5]) == "+1.5"


@pytest.mark.slow
@pytest.mark.parametrize("dropout", ["nested", "none"])
def test_only_nested_dropout_lets_a_circuit_do_without_most_modules(dropout):
    """The direction of the table in docs/nac.md, and its gate: 2 of 32 modules, one seed."""
    module = load("nac_module_dropping")
    settings = {"modules": 32, "dim": 48, "depth": 2, "epochs": 10, "batch": 64, "calibration": 100}
    net = module.train(module.Variant(module.NAC_NAME, dropout), 0, settings)
    images, labels = module.digits("test")
    orders = {"nested": ["nested"], "none": ["eigenvector", "taylor"]}[dropout]
    calibration = [tuple(part[:100] for part in module.digits("val"))]
    ranks = [net.rank_modules(order, calibration) for order in orders]
    whole = module.accuracy(net, images, labels)
    cut = max(module.accuracy(net.prune(order[:2]).fold(), images, labels) for order in ranks)
    alone = module.accuracy(net, images, labels, keep=[21])
    assert whole > 80
    assert whole - alone >= module.GATE
    assert (whole - cut <= 4) if dropout == "nested" else (whole - cut >= 10), (whole, cut)
