"""The recipes for data with groups train and test on tiny data sets in the official layouts."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

from lit_ssl.__main__ import main
from lit_ssl.cli.recipes import packaged_config

# A network for which a step takes no time. null: a recipe's mapping is not merged into.
IMAGES = ["--model.backbone", "resnet10t", "--model.backbone_kwargs", "null"]
SHORT = [
    "--trainer.limit_train_batches", "1", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--data.num_workers", "0", "--trainer.log_every_n_steps", "1",
]  # fmt: skip
FILES = ["hparams.yaml", "config.yaml", "group_report.json", "group_report.csv"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Fits a recipe and tests its best checkpoint; returns the report."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def lit_ssl(*words):
        monkeypatch.setattr(sys, "argv", ["lit-ssl", *words])
        main()
        return capsys.readouterr().out

    def fit_and_test(recipe, words):
        words = ["--config", recipe, *words, *SHORT]
        lit_ssl("fit", *words)
        best = folder / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
        out = lit_ssl("test", *words, "--ckpt_path", str(best))
        assert "accuracy by group, %" in out
        report = folder / "lightning_logs" / "version_1" / "group_report.json"
        return json.loads(report.read_text())

    return fit_and_test


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("group_dro/waterbirds.yaml", ["--trainer.max_epochs", "1"]),
        ("erm/waterbirds.yaml", ["--trainer.max_epochs", "1"]),
        (
            "barack/waterbirds.yaml",
            ["--trainer.max_epochs", "2", "--model.predictor_epochs", "1",
             "--data.group_label_fraction", "0.8"],
        ),
    ],
)  # fmt: skip
def test_waterbirds(recipe, words, run, waterbirds):
    size = ["--data.image_size", "32"]
    report = run(recipe, ["--data.root", str(waterbirds), *IMAGES, *size, *words])
    assert report["headline_average"] == "adjusted_average"
    assert report["training_rows"] == 5
    used = {"barack": 4, "group_dro": 5, "erm": 0}[recipe.split("/")[0]]
    assert report["training_group_labels"] == used
    assert report["validation_group_labels"] == 2
    assert [group["test_rows"] for group in report["groups"]] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "recipe", ["group_dro/celeba.yaml", "barack/celeba.yaml", "erm/celeba.yaml"]
)
def test_celeba(recipe, run, celeba):
    words = ["--data.root", str(celeba("csv")), "--data.image_size", "32", *IMAGES]
    if "barack" in recipe:
        words += ["--model.predictor_epochs", "1", "--data.group_label_fraction", "1.0"]
    report = run(recipe, [*words, "--trainer.max_epochs", "2"])
    assert report["headline_average"] == "average"
    assert report["training_rows"] == 4


@pytest.fixture
def bert(tmp_path):
    """Folder of a tiny BERT with random weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=256,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


TEXTS = [
    "group_dro/civilcomments", "group_dro/multinli", "erm/civilcomments", "erm/multinli",
    "jtt/civilcomments",
]  # fmt: skip


@pytest.mark.parametrize("recipe", TEXTS)
def test_texts(recipe, run, bert, tokenizer, request):
    method, name = recipe.split("/")
    root = request.getfixturevalue(name)
    words = ["--data.root", str(root), "--data.tokenizer", tokenizer]
    words += ["--model.backbone.init_args.path", bert]
    if method == "jtt":
        words += ["--model.first_epochs", "1", "--trainer.max_epochs", "2"]
    else:
        words += ["--trainer.max_epochs", "1"]
    report = run(f"{recipe}.yaml", words)
    assert (report["training_group_labels"] == 0) == (method != "group_dro")
    groups = {group["group"]: group for group in report["groups"]}
    if name == "civilcomments":
        assert len(groups) == 16
        assert groups["male, non-toxic"]["test_rows"] == 1
        assert groups["male, non-toxic"]["training_rows"] is None
    else:
        assert len(groups) == 6


# What arXiv 1911.08731 and JTT's released code give: batch, epochs, learning rate, weight decay.
PUBLISHED = {
    "erm/waterbirds": (128, 300, 1e-3, 1e-4),
    "erm/celeba": (128, 50, 1e-4, 1e-4),
    "erm/multinli": (32, 3, 2e-5, 0.0),
    "erm/civilcomments": (24, 3, 2e-5, 0.0),
    "jtt/civilcomments": (16, 5, 1e-5, 0.01),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    config = yaml.safe_load(packaged_config(name).read_text())
    model, data, trainer = (config[part] for part in ("model", "data", "trainer"))
    options = model["init_args"]
    found = (
        data["init_args"]["batch_size"], trainer["max_epochs"], options["lr"],
        options["weight_decay"],
    )  # fmt: skip
    assert found == PUBLISHED[name]
    is_text = "multinli" in name or "civilcomments" in name
    assert trainer.get("gradient_clip_val") == (1.0 if is_text else None)
    assert options.get("lr_schedule", "constant") == ("linear" if is_text else "constant")
    assert ("optimizer" in options) == is_text
    checkpoint = trainer["callbacks"][0]["init_args"]
    assert (checkpoint["monitor"], checkpoint["mode"]) == ("val/acc_worst", "max")
    if model["class_path"] == "JTT":
        first = ("first_epochs", "first_lr", "first_weight_decay", "upweight")
        assert [options[key] for key in first] == [2, 2e-5, 0.0, 6]
    else:
        assert options["objective"] == "erm"


TABLE = [
    (f"{split}{number}.png", split, number % 2, number // 2 % 2 if number < known else "")
    for split, size, known in (("train", 12, 6), ("val", 4, 4), ("test", 4, 3))
    for number in range(size)
]


def test_own_table_with_some_attributes(run, group_csv):
    words = ["--data.root", str(group_csv(TABLE)), "--data.image_size", "32", *IMAGES]
    words += ["--model.predictor_epochs", "1", "--trainer.max_epochs", "2"]
    report = run("barack/csv.yaml", words)
    assert (report["training_rows"], report["training_group_labels"]) == (12, 6)
    assert report["validation_group_labels"] == 4
    assert [group["test_rows"] for group in report["groups"]] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: (*row[:3], "red"), "red"),
        (lambda row: (*row[:3], 0 if row[3] != "" else "") if row[1] == "train" else row, "1"),
    ],
)
def test_wrong_tables_leave_nothing_behind(
    change, message, group_csv, tmp_path, monkeypatch, capsys
):
    """A value that is no attribute; an attribute without a labelled row."""
    root = group_csv([change(row) for row in TABLE])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    words = ["--data.root", str(root), "--data.image_size", "32", *IMAGES, *SHORT]
    monkeypatch.setattr(sys, "argv", ["lit-ssl", "fit", "--config", "barack/csv.yaml", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert list((tmp_path / "work").iterdir()) == []
