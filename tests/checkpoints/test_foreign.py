"""A checkpoint of a stranger runs no code when it is loaded in Python; see docs/security.md."""

from __future__ import annotations

import json
import pickle
import sys
from argparse import ArgumentError
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from lit_ssl.checkpoints import classes
from lit_ssl.checkpoints.classes import ForeignClassError, Names
from lit_ssl.checkpoints.export import export_checkpoint
from lit_ssl.checkpoints.files import read_file
from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.errors import InputError
from lit_ssl.methods import MSN, ImageClassifier, NACFewShot, PretrainedClassifier
from lit_ssl.methods.nac.pruned_checkpoint import prune_checkpoint
from lit_ssl.models import TextBackbone, load_exported
from lit_ssl.text.tokens import load_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_checkpoints import ATTACKS, ENTERED, PLAIN, STRINGS, plant, write_checkpoint

INSTANTIATOR = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}


class Reduced:
    """Opens a file where it is unpickled."""

    def __reduce__(self):
        return open, (ENTERED, "w")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder of a stranger, on Python's path."""
    plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    yield tmp_path
    sys.modules.pop("planted", None)
    assert not (tmp_path / ENTERED).exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_names_of_code_are_refused(folder, name):
    path = write_checkpoint(folder / "x.ckpt", {**INSTANTIATOR, **ATTACKS[name]})
    with pytest.raises(InputError, match=r"x\.ckpt"):
        ImageClassifier.load_from_checkpoint(path)
    assert "planted" not in sys.modules


@pytest.mark.parametrize("name", STRINGS)
def test_strings_are_no_names_of_code(folder, name):
    path = write_checkpoint(folder / "x.ckpt", {**INSTANTIATOR, **STRINGS[name]})
    # there is no such network, or no such argument of it
    with pytest.raises((InputError, TypeError, ArgumentError)):
        ImageClassifier.load_from_checkpoint(path)
    assert "planted" not in sys.modules


@pytest.mark.parametrize("name", ["function", "class in the folder", "module of the folder"])
def test_no_door_builds_what_a_file_names(folder, name):
    path = write_checkpoint(folder / "x.ckpt", ATTACKS[name])
    net = write_checkpoint(folder / "net.ckpt", {**ATTACKS[name], "net": ATTACKS[name]["backbone"]})
    for enter in (
        lambda: export_checkpoint(path, "out.safetensors"),
        lambda: export_checkpoint(path, "out.safetensors", class_path=PLAIN["_class_path"]),
        lambda: PretrainedClassifier(str(path)),
        lambda: NACFewShot(num_classes=2, pretrained=str(net)),
        lambda: prune_checkpoint(net, "small.ckpt", keep=1),
    ):
        with pytest.raises(InputError):
            enter()
    assert "planted" not in sys.modules


def nested(value, times, copies=1):
    for _ in range(times):
        value = [value] * copies
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (nested(1, 12, copies=10), "more than 100,000"),
        (nested(1, 300), "too deeply"),
        ("a" * 10_000_000, "10,000,000 characters"),
        (None, "hold themselves"),
    ],
)
def test_hyper_parameters_that_stand_for_too_much(folder, value, why):
    loop = []
    loop.append(loop)
    hparams = {**PLAIN, "backbone_kwargs": {"a": loop if value is None else value}}
    path = write_checkpoint(folder / "x.ckpt", {**INSTANTIATOR, **hparams})
    data = {"_class_path": "lit_ssl.datamodules.MNIST5kDataModule", **INSTANTIATOR, **hparams}
    of_data = write_checkpoint(folder / "y.ckpt", {}, datamodule_hyper_parameters=data)
    for enter in (
        lambda: ImageClassifier.load_from_checkpoint(path),
        lambda: ImageClassifier.load_from_checkpoint(path.as_uri()),
        lambda: export_checkpoint(path, "out.safetensors"),
        lambda: export_checkpoint(of_data, "out.safetensors"),
        lambda: MNIST5kDataModule.load_from_checkpoint(of_data),
        lambda: PretrainedClassifier(str(path)),
    ):
        with pytest.raises(InputError, match=f"hyper-parameters.*{why}"):
            enter()


def test_aliases_in_a_file_of_hyper_parameters(folder):
    path = write_checkpoint(folder / "x.ckpt", dict(PLAIN))
    (folder / "a.yaml").write_text(yaml.safe_dump({**PLAIN, "milestones": nested([1], 12, 10)}))
    (folder / "b.yaml").write_text("milestones: &a [*a]\n")
    (folder / "c.yaml").write_text("milestones: " + "[" * 5000 + "]" * 5000)
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        with pytest.raises(InputError):
            ImageClassifier.load_from_checkpoint(path, hparams_file=name)


def test_hyper_parameters_in_a_file_beside_it(folder):
    path = write_checkpoint(folder / "x.ckpt", dict(PLAIN))
    (folder / "hparams.yaml").write_text(yaml.safe_dump(INSTANTIATOR | ATTACKS["function"]))
    (folder / "tags.yaml").write_text("backbone: !!python/name:planted.network ''\n")
    (folder / "row.csv").write_text("key,value\n_instantiator,planted.instantiate\n")
    for name in ("hparams.yaml", "tags.yaml", "row.csv"):
        with pytest.raises(InputError):
            ImageClassifier.load_from_checkpoint(path, hparams_file=name)
    assert "planted" not in sys.modules


def test_old_places_of_hyper_parameters(folder):
    path = write_checkpoint(folder / "x.ckpt", {}, module_arguments=ATTACKS["instantiator"])
    with pytest.raises(ForeignClassError):
        ImageClassifier.load_from_checkpoint(path)


def test_data_modules(folder):
    data = {"_class_path": "planted.Data", **INSTANTIATOR}
    path = write_checkpoint(folder / "x.ckpt", {}, datamodule_hyper_parameters=data)
    with pytest.raises(ForeignClassError, match=r"planted\.Data"):
        MNIST5kDataModule.load_from_checkpoint(path)
    data = {"_class_path": "lit_ssl.datamodules.MNIST5kDataModule", **INSTANTIATOR, "allow_pipe": 1}
    path = write_checkpoint(folder / "x.ckpt", {}, datamodule_hyper_parameters=data)
    with pytest.raises(ForeignClassError, match="allow_pipe"):
        MNIST5kDataModule.load_from_checkpoint(path)


@pytest.mark.parametrize("kind", [MSN, MNIST5kDataModule])
@pytest.mark.parametrize("weights_only", [None, False])
def test_trust_does_not_mend_a_file(folder, kind, weights_only):
    path = folder / "x.ckpt"
    write_checkpoint(path, {}, datamodule_hyper_parameters={})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut short"):
        kind.load_from_checkpoint(path, weights_only=weights_only)


@pytest.mark.parametrize("how", ["path", "file", "url", "old format", "bare pickle"])
def test_pickled_objects(folder, how):
    content = {"state_dict": {}, "hyper_parameters": {}, "callbacks": {"x": Reduced()}}
    path = folder / "x.ckpt"
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how != "old format")
    source = path if how != "url" else path.as_uri()
    if how == "file":
        with path.open("rb") as file, pytest.raises(InputError):
            MSN.load_from_checkpoint(file)
    else:
        with pytest.raises(InputError):
            MSN.load_from_checkpoint(source)
    for read in (lambda: read_file(path), lambda: MNIST5kDataModule.load_from_checkpoint(path)):
        with suppress(InputError, KeyError):  # plain values beside the object may be read
            read()


@pytest.mark.parametrize("part", ["callbacks", "optimizer_states", "loops", "MNIST5kDataModule"])
def test_pickled_states(folder, part):
    path = write_checkpoint(folder / "x.ckpt", dict(PLAIN), **{part: {"x": Reduced()}})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(pickle.UnpicklingError):
        trainer.strategy.load_checkpoint(path)  # as fit, validate, test and predict do


def test_the_description_in_an_exported_file(folder):
    torch.save({"x": Reduced()}, folder / "planted.pth")
    about = {
        "timm_model": "resnet10t",
        "model_args": json.dumps({"checkpoint_path": "planted.pth"}),
    }
    save_file({"x": torch.zeros(1)}, folder / "x.safetensors", metadata=about)
    with pytest.raises(InputError, match="asks for another file, by checkpoint_path"):
        load_exported(folder / "x.safetensors")
    for name, text, why in (
        ("resnet10t", "[" * 100_000, "no JSON object"),
        ("resnet10t", "{}", "does not hold the weights"),
        ("vit_tiny_patch16_224", '{"img_size": [0, 0]}', "cannot build|does not hold"),
        ("local-dir:nowhere", "{}", "the network of another place"),
        ("a/b", "{}", "cannot build|the network of another place"),
    ):
        about = {"timm_model": name, "model_args": text}
        save_file({"x": torch.zeros(1)}, folder / "z.safetensors", metadata=about)
        with pytest.raises(InputError, match=why):
            load_exported(folder / "z.safetensors")
    part = {"class_path": "planted.Network", "init_args": {}}
    args = {"tokenizer": part, "num_modules": 2}
    about = {"lit_ssl_model": "NeuralAttentiveCircuit", "model_args": json.dumps(args)}
    save_file({"x": torch.zeros(1)}, folder / "y.safetensors", metadata=about)
    with pytest.raises(InputError, match="a description must not choose code"):
        load_exported(folder / "y.safetensors")


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg"])
def test_weights_for_timm(folder, key):
    torch.save({"x": Reduced()}, folder / "planted.pth")
    value = "planted.pth" if key == "checkpoint_path" else {"file": "planted.pth"}
    with pytest.raises(InputError, match=r"planted\.pth holds other objects"):
        ImageClassifier("resnet10t", {key: value, "pretrained": True}, num_classes=2)


def test_a_folder_of_transformers_with_code(folder):
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "planted.Network"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        TextBackbone(str(folder))
    with pytest.raises(InputError):
        load_tokenizer(str(folder))


# what goes on working


class Small(nn.Linear):
    """A network of a person."""

    embed_dim = 4

    def __init__(self, width: int = 4):
        super().__init__(4, width)


class OwnClassifier(ImageClassifier):
    """A method of a person."""


def test_classes_of_the_file_that_a_person_has_named(folder):
    own = {"class_path": f"{__name__}.Small", "init_args": {"width": 4}}
    hparams = {**INSTANTIATOR, **PLAIN, "_class_path": f"{__name__}.OwnClassifier", "backbone": own}
    module = OwnClassifier(Small(), num_classes=2)
    path = write_checkpoint(folder / "x.ckpt", hparams, state_dict=module.state_dict())
    loaded = OwnClassifier.load_from_checkpoint(path)
    assert isinstance(loaded.backbone, Small)
    with pytest.raises(ForeignClassError, match="call it of the class that the file is of"):
        ImageClassifier.load_from_checkpoint(path)
    # a network that the person gives takes the place of the one that the file names
    hparams["_class_path"] = PLAIN["_class_path"]
    path = write_checkpoint(folder / "y.ckpt", hparams, state_dict=module.state_dict())
    with pytest.raises(ForeignClassError, match=r"Small \(model\.backbone\)"):
        ImageClassifier.load_from_checkpoint(path)


@pytest.mark.parametrize(
    "name",
    [
        "lit_ssl.MSN", "lit_ssl.methods.MSN", "lit_ssl.methods.msn.MSN", "lit_ssl.models.SmallCNN",
        "lit_ssl.text.UniformMasker", "lit_ssl.datamodules.MNIST5kDataModule", "torch.nn.ReLU",
        "lit_ssl.models.nac.kernel.KernelOptions", "torch.nn.modules.linear.Linear",
        "torch.optim.AdamW", "torch.optim.lr_scheduler.CosineAnnealingLR", "timm.optim.Lamb",
        "timm.models.VisionTransformer", "timm.models.vision_transformer.VisionTransformer",
        "timm.layers.Mlp", "torchvision.models.ResNet", "torchvision.ops.MLP",
    ],
)  # fmt: skip
def test_allowed(name):
    assert Names("x.ckpt").find(name).__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize(
    "name",
    [
        "lit_ssl.methods.os.system", "lit_ssl.cli.training.LitSSLCLI", "lit_ssl.errors.InputError",
        "lit_ssl.metrics.video.features.FileFeatures", "torch.nn.functional.relu", "torch.load",
        "torch.nn.utils.parametrize.ParametrizationList", "torch.hub.load", "timm.create_model",
        "timm.models.create_model", "timm.task.DistillationTeacher", "timm.models.checkpoint",
        "torchvision.models.resnet18", "transformers.pipeline", "builtins.eval", "eval", "a..b",
        "torch.nn.Module.forward", "torch.nn.modules.os.system", "planted.Network", "", None, 3,
        "lightning.pytorch.Trainer", "torch.nn.parallel.DistributedDataParallel",
    ],
)  # fmt: skip
def test_refused(name):
    with pytest.raises(ForeignClassError, match=r"x\.ckpt names"):
        Names("x.ckpt").find(name)


def test_a_file_of_the_working_folder_is_no_package(folder, monkeypatch):
    monkeypatch.setitem(classes._PLACES, "planted", ("planted",))
    monkeypatch.setitem(classes._IMPORTED, "planted", ("planted",))
    with pytest.raises(ForeignClassError, match="No module named 'planted'"):
        Names("x.ckpt").find("planted.Network")
    assert str(folder) in sys.path


def test_one_object_in_two_places(folder):
    shared = {"checkpoint_path": "planted.pth"}
    inside = {"class_path": "timm.models.VisionTransformer", "init_args": {"a": shared}}
    for hparams in ({"a": shared, "b": inside}, {"b": inside, "a": shared}):
        with pytest.raises(ForeignClassError, match="checkpoint_path"):
            Names("x.ckpt").check(hparams)
    around: dict = {1: "numbers may be names"}
    around["itself"] = [around]
    Names("x.ckpt").check(around)


def test_names_of_files_are_no_names_of_classes(folder):
    # a person has typed model.ckpt, not asked for what model.py has in it
    assert classes.class_paths({"ckpt_path": "planted.Network", "a": [{"class_path": "b.C"}]}) == {
        "b.C"
    }
