"""Captions in tars from the command line."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")
pytest.importorskip("webdataset")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat"]
BACKBONE = {
    "class_path": "lit_ssl.models.ViltBackbone",
    "init_args": {
        "config": {
            "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "image_size": 32, "patch_size": 16,
            "max_position_embeddings": 8,
        },
    },
}  # fmt: skip
QUICK = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--config=model.yaml",
]  # fmt: skip


@pytest.fixture
def tars(workdir):
    """Four shards of four pairs as img2dataset writes them, a model and a vocabulary."""
    for shard in range(4):
        with tarfile.open(workdir / f"{shard:05d}.tar", "w") as tar:
            for number in range(4):
                image = io.BytesIO()
                shape = (20 + number, 24, 3)
                pixels = np.full(shape, 50 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(image, "JPEG")
                fields = json.dumps({"title": "a cat"}).encode()
                for suffix, content in (
                    ("jpg", image.getvalue()), ("json", fields), ("txt", b"a dog"),
                ):  # fmt: skip
                    info = tarfile.TarInfo(f"{shard:05d}{number:04d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        (workdir / f"{shard:05d}_stats.json").write_text(json.dumps({"successes": 4}))
    (workdir / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    arguments = {"backbone": BACKBONE, "masker": {"class_path": "lit_ssl.text.UniformMasker"}}
    model = {"class_path": "VLPretraining", "init_args": arguments}
    (workdir / "model.yaml").write_text(yaml.safe_dump({"model": model}))
    return workdir


def test_a_stream(lit_ssl, tars):
    words = [
        *QUICK, "--data=CaptionShardsDataModule", "--data.shards={00000..00003}.tar",
        "--data.tokenizer=vocab.txt", "--data.num_workers=0", "--data.batch_size=4",
        "--data.image_size=32", "--data.max_length=8",
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--data.val_shards=00000.tar", "--data.streams=2")
    assert result.code == 0, result.err
    # Several sets, from a file; one that is too small is said before the start.
    sets = [{"shards": "0000{0,1,2}.tar", "weight": 2}, {"shards": ["00003.tar"]}]
    sets[1]["caption"] = "title"
    words = [word for word in words if "shards" not in word]
    content = {"data": {"class_path": "CaptionShardsDataModule", "init_args": {"shards": sets}}}
    content["data"]["init_args"]["epoch_samples"] = 8
    (tars / "data.yaml").write_text(yaml.safe_dump(content))
    words = [word for word in words if "--data=" not in word]
    mixed = lit_ssl("fit", "--config=data.yaml", *words)
    assert mixed.code == 0, mixed.err
    few = lit_ssl("fit", "--config=data.yaml", *words, "--data.streams=2")
    assert few.code == 2
    assert "1 shards, such as 00003.tar, cannot be shared among 1 processes with 2" in few.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.shards=pipe:cat 00000.tar"], "runs a command of the shell"),
        (["--data.tokenizer.folder=words"], "train it once on some of the shards with TarPairs"),
        (["--data.shards=x.tar"], "1 of the 1 that x.tar names are not there"),
        (["--data.caption=headline", "--data.epoch_samples=4"], "with a text 'headline'"),
    ],
)
def test_mistakes_are_one_line(lit_ssl, tars, words, message):
    given = [
        *QUICK, "--data=CaptionShardsDataModule", "--data.shards=0000*.tar",
        "--data.tokenizer=vocab.txt", "--data.num_workers=0", "--data.batch_size=4",
        "--data.image_size=32", "--data.max_length=8", *words,
    ]  # fmt: skip
    result = lit_ssl("fit", *given)
    assert result.code == 2
    (line,) = [text for text in result.err.splitlines() if text.startswith("error")]
    assert message in line


def test_help(lit_ssl):
    result = lit_ssl("fit", "--data", "CaptionShardsDataModule", "--data.help")
    assert result.code == 0, result.err
    assert "--data.epoch_samples" in result.out
