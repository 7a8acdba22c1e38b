"""The recipe of NLVR2 on digits from the command line: fit, test, resume, predict, mistakes."""

from __future__ import annotations

import csv

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lit_ssl import NLVR2Classifier
from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.cli.recipes import packaged_config
from lit_ssl.models import ViltBackbone

RECIPE = "vl/digit_scenes_nlvr2.yaml"
SMALL = [
    "--config", RECIPE, "--data.sizes=[16, 0, 5]", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=1",
]  # fmt: skip
EVERY_STEP = [
    "--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_last=true",
    "--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.save_top_k=-1",
]  # fmt: skip
TABLE = "backbone.model.embeddings.token_type_embeddings.weight"


@pytest.fixture(autouse=True)
def _packages():
    pytest.importorskip("mlxtend")
    pytest.importorskip("transformers")


@pytest.fixture
def pretrained(tmp_path):
    """What a pretraining run with the recipe's backbone leaves."""
    model = yaml.safe_load(packaged_config(RECIPE).read_text())["model"]["init_args"]
    module = torch.nn.Module()
    module.backbone = ViltBackbone(**model["backbone"]["init_args"])
    module.itm_head = torch.nn.Linear(64, 2)
    path = tmp_path / "pretrained.ckpt"
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0"}, path)
    return path


def test_the_recipe_has_the_length_of_the_protocol(built):
    made = built("fit", "--config", RECIPE)
    made.datamodule.prepare_data()
    assert made.datamodule.sizes == {"train": 1000, "val": 0, "test": 300}
    assert made.datamodule.batch_size * 250 == 4 * 1000
    assert made.model.lr == 1e-3
    assert isinstance(made.model, NLVR2Classifier)


def test_all_commands_and_a_resume_in_the_middle_of_an_epoch(lit_ssl, tmp_path, pretrained, caplog):
    caplog.set_level("INFO")
    words = [*SMALL, "--model.pretrained", pretrained]
    done = lit_ssl("fit", *words, *EVERY_STEP, "--trainer.default_root_dir=whole", "--then=test")
    assert done.code == 0, done.err
    for name in ("test/acc1", "test/consistency", "test/loss"):
        assert name in done.out
    assert "takes backbone from" in caplog.text
    assert "starting afresh: nlvr2_head" in caplog.text
    assert "the second image starts with the first one's modality" in caplog.text
    whole = read_checkpoint(next((tmp_path / "whole").rglob("last.ckpt")))
    assert whole["global_step"] == 4
    assert not torch.equal(whole["state_dict"][TABLE][2], whole["state_dict"][TABLE][1])
    middle = next((tmp_path / "whole").rglob("*step=2.ckpt"))
    rest = lit_ssl("fit", *words, "--trainer.default_root_dir=rest", f"--ckpt_path={middle}")
    assert rest.code == 0, rest.err
    found = read_checkpoint(next((tmp_path / "rest").rglob("last.ckpt")))
    assert found["global_step"] == 4
    assert all(torch.equal(v, found["state_dict"][k]) for k, v in whole["state_dict"].items())

    predicted = lit_ssl("predict", *SMALL, f"--ckpt_path={middle}")
    assert predicted.code == 0, predicted.err
    (table,) = tmp_path.rglob("predictions.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {row["class"] for row in rows} == {"False", "True"}
    tensors = load_file(table.with_suffix(".safetensors"))
    assert tensors["predictions"].shape == (20, 2)
    assert tensors["labels"].tolist() == [int(row["label"]) for row in rows]


WRONG = {
    "--model.backbone.num_modalities=2": "NLVR2Classifier tells the second image from the first by "
    "its modality: give the backbone num_modalities: 3, not 2",
    "--data=DigitScenesDataModule": "NLVR2Classifier gives 2 answers, but DigitScenesDataModule has"
    " num_classes = 0: give it data of this task",
    "--model.pretrained=none.ckpt": "none.ckpt",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_line(lit_ssl, words):
    given = [word for word in SMALL if "sizes" not in word or "--data=" not in words]
    result = lit_ssl("fit", *given, words)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert WRONG[words] in line
    assert "Traceback" not in result.err


def test_the_number_of_answers_comes_from_the_data(lit_ssl, built):
    """VQAClassifier takes num_classes, as classifiers do."""
    words = ["--model=VQAClassifier", "--model.backbone=lit_ssl.models.ViltBackbone"]
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 73}
    words += [f"--model.backbone.config={size}", "--trainer.accelerator=cpu"]
    made = built("fit", *words, "--data=DigitScenesNLVR2DataModule")
    assert made.model.num_classes == 2
