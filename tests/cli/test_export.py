"""`lit-ssl export`: timm loads the file and gives the same features, bit by bit."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import lit_ssl as package
from lit_ssl.checkpoints.encoder_to_export import find_exportable
from lit_ssl.checkpoints.export import export_checkpoint, export_encoder
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.errors import InputError
from lit_ssl.methods import GroupRobustClassifier
from lit_ssl.models import SmallCNN, TextBackbone

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import TOKEN, Hub

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
    result = lit_ssl("export", path, "out/vit.safetensors", "--class", "toy_project.TinyViT")
    assert result.code == 0, result.err
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
checkpoint.ckpt x.pth --class toy_project.TinyViT
    x.pth: the name must end in .safetensors
checkpoint.ckpt x.safetensors --class toy_project.TinyViT --model-name resnet18
    timm cannot build 'resnet18' with
checkpoint.ckpt x.safetensors --class toy_project.TinyVit
    toy_project has no class 'TinyVit'. Did you mean TinyViT?
checkpoint.ckpt x.safetensors
    checkpoint.ckpt names toy_project.TinyViT (model), which is not of this package
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
    result = lit_ssl("export", trained(), "x.safetensors", "--class=toy_project.ToyModel")
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


# every backbone that a method can have → features of what is loaded again


def save(module, path):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


def trained_a_little(module):
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and "running" not in name:
                value.add_(0.1 * torch.randn(value.shape))
    return module.eval()


HEADS = {"num_prototypes": 4, "proj_hidden_dim": 8, "proj_output_dim": 8}
GAP = "vit_medium_patch16_gap_240"  # without fc_norm: the same names under both poolings
SMALL = {"img_size": 32, "depth": 1, "embed_dim": 12, "num_heads": 2}
RUNS = {
    "MSN": lambda: package.MSN(NAME, SMALL, **HEADS),
    "MSN, stem": lambda: package.MSN("vitc_4gf", {"depth": 1, "img_size": 32}, **HEADS),
    "MSN, gap": lambda: package.MSN(GAP, {**SMALL, "class_token": True}, **HEADS),
    "MSN, fc_norm": lambda: package.MSN(NAME, {**SMALL, "fc_norm": True}, **HEADS),
    "MSN, registers": lambda: package.MSN(NAME, {**SMALL, "reg_tokens": 2}, **HEADS),
    "frozen gap": lambda: package.FrozenEncoder(GAP, {**SMALL, "class_token": True}),
    "frozen DINOv2": lambda: package.FrozenEncoder("vit_small_patch14_dinov2", {"depth": 1}),
    "frozen DeiT": lambda: package.FrozenEncoder("deit_tiny_distilled_patch16_224", {"depth": 1}),
    "frozen BEiT": lambda: package.FrozenEncoder("beit_base_patch16_224", {"depth": 1}),
    "classifier avg": lambda: package.ImageClassifier(
        NAME, {**SMALL, "global_pool": "avg"}, num_classes=2
    ),
    "PAWS, gap": lambda: package.PAWS(GAP, SMALL, proj_output_dim=4),
    "PAWS, WRN": lambda: package.PAWS(
        "wide_resnet", {"depth": 10, "width": 1, "in_chans": 1}, proj_output_dim=4
    ),
    "PAWS, WRN-28-2": lambda: package.PAWS("wide_resnet28_2", proj_output_dim=4),
    "classifier, ResNet": lambda: package.ImageClassifier("resnet10t", num_classes=2),
}


@pytest.mark.parametrize("run", RUNS)
def test_what_is_loaded_gives_the_features_of_the_method(tmp_path, run):
    module = trained_a_little(RUNS[run]())
    path = save(module, tmp_path / "run.ckpt")
    how = export_checkpoint(path, tmp_path / "x.safetensors")
    loaded = eval(how, {"timm": timm, "lit_ssl": package}).eval()
    size = json.loads(metadata(tmp_path / "x.safetensors")["input_size"])
    images = torch.randn(2, *size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), module(images), rtol=1e-3, atol=1e-4)
        again = package.models.load_exported(tmp_path / "x.safetensors")
        assert torch.equal(again(images), loaded(images))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.ckpt", "x.safetensors"]


def test_networks_that_a_recipe_names_by_class(tmp_path):
    """As `lit-ssl fit` stores them: class path and arguments."""
    module = GroupRobustClassifier(
        SmallCNN(in_chans=3, img_size=20, width=2), num_classes=2, num_attributes=2
    )
    path = save(trained_a_little(module), tmp_path / "run.ckpt")
    content = torch.load(path, weights_only=True)
    init = {"in_chans": 3, "img_size": 20, "width": 2}
    backbone = {"class_path": "lit_ssl.models.SmallCNN", "init_args": init}
    content["hyper_parameters"] |= {
        "backbone": backbone, "_class_path": "lit_ssl.methods.GroupRobustClassifier",
    }  # fmt: skip
    torch.save(content, path)
    images = torch.randn(2, 3, 20, 20)
    for number, options in enumerate(({}, {"model_name": "SmallCNN", "model_args": init})):
        how = export_checkpoint(path, tmp_path / f"{number}.safetensors", **options)
        loaded = eval(how, {"lit_ssl": package})
        assert torch.equal(loaded(images), module(images))
    content["hyper_parameters"]["backbone"] = {"class_path": "os.Other", "init_args": {}}
    torch.save(content, path)
    with pytest.raises(InputError, match="is no timm name: give it, --model-name"):
        export_checkpoint(path, tmp_path / "x.safetensors")


def test_text_encoders(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "bert")
    text = TextBackbone(str(tmp_path / "bert"))
    module = trained_a_little(GroupRobustClassifier(text, num_classes=2, num_attributes=2))
    path = save(module, tmp_path / "run.ckpt")
    args = {"path": str(tmp_path / "bert")}
    how = export_checkpoint(path, tmp_path / "x.safetensors", "TextBackbone", model_args=args)
    tokens = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3).long()}
    loaded = eval(how, {"lit_ssl": package})
    torch.testing.assert_close(loaded(tokens), module(tokens))
    with warnings.catch_warnings():  # of images nothing is said
        warnings.simplefilter("error")
        assert find_exportable(path, "TextBackbone", model_args=args).size == []


def test_a_network_that_computes_something_else_is_not_exported(tmp_path):
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = timm.create_model(NAME, num_classes=0, **ARGS)

        def forward(self, images):
            return self.vit.forward_features(images).mean(dim=1)

    with pytest.raises(InputError, match=r"not exported: what .* \(features differ by up to \d"):
        export_encoder(Other(), tmp_path / "x.safetensors", NAME, ARGS)
    assert list(tmp_path.iterdir()) == []
    broken = timm.create_model(NAME, num_classes=0, **ARGS)
    broken.norm.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="are not finite"):
        export_encoder(broken, tmp_path / "x.safetensors", NAME, ARGS)
    (tmp_path / "x.safetensors").write_text("of before")
    with pytest.raises(InputError, match=r"x\.safetensors exists: give another name, or remove"):
        export_encoder(broken, tmp_path / "x.safetensors", NAME, ARGS)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["of before"]


def test_an_old_run_that_took_the_class_token_of_an_averaging_network(tmp_path):
    """MSN no longer trains it: its checkpoint would load in timm with other features."""
    network = timm.create_model(NAME, num_classes=0, **SMALL, global_pool="avg", fc_norm=False)
    names = {f"target_backbone.vit.{k}": v for k, v in network.state_dict().items()}
    hparams = {"backbone": NAME, "backbone_kwargs": {**SMALL, "global_pool": "avg"}}
    hparams["backbone_kwargs"]["fc_norm"] = False
    content = {"pytorch-lightning_version": "2.5", "state_dict": names}
    torch.save({**content, "hyper_parameters": hparams}, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match=r"it pools otherwise \(global_pool\)"):
        export_checkpoint(tmp_path / "old.ckpt", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_files_of_other_libraries(lit_ssl, workdir):
    one, two = (timm.create_model(NAME, num_classes=0, **ARGS) for _ in range(2))
    names = {f"student_backbone.{k}": v for k, v in one.state_dict().items()}
    names |= {f"teacher_backbone.{k}": v for k, v in two.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.5", "state_dict": names}, "run.ckpt")
    words = ["export", "run.ckpt", "x.safetensors", "--model-name", NAME]
    words += ["--model-args", json.dumps(ARGS)]
    assert lit_ssl(*words).err.startswith("error: run.ckpt was made in Python: name its class")
    result = lit_ssl(*words, "--prefix", "teacher_backbone")
    assert result.code == 0, result.err
    loaded = eval(result.out.splitlines()[1], {"timm": timm}).eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), two.eval()(images))
    result = lit_ssl(*words[:-1], "{img_size", "--prefix", "teacher_backbone")
    assert result.err.startswith("error: --model-args is no JSON such as")


def test_what_was_not_exported_is_not_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        package.models.load_exported(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="was not written by `lit-ssl export`"):
        package.models.load_exported(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_text("text")
    with pytest.raises(InputError, match="is no file of safetensors"):
        package.models.load_exported(tmp_path / "x.safetensors")


HINTS = {"ViltBackbone": r"backbone\.model\.save_pretrained", "CoAttentionBackbone": ""}


@pytest.mark.parametrize("kind", HINTS)
def test_networks_over_images_and_texts(tmp_path, kind):
    backbone = {"class_path": f"lit_ssl.models.{kind}", "init_args": {}}
    hparams = {"_class_path": "lit_ssl.methods.VLPretraining", "backbone": backbone}
    content = {"pytorch-lightning_version": "2.5", "hyper_parameters": hparams}
    content["state_dict"] = {"backbone.model.a": torch.zeros(1)}
    torch.save(content, tmp_path / "vl.ckpt")
    with pytest.raises(InputError, match=f"no encoder to export: hand the .*{HINTS[kind]}"):
        export_checkpoint(tmp_path / "vl.ckpt", tmp_path / "x.safetensors")


# what is written beside a file for timm


@pytest.fixture(scope="module")
def msn(tmp_path_factory):
    """A checkpoint of MSN, in the folder of its run."""
    folder = tmp_path_factory.mktemp("run")
    module = trained_a_little(package.MSN(NAME, ARGS, **HEADS))
    (folder / "config.yaml").write_text("data: {class_path: a.Cats, init_args: {root: /home/x/y}}")
    (folder / "checkpoints").mkdir()
    return save(module, folder / "checkpoints/last.ckpt")


def test_a_folder_that_timm_loads(lit_ssl, workdir, msn):
    rows = [{"features": "trained", "knn_acc1": 0.5}]
    (workdir / "report.json").write_text(json.dumps({"rows": rows, "protocol": {}}))
    result = lit_ssl("export", msn, "out/vit", "--report", "report.json", "--license", "mit")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "wrote out/vit; load it with"
    assert lines[-2:] == ["upload it with", "  hf upload USER/NAME out/vit"]
    loaded = package.models.load_exported("out/vit")
    images = torch.randn(2, 3, 8, 8)
    expected = package.MSN.load_from_checkpoint(msn).encoder
    assert torch.equal(loaded(images), expected(images))
    names = ["README.md", "config.json", "config.yaml", "model.safetensors"]
    assert sorted(path.name for path in (workdir / "out/vit").iterdir()) == names
    assert "…/y" in (workdir / "out/vit/config.yaml").read_text()
    again = lit_ssl("export", msn, "out/vit")
    assert again.err.startswith("error: out/vit holds README.md, config.json")


def test_transformers(lit_ssl, workdir, msn):
    images = torch.randn(2, 3, 8, 8)
    expected = package.MSN.load_from_checkpoint(msn).encoder(images).detach()
    result = lit_ssl("export", msn, "hf", "--format", "transformers")
    assert result.code == 0, result.err
    from transformers import AutoModel

    found = AutoModel.from_pretrained("hf")(images).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    words = ["--model-name", NAME, "--model-args", json.dumps(ARGS)]
    result = lit_ssl("export", "hf", "again.safetensors", *words)  # back to timm
    assert result.code == 0, result.err
    again = package.models.load_exported("again.safetensors")(images)
    torch.testing.assert_close(again, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_onnx(lit_ssl, workdir, msn):
    onnxruntime = pytest.importorskip("onnxruntime")
    images = torch.randn(3, 3, 8, 8)
    result = lit_ssl("export", msn, "vit.onnx")
    assert result.code == 0, result.err
    assert "opset 18, float32; images [batch, 3, 8, 8]" in result.out
    session = onnxruntime.InferenceSession("vit.onnx")
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    expected = package.MSN.load_from_checkpoint(msn).encoder(images).detach()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_push(lit_ssl, workdir, msn, monkeypatch):
    hub = Hub().use(monkeypatch, workdir / "cache")
    words = ["export", msn, "out", "--push", "someone/vit"]
    assert lit_ssl(*words).err.startswith("error: --push needs a login at the hub: run `hf auth")
    assert not (workdir / "out").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = lit_ssl(*words, "--private")
    assert result.code == 0, result.err
    assert "someone/vit is new and will be private\npushed to http" in result.out
    card = hub.repositories["someone/vit"].files("main")["README.md"].decode()
    assert "timm.create_model('hf-hub:someone/vit', pretrained=True)" in card
    shutil.rmtree("out")
    assert lit_ssl(*words).err.startswith("error: someone/vit exists, with 4 files such as")
    assert not (workdir / "out").exists()
    assert lit_ssl(*words, "--update").code == 0
    result = lit_ssl("export", "hf-hub:someone/vit", "again.safetensors")
    assert result.code == 0, result.err
    hub.close()


ODD = """
x.onnx --format timm
    x.onnx: with --format timm the name must end in .safetensors
x.safetensors --format folder
    x.safetensors: --format folder writes a folder
x.v2
    x.v2: the name must end in .safetensors (for timm) or .onnx
x.onnx --license mit
    --license is for the card: say --format folder
x --private
    --private goes with --push USER/NAME
x --report nowhere
    no report at nowhere
x --format tim
    argument --format: invalid choice
"""


@pytest.mark.parametrize(("words", "message"), pairs(ODD))
def test_odd_formats_are_one_line(lit_ssl, workdir, words, message):
    result = lit_ssl("export", "none.ckpt", *words.split())
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1
