"""A checkpoint of a stranger runs no code on the command line; see docs/security.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_checkpoints import ATTACKS, ENTERED, PLAIN, STRINGS, plant, write_checkpoint

DATA = "--data=toy_project.ToyData"


@pytest.fixture
def stranger(lit_ssl, workdir, monkeypatch):
    """Runs `lit-ssl` where a stranger has put files; returns the line that it ends with."""
    plant(workdir)
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.delitem(sys.modules, "planted", raising=False)

    def run(*words):
        result = lit_ssl(*words)
        assert result.code == 2, result.err
        lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert "planted" not in sys.modules
        assert not (workdir / ENTERED).exists()
        return lines[0]

    yield run
    sys.modules.pop("planted", None)


@pytest.mark.parametrize("name", ["function", "module of the folder", "instantiator"])
@pytest.mark.parametrize("command", ["validate", "fit"])
def test_names_of_code_are_refused(stranger, workdir, command, name):
    path = write_checkpoint(workdir / "x.ckpt", ATTACKS[name])
    assert "x.ckpt names" in stranger(command, DATA, "--ckpt_path", path)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_of_a_model_that_the_user_names(stranger, workdir, command):
    path = write_checkpoint(workdir / "x.ckpt", ATTACKS["class in the folder"])
    words = [command, DATA, "--model=ImageClassifier", "--ckpt_path", path]
    line = stranger(*words)
    assert "x.ckpt names planted.Network (model.backbone)" in line
    assert "--model.backbone planted.Network" in line


@pytest.mark.parametrize("name", sorted(STRINGS.keys() - {"YAML in YAML"}))
def test_strings_are_no_names_of_code(stranger, workdir, name):
    path = write_checkpoint(workdir / "x.ckpt", STRINGS[name])
    stranger("validate", DATA, "--ckpt_path", path)


def test_other_words(stranger, workdir):
    path = write_checkpoint(workdir / "x.ckpt", ATTACKS["module of the folder"])
    line = stranger("export", path, "out.safetensors")
    assert "name it yourself, --class planted.ImageClassifier" in line
    stranger("validate", DATA, "--model=PretrainedClassifier", f"--model.model={path}")
    net = write_checkpoint(workdir / "y.ckpt", {**PLAIN, "net": ATTACKS["function"]["backbone"]})
    stranger("nac-prune", net, "small.ckpt", "--keep=1")
    stranger("fit", DATA, "--model=NACFewShot", f"--model.pretrained={net}")


def test_an_unset_backbone(stranger, workdir):
    hparams = {"_class_path": "lit_ssl.methods.BARACK", "num_classes": 2, "num_attributes": 2}
    hparams["predictor_backbone"] = ATTACKS["function"]["backbone"]
    path = write_checkpoint(workdir / "x.ckpt", hparams)
    words = ["--model=BARACK", "--model.backbone=resnet10t", "--ckpt_path", path]
    assert "(model.predictor_backbone)" in stranger("validate", DATA, *words)


class Reduced:
    """Opens a file where it is unpickled."""

    def __reduce__(self):
        return open, (ENTERED, "w")


def test_pickled_objects(stranger, workdir):
    model = "--model=toy_project.ToyModel"
    path = write_checkpoint(workdir / "x.ckpt", {}, callbacks={"x": Reduced()})
    assert "nothing in a file is run" in stranger("validate", DATA, model, "--ckpt_path", path)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_what_is_behind_a_url_is_data(built, command):
    # Lightning by itself runs it
    words = [command, DATA, "--model=toy_project.ToyModel", "--ckpt_path=https://a.org/x.ckpt"]
    assert built(*words).config[command].weights_only is True


# what goes on working


def test_a_class_that_the_user_names(lit_ssl, workdir):
    words = ["--config=recipe.yaml", "--trainer.default_root_dir=made"]
    assert lit_ssl("fit", *words).code == 0
    assert lit_ssl("validate", *words, "--ckpt_path=last").code == 0
    words = ["--trainer.default_root_dir=made", "--trainer.accelerator=cpu", "--ckpt_path=last"]
    refused = lit_ssl("validate", "--data=MNIST5kDataModule", *words)
    assert refused.code == 2
    assert "name it yourself, --model toy_project.ToyModel" in refused.err
    # a class of the same file is named here, and it is enough
    assert lit_ssl("validate", DATA, *words).code == 0
    assert lit_ssl("validate", DATA, "--model=toy_project.ToyModel", *words).code == 0
