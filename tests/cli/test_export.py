"""`lit-ssl export`: timm loads the file and gives the same features, bit by bit."""

from __future__ import annotations

import json
import shutil

import lightning.pytorch as pl
import pytest
import timm
import torch
from safetensors import safe_open

import lit_ssl as package
from lit_ssl.checkpoints.export import export_encoder
from lit_ssl.checkpoints.files import newest_checkpoint
from lit_ssl.errors import InputError

NAME = "vit_tiny_patch16_224"
ARGS = {"img_size": 8, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2}
MODEL = ["--model", "toy_project.TinyViT", f"--model.backbone_kwargs={json.dumps(ARGS)}"]


@pytest.fixture
def trained(lit_ssl, workdir):
    """Trains a TinyViT with the given words; returns the checkpoint."""

    def run(*words):
        assert lit_ssl("fit", "--config", "recipe.yaml", *words).code == 0
        return newest_checkpoint([workdir / "checkpoints"]).path

    return run


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("wrapped", ["false", "true"])
def test_timm_gives_the_same_features(trained, lit_ssl, workdir, wrapped):
    path = trained(*MODEL, f"--model.wrapped={wrapped}", "--data.std=[0.1,0.2,0.3]")
    result = lit_ssl("export", path, "out/vit.safetensors")
    assert result.code == 0
    assert result.out.splitlines()[0] == "wrote out/vit.safetensors; load it with"

    import toy_project

    expected = toy_project.TinyViT.load_from_checkpoint(path, map_location="cpu").eval()
    loaded = eval(result.out.splitlines()[1], {"timm": timm}).eval()
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(loaded(images), expected.vit(images))

    written = metadata(workdir / "out/vit.safetensors")
    assert written["timm_model"] == NAME
    assert json.loads(written["model_args"]) == ARGS
    assert json.loads(written["input_size"]) == [3, 8, 8]
    assert json.loads(written["mean"]) == [0.4, 0.5, 0.6]  # of the class of the data
    assert json.loads(written["std"]) == [0.1, 0.2, 0.3]
    assert written["method"] == "toy_project.TinyViT"
    assert written["lit_ssl_version"] == package.__version__


def test_msn(lit_ssl, workdir, trained):
    words = [
        "--model=MSN",
        f"--model.backbone_kwargs={json.dumps(ARGS)}",
        *("--model.num_prototypes=8", "--model.proj_hidden_dim=16", "--model.proj_output_dim=8"),
        "--data.train_transform=MultiCrop",
        "--data.train_transform.crops=[{size: 8, count: 2}]",
    ]
    path = trained(*words)
    result = lit_ssl("export", path, "msn.safetensors")
    assert result.code == 0, result.err
    module = package.MSN.load_from_checkpoint(path, map_location="cpu").eval()
    loaded = eval(result.out.splitlines()[1], {"timm": timm}).eval()
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(loaded(images), module.encoder(images))
    assert torch.allclose(loaded(images), module(images), atol=1e-5)
    # and the file is a start for another MSN
    assert package.MSN(backbone_kwargs=ARGS, pretrained="msn.safetensors").setup("fit") is None


def test_checkpoint_made_in_python(workdir, lit_ssl):
    import toy_project

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module = toy_project.TinyViT(backbone_kwargs=ARGS)
    trainer.fit(module, toy_project.ToyData(mean=(0.1, 0.1, 0.1), std=(0.2, 0.2, 0.2)))
    trainer.save_checkpoint("python.ckpt")
    result = lit_ssl("export", "python.ckpt", "vit.safetensors")
    assert result.code == 2
    assert result.err == (
        "error: python.ckpt was made in Python: name its class, --class package.Class.\n"
    )
    words = ["export", "python.ckpt", "vit.safetensors", "--class", "toy_project.TinyViT"]
    assert lit_ssl(*words).code == 0
    model = timm.create_model(NAME, checkpoint_path="vit.safetensors", num_classes=0, **ARGS).eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), module.eval().vit(images))
    assert json.loads(metadata("vit.safetensors")["mean"]) == [0.1, 0.1, 0.1]


# words after `export`; below them, what the line says
WRONG = """
none.pt x.safetensors
    no checkpoint none.pt.
check.ckpt x.safetensors
    no checkpoint check.ckpt. Did you mean checkpoint.ckpt?
checkpoint.ckpt x.pth
    x.pth: the name must end in .safetensors
checkpoint.ckpt x.safetensors --model-name resnet18
    timm cannot build 'resnet18' with
checkpoint.ckpt x.safetensors --class toy_project.TinyVit
    toy_project has no class 'TinyVit'. Did you mean TinyViT?
recipe.yaml x.safetensors
    recipe.yaml cannot be read as a checkpoint:
"""


def pairs(text):
    lines = [line.strip() for line in text.strip().splitlines()]
    return list(zip(lines[::2], lines[1::2], strict=True))


@pytest.mark.parametrize(("words", "message"), pairs(WRONG))
def test_what_cannot_be_exported(trained, lit_ssl, workdir, words, message):
    shutil.copy(trained(*MODEL), workdir / "checkpoint.ckpt")
    result = lit_ssl("export", *words.split())
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
    assert not (workdir / "x.safetensors").exists()


def test_model_without_encoder(trained, lit_ssl):
    result = lit_ssl("export", trained(), "x.safetensors")
    assert result.err == "error: toy_project.ToyModel has no module `encoder` to export.\n"


def test_pooling_by_class_token_is_added_where_timm_averages(tmp_path):
    name = "vit_little_patch16_reg4_gap_256"  # averaging, it calls its last norm fc_norm
    args = {**ARGS, "class_token": True}
    encoder = timm.create_model(name, num_classes=0, global_pool="token", **args).eval()
    how = export_encoder(encoder, tmp_path / "x.safetensors", name, args)
    assert "global_pool='token'" in how
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(eval(how, {"timm": timm}).eval()(images), encoder(images))


def test_grey_images_have_no_colour_normalisation(tmp_path):
    args = {**ARGS, "in_chans": 1}
    encoder = timm.create_model(NAME, num_classes=0, **args)
    export_encoder(encoder, tmp_path / "x.safetensors", NAME, args)
    written = metadata(tmp_path / "x.safetensors")
    assert (json.loads(written["input_size"]), json.loads(written["mean"])) == ([1, 8, 8], [])
    export_encoder(encoder, tmp_path / "y.safetensors", NAME, args, (0.1307,), (0.3081,))
    assert json.loads(metadata(tmp_path / "y.safetensors")["mean"]) == [0.1307]


def test_other_network_of_the_same_names(tmp_path):
    encoder = timm.create_model(NAME, num_classes=0, **ARGS)
    with pytest.raises(InputError, match=r"has shape \[1, 5, 12\], not \[1, 17, 12\]"):
        export_encoder(encoder, tmp_path / "x.safetensors", NAME, {**ARGS, "img_size": 16})
    with pytest.raises(InputError, match=r"their weights differ, e\.g\. blocks\.1"):
        export_encoder(encoder, tmp_path / "x.safetensors", NAME, {**ARGS, "depth": 1})
