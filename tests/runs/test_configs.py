"""What tells the configs of runs apart, and what it is called."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from written import config, write_config

from lit_ssl.runs.configs import differing_keys, read_config, short_names, shown, telling


def flat(tmp_path, content):
    return read_config(write_config(tmp_path, content) / "config.yaml")


def test_keys_are_those_of_the_command_line(tmp_path):
    found = flat(tmp_path, config(3, callbacks=("lit_ssl.KNNEvaluator", "my.Average")))
    assert found["model"] == "MSN"
    assert found["model.lr"] == 0.002
    assert found["data.batch_size"] == 128
    assert found["trainer.callbacks.Average"] == "Average"
    assert found["seed_everything"] == 3


def test_seeds_places_and_callbacks_that_watch_tell_nothing(tmp_path):
    one = flat(tmp_path, config(3, callbacks=("lit_ssl.KNNEvaluator",)))
    other = flat(tmp_path, config(4, callbacks=("lit_ssl.RepresentationReport", "ModelCheckpoint")))
    assert telling(one) == telling(other)
    averaged = flat(tmp_path, config(3, callbacks=("WeightAveraging",)))
    assert telling(averaged) != telling(one)


def test_what_another_class_brings_with_it_is_no_key():
    msn = {"model": "MSN", "model.mask": 0.1, "model.lr": 0.1, "trainer.max_epochs": 100}
    paws = {"model": "PAWS", "model.tau": 0.1, "model.lr": 0.2, "trainer.max_epochs": 16}
    keys, together = differing_keys([msn, paws])
    assert keys == ["model"]
    assert set(together["model"]) == {
        "model.mask", "model.lr", "model.tau", "trainer.max_epochs"
    }  # fmt: skip
    keys, together = differing_keys([msn, {**msn, "model.lr": 0.3}, paws])
    assert keys == ["model", "model.lr"]


def test_two_values_that_go_together_are_both_shown_and_five_are_not():
    settings = [{"model.lr": n, "model.warmup": 2 * n} for n in (1, 2)]
    assert differing_keys(settings) == (["model.lr", "model.warmup"], {})
    settings = [{f"model.{name}": n for name in "abcde"} for n in (1, 2)]
    keys, together = differing_keys(settings)
    assert keys == ["model.a"]
    assert together == {"model.a": [f"model.{name}" for name in "bcde"]}


def test_numbers_are_compared_by_value():
    assert differing_keys([{"lr": 1}, {"lr": 1.0}]) == ([], {})
    assert differing_keys([{"on": True}, {"on": 1}])[0] == ["on"]
    assert differing_keys([{"x": None}, {}])[0] == ["x"]


def test_names_are_as_short_as_they_are_unique():
    among = ["model.lr", "model.mask_ratio", "trainer.callbacks.Probe.lr", "model", "data.model"]
    assert short_names(["model.mask_ratio", "model.lr"], among) == {
        "model.mask_ratio": "mask_ratio", "model.lr": "model.lr"
    }  # fmt: skip
    assert short_names(["model"], among) == {"model": "model"}


def test_values_in_cells():
    assert [shown(value) for value in (0.00002, 1.0, True, None, [1, 2], "a\nb")] == [
        "2e-05", "1", "true", "null", "[1, 2]", "a b"
    ]  # fmt: skip
    assert len(shown("x" * 100)) == 40
