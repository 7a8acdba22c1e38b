"""Every kind of file of weights into everything that takes one; each is read once."""

from __future__ import annotations

import subprocess
import sys

import lightning.pytorch as pl
import pytest
import safetensors.torch
import torch

from lit_ssl import (
    MSN,
    PAWS,
    PMSN,
    FineTuning,
    FrozenEncoder,
    ImageClassifier,
    LinearEvaluation,
    RoPAWS,
    SuNCEt,
)
from lit_ssl.checkpoints.encoders import read_encoder_weights
from lit_ssl.checkpoints.export import export_checkpoint, export_encoder
from lit_ssl.trainer import weights_once

NAME = "test_vit"  # timm's smallest
HEADS = {"proj_hidden_dim": 8, "proj_output_dim": 6}

# what is made of a file → what starts afresh beside a backbone alone
CONSUMERS = {
    "msn": (MSN, {"num_prototypes": 4, **HEADS}, "projection head, prototypes"),
    "pmsn": (PMSN, {"num_prototypes": 4, **HEADS}, "projection head, prototypes"),
    "paws": (PAWS, HEADS, "projection head, prediction head"),
    "ropaws": (RoPAWS, HEADS, "projection head, prediction head"),
    "suncet": (SuNCEt, HEADS, "projection head"),
    "frozen": (FrozenEncoder, {}, ""),
    "classifier": (ImageClassifier, {"num_classes": 3}, "classifier"),
    "finetuning": (FineTuning, {"num_classes": 3}, "classifier"),
    "linear": (LinearEvaluation, {"num_classes": 3}, "heads"),
}


def consumer(name, path=None, **kwargs):
    method, arguments, _ = CONSUMERS[name]
    file = "weights" if method in (FrozenEncoder, LinearEvaluation) else "pretrained"
    return method(backbone=NAME, backbone_kwargs=kwargs, **arguments, **{file: path and str(path)})


def save_run(module, path):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


def official(*parts):
    return {
        f"module.{prefix}{key}": value.clone()
        for prefix, part in zip(("", "fc.", "pred."), parts, strict=False)
        for key, value in part.state_dict().items()
    }


def transformers_names(state):
    renamed = {}
    for key, value in state.items():
        name = key
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("blocks.", "encoder.layer."),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(ours, theirs)
        name = f"layernorm.{name.removeprefix('norm.')}" if name.startswith("norm.") else name
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = rows.clone()
        else:
            renamed[name] = value
    return renamed


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind, all with the same backbone; and that."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    msn, paws = consumer("msn"), consumer("paws")
    with torch.no_grad():
        for p in msn.target_backbone.parameters():
            p.add_(torch.randn_like(p))
    encoder = msn.encoder
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    paws.backbone.load_state_dict(state)
    save_run(msn, folder / "msn.ckpt")
    save_run(paws, folder / "paws.ckpt")
    export_encoder(encoder, folder / "export.safetensors", NAME)
    target = official(encoder, msn.target_head)
    online = official(msn.backbone.vit, msn.projection_head)
    content = {"target_encoder": target, "encoder": online, "prototypes": msn.prototypes.data}
    torch.save({**content, "epoch": 1, "opt": {}}, folder / "official_msn.pth.tar")
    content = official(paws.backbone, paws.projection_head, paws.prediction_head)
    torch.save({"encoder": content, "epoch": 1}, folder / "official_paws.pth.tar")
    hf = transformers_names(state)
    torch.save({**hf, "classifier.weight": torch.zeros(2, 64)}, folder / "vit_msn.bin")
    (folder / "vit_msn").mkdir()
    safetensors.torch.save_file(
        {f"vit.{key}": value for key, value in hf.items()}, folder / "vit_msn/model.safetensors"
    )
    classifier = {"head.weight": torch.zeros(5, 64), "head.bias": torch.zeros(5)}
    torch.save(state | classifier, folder / "plain.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state | classifier, "epoch": 1}, folder / "under_state_dict.pth")
    prefixed = {f"module.{key}": value for key, value in state.items()}
    torch.save({"model": prefixed, "epoch": 1}, folder / "under_model.pth")
    return folder, state


KINDS = [
    "msn.ckpt", "paws.ckpt", "export.safetensors", "official_msn.pth.tar", "official_paws.pth.tar",
    "vit_msn.bin", "vit_msn", "plain.pth", "old.pth", "under_state_dict.pth", "under_model.pth",
]  # fmt: skip
OF_MSN = ("msn.ckpt", "official_msn.pth.tar")
OF_PAWS = ("paws.ckpt", "official_paws.pth.tar")


@pytest.fixture
def opened(monkeypatch):
    """The files that were read, in order."""
    found = []

    def counted(read):
        def reading(path, *args, **kwargs):
            found.append(str(path))
            return read(path, *args, **kwargs)

        return reading

    monkeypatch.setattr(torch, "load", counted(torch.load))
    monkeypatch.setattr(safetensors.torch, "load_file", counted(safetensors.torch.load_file))
    return found


@pytest.fixture
def said(monkeypatch):
    """The lines that were said about what was loaded."""
    lines = []
    monkeypatch.setattr(weights_once, "rank_zero_info", lines.append)
    return lines


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONSUMERS)
def test_each_takes_every_kind_and_reads_it_once(files, opened, said, name, kind):
    folder, state = files
    module = consumer(name, folder / kind)
    if name == "suncet" and kind in OF_PAWS:
        with pytest.raises(ValueError, match="has a prediction head: set use_prediction_head=True"):
            module.setup("validate")
        return
    module.setup("validate")
    module.setup("test")
    assert len(opened) == len(said) == 1
    assert opened[0].startswith(str(folder / kind))
    found = module.encoder.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert said[0].startswith(f"{type(module).__name__} takes backbone")
    assert str(folder / kind) in said[0]
    fresh = CONSUMERS[name][2]
    own = OF_MSN if name in ("msn", "pmsn") else OF_PAWS if "paws" in name else ()
    assert said[0].partition("; starting afresh: ")[2] == ("" if kind in own else fresh)


@pytest.mark.parametrize("kind", KINDS)
def test_export_takes_every_kind_and_reads_it_once(files, opened, tmp_path, kind):
    folder, state = files
    # only the checkpoints of runs and exports tell their network
    name = None if kind.endswith(".ckpt") or kind == "export.safetensors" else NAME
    if name:
        with pytest.raises(ValueError, match="give it, --model-name"):
            export_checkpoint(folder / kind, tmp_path / "x.safetensors")
        opened.clear()
    export_checkpoint(folder / kind, tmp_path / "x.safetensors", name)
    assert len(opened) == 1
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_export_of_a_run_does_without_lightning(files, tmp_path):
    code = (
        "import sys; from lit_ssl.checkpoints.export import export_checkpoint as export;"
        f"export({str(files[0] / 'msn.ckpt')!r}, {str(tmp_path / 'x.safetensors')!r});"
        "print('lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depth": 7}, "missing blocks.6.norm1.weight, blocks.6.norm1.bias, blocks.6.attn"),
        ({"depth": 5}, "unexpected blocks.5.norm1.weight, blocks.5.norm1.bias, blocks.5.attn"),
        ({"mlp_ratio": 2}, "of another shape blocks.0.mlp.fc1.weight [192, 64] instead of [128, "),
        ({"img_size": 32}, "position embeddings for another image size: pos_embed is [1, 101, 64]"),
    ],
)
def test_all_explain_a_misfit_in_the_same_words(files, kwargs, message):
    words = set()
    for name in CONSUMERS:
        with pytest.raises(ValueError, match="the weights in") as error:
            consumer(name, files[0] / "plain.pth", **kwargs).setup("validate")
        words.add(str(error.value))
    assert len(words) == 1
    assert message in words.pop()


@pytest.mark.parametrize(
    ("name", "kind", "arguments", "message"),
    [
        ("msn", "msn.ckpt", {"proj_output_dim": 5}, "not those of the projection head: 2 differ"),
        ("msn", "msn.ckpt", {"num_prototypes": 5}, "prototypes [4, 6] instead of [5, 6]"),
        ("paws", "paws.ckpt", {"proj_hidden_dim": 9}, "not those of the projection head"),
        ("paws", "paws.ckpt", {"pred_hidden_dim": 3}, "not those of the prediction head"),
    ],
)
def test_heads_of_another_width_are_refused(files, name, kind, arguments, message):
    method, usual, _ = CONSUMERS[name]
    module = method(NAME, pretrained=str(files[0] / kind), **{**usual, **arguments})
    with pytest.raises(ValueError, match="of that run") as error:
        module.setup("fit")
    assert message in str(error.value)


def test_heads_come_along_within_a_family(files):
    folder, _ = files
    for name, kind in (("pmsn", "msn.ckpt"), ("ropaws", "paws.ckpt")):
        saved = torch.load(folder / kind, weights_only=True)["state_dict"]
        module = consumer(name, folder / kind)
        module.setup("fit")
        found = module.state_dict()
        assert all(torch.equal(found[key], value) for key, value in saved.items())


def test_what_was_read_outlives_its_file(files, tmp_path):
    path = tmp_path / "copy.pth"
    torch.save(files[1], path)
    found = read_encoder_weights(path)
    path.write_bytes(b"")
    assert all(torch.equal(found[key], value) for key, value in files[1].items())
