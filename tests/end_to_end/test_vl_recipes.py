"""The recipes of images with texts: their values, and a step on files in the official layouts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.cli.recipes import list_configs, packaged_config

sys.path.insert(0, str(Path(__file__).parent))
import vl_layouts

PROCESSES = 8  # what the recipes say they are for, but vl/own_pairs.yaml
# Pairs a step, learning rate, epochs, factors of heads and of what joins the streams, pixels.
PUBLISHED = {
    "vilt_nlvr2": (128, 1e-4, 10, 1, 1, 384),
    "vilt_vqav2": (256, 1e-4, 10, 10, 1, 384),
    "vilt_coco_retrieval": (256, 1e-4, 10, 1, 1, 384),
    "vilt_flickr30k_retrieval": (256, 1e-4, 10, 1, 1, 384),
    "meter_nlvr2": (256, 1e-5, 10, 10, 5, 288),
    "meter_vqav2": (512, 5e-6, 10, 50, 5, 576),
    "meter_snli_ve": (64, 2e-6, 5, 10, 5, 384),
    "meter_coco_retrieval": (512, 5e-6, 10, 5, 5, 384),
    "meter_flickr30k_retrieval": (512, 5e-6, 10, 5, 5, 384),
}
OURS = {"vilt_snli_ve": (128, 1e-4, 5, 1, 1, 384)}
PRETRAINING = {"vilt_pretrain": 1e-4, "meter_pretrain": 1e-5, "vilt_pretrain_tars": 1e-4}
PRESETS = {"uniform60": ("UniformMasker", 0.6), "whole_word15": ("WholeWordMasker", 0.15)}
DIGITS = {"digit_scenes", "digit_scenes_nlvr2", "digit_scenes_retrieval"}

QUIET = (
    "--trainer.accelerator=cpu", "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)  # fmt: skip
ONE_STEP = (
    *QUIET, "--data.batch_size=4", "--data.num_workers=0", "--trainer.accumulate_grad_batches=1",
    "--trainer.limit_train_batches=1",
)  # fmt: skip
NARROW = {
    "vilt": [
        f"--model.backbone.config.{option}"
        for option in (
            "hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2",
            "intermediate_size=16",
        )
    ],
    "meter": [
        *(
            f"--model.backbone.{option}"
            for option in ("hidden_size=16", "num_layers=1", "num_heads=2")
        ),
        *(
            f"--model.backbone.image_kwargs.{option}"
            for option in ("depth=1", "embed_dim=16", "num_heads=2")
        ),
    ],
}  # fmt: skip
NARROW_TEXT = [
    f"--model.backbone.text_encoder.{option}"
    for option in (
        "hidden_size=8", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16"
    )
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _packages():
    pytest.importorskip("transformers")
    pytest.importorskip("mlxtend")


def content(name):
    return yaml.safe_load(packaged_config(f"vl/{name}.yaml").read_text())


def arguments(part):
    return part["init_args"]


# values


def test_every_recipe_is_here():
    names = {name[3:-5] for name in list_configs() if name.startswith("vl/")}
    assert names == {*PUBLISHED, *OURS, *PRETRAINING, "own_pairs", *PRESETS, *DIGITS}


@pytest.mark.parametrize("name", [*PUBLISHED, *OURS])
def test_fine_tuning_has_the_published_values(name):
    recipe = content(name)
    model, data, trainer = arguments(recipe["model"]), arguments(recipe["data"]), recipe["trainer"]
    pairs = data["batch_size"] * trainer.get("accumulate_grad_batches", 1) * PROCESSES
    view = arguments(data["train_transform"])
    pixels = view["shorter"] if name.startswith("vilt") else view["size"]
    factors = (model.get("lr_mult_head", 1), model.get("lr_mult_cross_modal", 1))
    found = (pairs, model["lr"], trainer["max_epochs"], *factors, pixels)
    assert found == (PUBLISHED | OURS)[name]
    assert data["max_length"] == (40 if name.startswith("vilt") else 50)
    assert (view["num_ops"], view["magnitude"]) == (2, 9)
    if name.startswith("meter"):
        assert arguments(model["backbone"])["image_kwargs"] == {"img_size": pixels}
    chosen = [arguments(entry).get("monitor") for entry in trainer["callbacks"][:1]]
    is_chosen = name in ("meter_nlvr2", "meter_snli_ve", "vilt_snli_ve")
    assert chosen == ["val/acc1" if is_chosen else None]


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_has_the_published_values(name):
    recipe = content(name)
    model, data, trainer = arguments(recipe["model"]), arguments(recipe["data"]), recipe["trainer"]
    assert data["batch_size"] * trainer["accumulate_grad_batches"] * PROCESSES == 4096
    assert (trainer["max_steps"], model["warmup_ratio"]) == (100_000, 0.1)
    assert model["lr"] == PRETRAINING[name]
    assert model["wpa_weight"] == (0 if name.startswith("meter") else 0.1)
    assert model["masker"] == arguments(content("uniform60")["model"])["masker"]


def test_vilt_has_the_size_of_the_published_code(built, tmp_path):
    (tmp_path / "data").mkdir()
    vl_layouts.bert_vocabulary(tmp_path / "data/bert-base-uncased")
    words = ["--model.backbone.vit_weights=null", "--trainer.accelerator=cpu"]
    with torch.device("meta"):
        made = built("fit", "--config=vl/vilt_pretrain.yaml", *words)
    count = sum(parameter.numel() for parameter in made.model.parameters())
    second_image = made.model.backbone.hidden_size
    assert round((count - second_image) / 1e6, 2) == 135.66
    assert made.datamodule.eval_transform is made.datamodule.train_transform


@pytest.mark.parametrize("name", PRESETS)
def test_presets_change_the_masker_only(built, name):
    words = ["--config=vl/own_pairs.yaml", "--model.backbone.config.num_hidden_layers=1"]
    with torch.device("meta"):
        before = built("fit", *words, "--model.masker.rate=0.3").config["fit"]
        made = built("fit", *words, f"--config=vl/{name}.yaml")
    kind, rate = PRESETS[name]
    assert (type(made.model.masker).__name__, made.model.masker.rate) == (kind, rate)
    after = made.config["fit"]
    for config in (before, after):
        del config["model"]["init_args"]["masker"]
        del config["config"]
    assert before.as_dict() == after.as_dict()


# one step of each


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``data``, where the recipes look for it."""
    folder = tmp_path_factory.mktemp("vl")
    vl_layouts.write_all(folder / "data")
    return folder


@pytest.fixture(scope="module")
def run(lit_ssl_in, place):
    """Runs `lit-ssl fit` there with a recipe, in small."""

    def start(name, *words, root="runs"):
        family = "meter" if name.startswith("meter") else "vilt"
        given = [f"--config=vl/{name}.yaml", *NARROW[family], *ONE_STEP]
        result = lit_ssl_in(place, "fit", *given, f"--trainer.default_root_dir={root}", *words)
        assert result.code == 0, result.err
        return result

    return start


@pytest.fixture(scope="module")
def vilt(run, place):
    """A step of vl/vilt_pretrain.yaml: its result, and its checkpoint."""
    words = ["--model.backbone.vit_weights=data/vit.pth", "--trainer.max_steps=1"]
    result = run("vilt_pretrain", *words, root="vilt")
    return result, next((place / "vilt").rglob("last.ckpt"))


@pytest.fixture(scope="module")
def meter(run, place):
    """A step of vl/meter_pretrain.yaml: its result, and its checkpoint."""
    words = ["--model.backbone.image_kwargs.pretrained=false", "--trainer.max_steps=1"]
    result = run("meter_pretrain", *words, root="meter")
    return result, next((place / "meter").rglob("last.ckpt"))


@pytest.mark.parametrize("name", ["vilt", "meter"])
def test_pretraining(request, place, name):
    result, checkpoint = request.getfixturevalue(name)
    for metric in ("val/mlm_acc", "val/itm_acc", "val/grounding_true"):
        assert metric in result.out
    assert len(list((place / name).rglob("masked_captions/*.png"))) == 1
    kept = read_checkpoint(checkpoint)
    assert kept["global_step"] == 1
    assert kept["vocabulary"]


def test_pretraining_on_tars(run, caplog):
    caplog.set_level("INFO")
    words = ["--model.backbone.vit_weights=data/vit.pth", "--trainer.max_steps=1"]
    assert "val/mlm_acc" in run("vilt_pretrain_tars", *words).out
    assert "train: cc12m, 4 images with 4 captions (50.0%)" in caplog.text


def test_going_on_with_own_pairs(run, vilt, caplog):
    caplog.set_level("INFO")
    words = ["--data.sources.path=data/images/pairs.csv", f"--model.pretrained={vilt[1]}"]
    words += ["--trainer.max_epochs=1", "--config=vl/whole_word15.yaml"]
    assert "val/mlm_acc" in run("own_pairs", *words).out
    assert "takes backbone, mlm_head, itm_head from" in caplog.text
    assert "WholeWordMasker masks at the rate 0.15" in caplog.text


FEW = {
    "nlvr2": ("test/consistency", ["--then=test"]),
    "vqav2": ("val/vqa_score", ["--data.val_images=1"]),
    "snli_ve": ("test/acc1", ["--then=test"]),
    "coco_retrieval": ("test/text_r1", ["--then=test"]),
    "flickr30k_retrieval": ("test/image_r10", ["--data.num_negatives=5", "--then=test"]),
}


# METER's take longer
TRIED = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith("meter") else name
    for name in (*PUBLISHED, *OURS)
]


@pytest.mark.parametrize("name", TRIED)
def test_fine_tuning(run, request, caplog, name):
    caplog.set_level("INFO")
    family, _, task = name.partition("_")
    checkpoint = request.getfixturevalue(family)[1]
    metric, words = FEW[task]
    words = [*words, f"--model.pretrained={checkpoint}", "--trainer.max_epochs=1"]
    result = run(name, *words, *(NARROW_TEXT if family == "meter" else ()), root=name)
    assert metric in result.out
    assert "takes backbone" in caplog.text
    patches = (PUBLISHED | OURS)[name][-1] // 16
    resized = f"interpolated from 18 × 18 patches to {patches} × {patches}"
    assert (resized in caplog.text) == (family == "meter" and patches != 18)


def test_answers_for_the_server(run, lit_ssl_in, place, vilt):
    run("vilt_vqav2", "--data.val_images=1", "--trainer.max_epochs=1", root="vqa")
    checkpoint = next((place / "vqa").rglob("last.ckpt"))
    words = ["--config=vl/vilt_vqav2.yaml", *NARROW["vilt"], *QUIET, "--data.num_workers=0"]
    words += [f"--ckpt_path={checkpoint}", "--trainer.callbacks+=VQAResults"]
    result = lit_ssl_in(place, "predict", *words, "--trainer.default_root_dir=vqa")
    assert result.code == 0, result.err
    (file,) = (place / "vqa").rglob("*results*.json")
    found = json.loads(file.read_text())
    assert sorted(entry["question_id"] for entry in found) == [1000, 1001]
    assert {entry["answer"] for entry in found} <= {"yes", "no"}


# scenes of digits, by the commands of their comments

FEW_SCENES = (*QUIET, "--trainer.limit_train_batches=2")
SCENES = ("--config=vl/digit_scenes.yaml", "--data.sizes=[32, 0, 8]", "--trainer.max_epochs=1")


@pytest.fixture(scope="module")
def scenes(lit_ssl_in, tmp_path_factory):
    """Two steps of vl/digit_scenes.yaml: the folder of the run."""
    folder = tmp_path_factory.mktemp("scenes")
    result = lit_ssl_in(folder, "fit", *SCENES, *FEW_SCENES)
    assert result.code == 0, result.err
    return folder / "lightning_logs/version_0"


def test_statements_after_scenes(lit_ssl, scenes, caplog):
    caplog.set_level("INFO")
    words = ["--config", "vl/digit_scenes_nlvr2.yaml", "--data.sizes=[16, 0, 5]", *FEW_SCENES]
    words += ["--model.pretrained", scenes / "checkpoints/last.ckpt"]
    result = lit_ssl("fit", *words)
    assert result.code == 0, result.err
    assert "val/consistency" in result.out
    assert "takes backbone from" in caplog.text


def test_retrieval_after_scenes(lit_ssl, scenes):
    words = ["--config", "vl/digit_scenes_retrieval.yaml", "--data.sizes=[48, 0, 9]", *FEW_SCENES]
    words += ["--model.pretrained", scenes / "checkpoints/last.ckpt"]
    untrained = lit_ssl("test", *words)
    assert untrained.code == 0, untrained.err
    result = lit_ssl("fit", *words, "--then", "test")
    assert result.code == 0, result.err
    for given in (untrained, result):
        assert "test/text_r1" in given.out


TYPED = {
    "span": ["--model.masker", "lit_ssl.text.SpanMasker", "--model.masker.rate", "0.4"],
    "words": ["--model.masker", "lit_ssl.text.WholeWordMasker", "--model.masker.min_masked", "1"],
    "content": ["--model.masker", "lit_ssl.text.ContentWordMasker", "--model.masker.rate", "0.4",
                "--model.prediction_rate", "0.15"],
    "rates": ["--model.rate_schedule", "lit_ssl.text.LinearRate",
              "--model.rate_schedule.start", "0.75", "--model.rate_schedule.end", "0.3"],
    "half precision": ["--trainer.precision", "bf16-true"],
    "slow momentum": ["--trainer.strategy", "slowmo"],
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPED)
def test_what_one_types(lit_ssl, kind):
    result = lit_ssl("fit", *SCENES, *FEW_SCENES, *TYPED[kind])
    assert result.code == 0, result.err
    assert "val/mlm_acc" in result.out


# what is wrong is one line, with the file and what to do


@pytest.fixture
def refused(lit_ssl_in, place, tmp_path):
    """Runs a recipe that has to be refused; returns the line."""

    def start(name, *words, family="vilt", command="fit"):
        given = [f"--config=vl/{name}.yaml", *NARROW[family], *ONE_STEP]
        root = f"--trainer.default_root_dir={tmp_path / 'runs'}"
        result = lit_ssl_in(place, command, *given, root, *words)
        assert result.code == 2, result.out
        assert "Traceback" not in result.err
        (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert not list((tmp_path / "runs").rglob("*.ckpt"))
        return line

    return start


def test_broken_lines(refused, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"image": "0.jpg", "caption": "dogs"}\n{"image": "1.jpg", "capt')
    line = refused("own_pairs", f"--data.sources.path={path}", "--data.sources.root=data/images")
    assert f"{path}, line 2: expected a JSON object" in line
    vl_layouts.snli_ve(tmp_path / "snli_ve")
    path = tmp_path / "snli_ve/snli_ve_train.jsonl"
    path.write_text(path.read_text()[:-20])
    line = refused("vilt_snli_ve", f"--data.root={path.parent}")
    assert f"{path}, line 3: expected a JSON object" in line


def test_captions_without_image(refused, tmp_path):
    vl_layouts.captions(tmp_path)
    gone = tmp_path / "coco/train2014/COCO_train2014_000000000003.jpg"
    gone.unlink()
    line = refused("vilt_coco_retrieval", f"--data.source.root={tmp_path / 'coco'}")
    assert "1 of 6 images that" in line
    assert "dataset_coco.json names are not in" in line
    assert gone.name in line
    assert "set missing_images: skip to leave out their 4 of 24 captions" in line


def test_an_empty_caption(refused, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("image,caption\n0.jpg,dogs\n1.jpg,  \n")
    line = refused("own_pairs", f"--data.sources.path={path}", "--data.sources.root=data/images")
    assert f"{path}, line 3: expected a caption as 'caption', found" in line
    assert "Write one, or take out the line" in line


def test_a_vocabulary_without_mask(refused, place, tmp_path):
    path = tmp_path / "vocab.txt"
    pieces = (place / "data/bert-base-uncased/vocab.txt").read_text()
    path.write_text(pieces.replace("[MASK]", "[unusedX]"))
    words = ["--data.sources.path=data/images/pairs.csv", f"--data.tokenizer={path}"]
    line = refused("own_pairs", *words)
    assert f"{path} has no [MASK]" in line
    assert "take one that has it, such as that of bert-base-uncased" in line


def test_another_vocabulary(refused, vilt, meter, tmp_path):
    vl_layouts.bert_vocabulary(tmp_path, [*vl_layouts.WORDS[1:], vl_layouts.WORDS[0]])
    words = [f"--model.pretrained={vilt[1]}", f"--data.tokenizer={tmp_path}/vocab.txt"]
    line = refused("vilt_nlvr2", *words)
    assert f"{vilt[1]} was trained with another vocabulary than that of the data" in line
    assert "Give the data the tokenizer of that training" in line
    small = tmp_path / "small.txt"
    small.write_text("\n".join((tmp_path / "vocab.txt").read_text().splitlines()[:40]))
    words = [f"--model.pretrained={vilt[1]}", f"--data.tokenizer={small}"]
    line = refused("vilt_nlvr2", *words, "--model.backbone.config.vocab_size=40")
    assert f"{vilt[1]} was trained with another vocabulary" in line
    line = refused("vilt_nlvr2", f"--model.pretrained={meter[1]}")
    assert f"{meter[1]} was trained with another vocabulary" in line


def test_files_that_are_not_there(refused):
    words = ["--model.backbone.text_encoder=none", "--model.backbone.image_kwargs.pretrained=false"]
    line = refused("meter_pretrain", *words, family="meter")
    assert "there is no text encoder in none: give a folder" in line
    line = refused("vilt_nlvr2", "--data.tokenizer=none/vocab.txt")
    assert "none/vocab.txt" in line
    assert "expected the file of a vocabulary (vocab.txt), or a folder" in line
    assert "nothing is downloaded" in line
    line = refused("own_pairs")
    assert "expected the file data/pairs.csv" in line
    assert "Set path to the list of images and captions" in line


WITHOUT_PATH = {
    "SpanMasker": " Write it with its path: lit_ssl.text.SpanMasker",
    "SpanMaskre": " Did you mean SpanMasker? Functions, and classes called like one, are written",
    "qqqqqqqq": " Functions, and classes called like one, are written lit_ssl.text.NAME.",
}


@pytest.mark.parametrize("name", WITHOUT_PATH)
def test_a_masker_without_its_path(lit_ssl, name):
    result = lit_ssl("fit", *SCENES, "--model.masker", name)
    assert result.code == 2
    assert f"model.masker: expected Callable[..., Any], got {name!r}.{WITHOUT_PATH[name]}" in (
        result.err
    )


def test_maskers_that_need_more(refused):
    words = ["--data.sources.path=data/images/pairs.csv", "--model.masker"]
    line = refused("own_pairs", *words, "lit_ssl.text.ContentWordMasker")
    assert "ContentWordMasker needs candidates" in line
    assert "tagger" in line
    line = refused("own_pairs", *words, "lit_ssl.text.PMIMasker")
    assert "PMIMasker needs unit_ids" in line
    assert "pmi_vocabulary" in line


def test_a_preset_alone(lit_ssl):
    result = lit_ssl("fit", "--config=vl/uniform60.yaml")
    assert result.code == 2
    assert "option 'masker' is given but no class" in result.err
