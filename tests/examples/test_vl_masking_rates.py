"""The example of masking rates runs, measures what it says, and shows the paper's effect."""

from __future__ import annotations

import csv
import importlib.util
import statistics
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("transformers")
SCRIPT = Path(__file__).parents[2] / "examples" / "vl_masking_rates.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("vl_masking_rates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["vl_masking_rates"] = module  # dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_trains_once_and_reports_every_row(example, monkeypatch, capsys, tmp_path):
    def run(*more):
        words = ["--quick", "--seeds", "1", "2", "--only", "corruption", "split_words", *more]
        monkeypatch.setattr(sys, "argv", ["example", *words, "--out", str(tmp_path)])
        example.main()
        return capsys.readouterr().out, list(csv.DictReader((tmp_path / "results.csv").open()))

    out, rows = run()
    names = {row["setting"] for row in rows}
    assert len(rows) == 2 * len(names) == 2 * 8
    assert "uniform 60%, 2 steps, predict 15%" in names
    assert "whole word 15%, 2 steps, split words" in names
    for row in rows:
        rolled, true = float(row["mlm rolled"]), float(row["mlm"])
        assert float(row["grounding"]) == pytest.approx(true - rolled)
        assert 0 <= float(row["r@1"]) <= 100
    assert (tmp_path / "masking_rates.png").stat().st_size > 0
    assert out.count("\n# ") + out.startswith("# ") == len(rows)
    again, same = run()
    assert "# uniform" not in again
    assert same == rows
    (tmp_path / "uniform_60%_2_steps_2.json").unlink()
    report, fewer = run("--found")
    assert len(fewer) == len(rows) - 1
    assert "| uniform 60%, 2 steps | 1 |" in report


def test_split_words_have_two_pieces_each(example):
    scenes, statements = example.data_of(True, 400, 40)
    for data in (scenes, statements):
        ids = data.text_tokenizer(["a small red three above the cyan digit"])["input_ids"][0]
        pieces = data.text_tokenizer.convert_ids_to_tokens(ids)
        assert pieces == [
            "[CLS]", "a", "sma", "##ll", "re", "##d", "thr", "##ee", "abo", "##ve", "the", "cy",
            "##an", "dig", "##it", "[SEP]",
        ]  # fmt: skip


def test_noun_verb_masking_prefers_nouns(example):
    scenes, _ = example.data_of(False, 64, 40)
    scenes.setup("fit")
    inputs, _ = next(iter(scenes.train_dataloader()))
    words = [scenes.text_tokenizer.convert_ids_to_tokens(row) for row in inputs["input_ids"]]
    chosen = {w for row, f in zip(words, inputs["nouns"], strict=True)
              for w, is_noun in zip(row, f, strict=True) if is_noun}  # fmt: skip
    assert {"digit", "##ro"} & chosen
    assert not {"a", "red", "above", "[CLS]", "[PAD]"} & chosen


def test_places_are_counted_both_ways(example):
    """Scores that are right for every text, and for one image of two."""

    class Says:
        def match(self, pairs):
            image, text = pairs["image_embeds"][:, 0, 0], pairs["input_ids"][:, 0]
            return (image == text).float() + 2 * (text == 0)

    shown = {"image_embeds": torch.arange(4.0)[:, None, None], "image_mask": torch.ones(4, 1)}
    shown |= {"input_ids": torch.arange(4)[:, None]}
    # among images 0 and 1: image 1 takes text 0; texts 0 and 1 find their image
    assert example.first_places(Says(), shown, 0, 2) == pytest.approx((50 + 100) / 2)
    assert example.first_places(Says(), shown, 2, 2) == 100


@pytest.mark.slow
def test_a_higher_rate_grounds_words_and_lifts_matching_and_statements(example, tmp_path):
    """Uniform 15 against 60 %; docs/vl_masking.md has the numbers of five seeds."""
    found = {
        rate: [
            example.run((example.Setting(rate=rate), seed, tmp_path, 8000, 2000, 250))["scores"]
            for seed in (10, 11, 12)
        ]
        for rate in (0.15, 0.60)
    }

    def mean(rate, name):
        return statistics.mean(scores[name] for scores in found[rate])

    assert mean(0.60, "mlm") - mean(0.15, "mlm") >= 5
    assert mean(0.60, "grounding") >= 10
    assert mean(0.60, "grounding") >= 1.5 * mean(0.15, "grounding")
    assert mean(0.60, "itm") - mean(0.15, "itm") >= 8
    assert mean(0.60, "nlvr2") - mean(0.15, "nlvr2") >= 6
    for low, high in zip(found[0.15], found[0.60], strict=True):
        assert high["grounding"] > low["grounding"]
