"""Weights of other libraries: the network is found by its names, or by a prefix."""

from __future__ import annotations

import argparse
import collections

import pytest
import timm
import torch
import torchvision

from lit_ssl import MSN, PAWS, FineTuning, FrozenEncoder, ImageClassifier, LinearEvaluation
from lit_ssl.checkpoints.encoders import load_encoder, read_encoder_weights
from lit_ssl.errors import InputError

KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
NAME = "vit_tiny_patch16_224"


def state(network, prefix="", without=()):
    return {f"{prefix}{k}": v.clone() for k, v in network.state_dict().items() if k not in without}


def vit(seed=0):
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=0, **KWARGS)


def resnet(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("resnet18", num_classes=0)


def head(prefix, *shape):
    return {f"{prefix}{name}": torch.zeros(*shape) for name in ("0.weight", "2.weight")}


def lightning(names, hparams=None):
    return {"pytorch-lightning_version": "2.5", "state_dict": names, "hyper_parameters": hparams}


class Settings:
    """Stands for a configuration of a package that is not installed here."""

    def __init__(self):
        self.values = collections.OrderedDict(lr=0.1)


# what a file of another library holds, of a network `n` (another is `o`) → the prefix that is said
FILES = {
    "lightly, whole": lambda n, o: (
        lightning({**state(n, "backbone."), **head("projection_head.layers.", 2, 2)}), None
    ),
    "lightly, masked": lambda n, o: (
        lightning({**state(n, "backbone.vit."), "backbone.mask_token": torch.zeros(1)}), None
    ),
    "solo-learn": lambda n, o: (
        lightning({**state(n, "backbone."), "classifier.weight": torch.zeros(3, 4)}, Settings()),
        None,
    ),
    "stable-pretraining": lambda n, o: (
        lightning({**state(n, "backbone.model."), **head("projector.", 3, 3)}), "backbone.model"
    ),
    "a module's model": lambda n, o: (lightning(state(n, "model.")), "model"),
    "state dict of a module": lambda n, o: (state(n, "backbone."), "backbone"),
    "under state_dict": lambda n, o: (
        {"state_dict": {**state(n, "encoder."), **head("head.", 2, 2)}, "epoch": 3}, "encoder"
    ),
    "DDP and compiled": lambda n, o: ({"model": state(n, "module.net._orig_mod.")}, "net"),
    "DINO": lambda n, o: (
        {
            "student": {**state(o, "module.backbone."), **head("module.head.mlp.", 2, 2)},
            "teacher": {**state(n, "backbone."), **head("head.mlp.", 2, 2)},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
            "args": argparse.Namespace(arch="vit_small"),
            "epoch": 100,
        },
        "teacher.backbone",
    ),
    "MoCo": lambda n, o: (
        {
            "arch": "resnet50",
            "state_dict": {
                **state(n, "module.encoder_q."),
                **head("module.encoder_q.fc.", 2, 2),
                **state(o, "module.encoder_k."),
                **head("module.encoder_k.fc.", 2, 2),
                "module.queue": torch.zeros(2, 2),
            },
        },
        "encoder_q",
    ),
    "MoCo v3": lambda n, o: (
        {
            "state_dict": {
                **state(n, "module.base_encoder."),
                **state(o, "module.momentum_encoder."),
                **head("module.base_encoder.head.", 2, 2),
                **head("module.predictor.", 2, 2),
            }
        },
        "base_encoder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", [vit, resnet])
@pytest.mark.parametrize("kind", FILES)
def test_the_one_prefix_that_fits_is_found(tmp_path, kind, make):
    network, other = make(1), make(2)
    content, prefix = FILES[kind](network, other)
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    found = make(3)
    weights = load_encoder(found, path)
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    if prefix is not None:
        assert weights.source == f"{path} (weights under {prefix})"
    if kind == "DINO":
        load_encoder(found, path, online=True)
        assert torch.equal(next(found.parameters()), next(other.parameters()))


CONSUMERS = {
    FrozenEncoder: ("weights", {}),
    LinearEvaluation: ("weights", {"num_classes": 2}),
    ImageClassifier: ("pretrained", {"num_classes": 2}),
    FineTuning: ("pretrained", {"num_classes": 2}),
    MSN: ("pretrained", {"num_prototypes": 4, "proj_hidden_dim": 8, "proj_output_dim": 8}),
    PAWS: ("pretrained", {"proj_output_dim": 8, "pred_hidden_dim": 4}),
}


@pytest.mark.parametrize("method", CONSUMERS)
def test_all_methods_take_them(tmp_path, method):
    content, _ = FILES["DINO"](vit(1), vit(2))
    torch.save(content, tmp_path / "dino.pth")
    option, arguments = CONSUMERS[method]
    module = method(NAME, KWARGS, **arguments, **{option: str(tmp_path / "dino.pth")})
    module.setup("validate")
    assert torch.equal(module.encoder.blocks[0].attn.qkv.weight, vit(1).blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("method", [m for m in CONSUMERS if m not in (MSN, PAWS)])
def test_two_that_fit_are_refused_and_a_prefix_chooses(tmp_path, method):
    names = {**state(vit(1), "student_backbone."), **state(vit(2), "teacher_backbone.")}
    path = str(tmp_path / "run.ckpt")
    option, arguments = CONSUMERS[method]
    for content in (lightning(names), {"state_dict": names}, names):
        torch.save(content, path)
        module = method(NAME, KWARGS, **arguments, **{option: path})
        message = "several networks that fit, 'student_backbone' and 'teacher_backbone': say which"
        with pytest.raises(InputError, match=message):
            module.setup("validate")
        for prefix in ("teacher_backbone", "teacher_backbone.", "module.teacher_backbone"):
            module = method(NAME, KWARGS, **arguments, **{option: path}, prefix=prefix)
            module.setup("validate")
            assert torch.equal(module.encoder.cls_token, vit(2).cls_token)
    module = method(NAME, KWARGS, **arguments, **{option: path}, prefix="teacher_backbon")
    message = r"no weights under the prefix 'teacher_backbon'; it has student_.* Did you mean teach"
    with pytest.raises(InputError, match=message):
        module.setup("validate")


def test_a_momentum_network_beside_the_backbone_is_refused(tmp_path):
    names = {**state(resnet(1), "backbone."), **state(resnet(2), "momentum_backbone.")}
    torch.save(lightning(names), tmp_path / "run.ckpt")
    with pytest.raises(InputError, match="'backbone' and 'momentum_backbone': say which"):
        load_encoder(resnet(), tmp_path / "run.ckpt")
    network = resnet()
    load_encoder(network, tmp_path / "run.ckpt", prefix="momentum_backbone")
    assert torch.equal(network.conv1.weight, resnet(2).conv1.weight)
    found = read_encoder_weights(tmp_path / "run.ckpt", prefix="backbone")
    assert torch.equal(found["conv1.weight"], resnet(1).conv1.weight)


@pytest.mark.parametrize("whole", [True, False])
def test_a_resnet_cut_into_a_sequence(tmp_path, whole):
    """As lightly's tutorials make their backbone: all parts of torchvision's but the last."""
    reference = torchvision.models.resnet18()
    cut = torch.nn.Sequential(*list(reference.children())[:-1])
    names = state(cut, "backbone.")
    torch.save(lightning(names) if whole else names, tmp_path / "lightly.ckpt")
    network = resnet().eval()
    load_encoder(network, tmp_path / "lightly.ckpt")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images), cut.eval()(images).flatten(1))


def test_a_larger_network_of_the_same_names_does_not_fit(tmp_path):
    torch.save(state(timm.create_model("resnet34"), "net."), tmp_path / "larger.pth")
    with pytest.raises(InputError, match=r"not those of the backbone: .*unexpected layer1\.2"):
        load_encoder(resnet(), tmp_path / "larger.pth")
    deeper = timm.create_model(NAME, num_classes=0, **{**KWARGS, "img_size": 32})
    torch.save(state(deeper, "student."), tmp_path / "size.pth")
    with pytest.raises(InputError, match="position embeddings for another image size"):
        load_encoder(vit(), tmp_path / "size.pth")
    torch.save(state(torch.nn.Linear(2, 2), "a."), tmp_path / "none.pth")
    with pytest.raises(InputError, match="not those of the backbone"):
        load_encoder(vit(), tmp_path / "none.pth")


def test_objects_of_foreign_classes_are_not_built(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(Settings, "__setstate__", lambda *a: built.append(a), raising=False)
    torch.save(lightning(state(vit(1), "net."), Settings()), tmp_path / "run.ckpt")
    network = vit()
    load_encoder(network, tmp_path / "run.ckpt")
    assert torch.equal(network.cls_token, vit(1).cls_token)
    assert built == []


def test_own_checkpoints_keep_their_meaning(tiny, tmp_path):
    """A copy of the backbone for other purposes, as BARACK has, is no rival."""
    trainer = tiny.trainer(max_steps=0)
    module = tiny.msn()
    module.first = torch.nn.ModuleDict({"network": tiny.vit()})
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    network = tiny.vit()
    load_encoder(network, tmp_path / "run.ckpt")
    assert torch.equal(network.cls_token, module.encoder.cls_token)
    load_encoder(network, tmp_path / "run.ckpt", prefix="first.network")
    assert torch.equal(network.cls_token, module.first["network"].cls_token)


def dino(network, other, **more):
    """What DINO saves, whose student stands under `module`."""
    return {
        "student": state(other, "module.backbone."),
        "teacher": state(network, "backbone."),
        **more,
    }


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("teacher", "teacher.backbone"),  # the network is found below
        ("student", "student.backbone"),
        ("student.module.backbone", "student.backbone"),  # as the names stand in the file
        ("teacher.backbone.", "teacher.backbone"),
    ],
)
def test_a_prefix_may_be_the_beginning_or_as_the_file_has_it(tmp_path, prefix, found):
    network, other = resnet(1), resnet(2)
    torch.save(dino(network, other), tmp_path / "dino.pth")
    loaded = resnet(3)
    weights = load_encoder(loaded, tmp_path / "dino.pth", prefix=prefix)
    assert weights.source == f"{tmp_path / 'dino.pth'} (weights under {found})"
    expected = network if found.startswith("teacher") else other
    assert torch.equal(loaded.conv1.weight, expected.conv1.weight)


def test_weights_beside_a_state_dict_are_had_by_prefix(tmp_path):
    network, averaged, path = resnet(1), resnet(2), tmp_path / "timm.pth"
    torch.save({"state_dict": state(network), "state_dict_ema": state(averaged)}, path)
    loaded = resnet(3)
    load_encoder(loaded, path)
    assert torch.equal(loaded.conv1.weight, network.conv1.weight)
    load_encoder(loaded, path, prefix="state_dict_ema")
    assert torch.equal(loaded.conv1.weight, averaged.conv1.weight)


def test_dictionaries_with_defaults_are_passed_over(tmp_path):
    network, path = resnet(1), tmp_path / "dino.pth"
    torch.save(dino(network, resnet(2), args=collections.defaultdict(int, epoch=3)), path)
    loaded = resnet(3)
    load_encoder(loaded, path)
    assert torch.equal(loaded.conv1.weight, network.conv1.weight)


@pytest.mark.parametrize("old_format", [False, True])
def test_objects_that_cannot_be_passed_over_are_told_in_words(tmp_path, old_format):
    path, others = tmp_path / "dino.pth", {"args": argparse.Namespace()}
    if not old_format:
        others["args"] = collections.deque([1])
    content = dino(resnet(1), resnet(2), **others)
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(InputError, match=r"it holds objects of classes .* torch.load\(FILE, "):
        read_encoder_weights(path)
    path.write_text("no weights")
    with pytest.raises(InputError, match="it was not written by torch"):
        read_encoder_weights(path)
