"""num_classes flows from the data to models that take it, and into no other checkpoint."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.checkpoints.newest import newest_checkpoint

BASE = ["--config", "recipe.yaml"]


@pytest.mark.parametrize("name", ["Classifier", "StrictClassifier"])
def test_model_takes_the_number_of_the_data(built, name):
    model = built("fit", *BASE, "--model", f"toy_project.{name}").model
    assert (model.classes, model.hparams.num_classes) == (4, 4)


def test_same_number_may_be_given(built):
    words = ["--model", "toy_project.Classifier", "--model.num_classes=4"]
    assert built("fit", *BASE, *words).model.classes == 4


def test_other_number_is_refused(lit_ssl):
    words = ["--model", "toy_project.Classifier", "--model.num_classes=7"]
    result = lit_ssl("fit", *BASE, *words)
    assert result.code == 2
    assert "error: model.num_classes is 7, but ToyData has 4 classes; leave it out" in result.err


def test_data_that_does_not_know_leaves_what_is_given(built, lit_ssl):
    data = ["--data", "toy_project.UnnamedData", "--model", "toy_project.Classifier"]
    assert built("fit", *BASE, *data).model.hparams.num_classes is None
    assert built("fit", *BASE, *data, "--model.num_classes=3").model.hparams.num_classes == 3


@pytest.mark.parametrize("data", ["toy_project.UnnamedData", "toy_project.MyData"])
def test_model_that_needs_a_number_nobody_knows(lit_ssl, data):
    result = lit_ssl("fit", *BASE, "--data", data, "--model", "toy_project.StrictClassifier")
    assert result.code == 2
    assert "error: StrictClassifier needs num_classes, and" in result.err


@pytest.mark.parametrize("name", ["ToyModel", "OtherModel", "Classifier", "StrictClassifier"])
def test_checkpoints_load_and_resume(lit_ssl, workdir, name):
    import toy_project

    words = [*BASE, "--model", f"toy_project.{name}"]
    assert lit_ssl("fit", *words).code == 0
    path = newest_checkpoint([workdir / "checkpoints"]).path
    hparams = torch.load(path, weights_only=True)["hyper_parameters"]
    assert hparams.get("num_classes") == (4 if "Classifier" in name else None)
    assert ("num_classes" in hparams) == ("Classifier" in name)
    model = getattr(toy_project, name).load_from_checkpoint(path, weights_only=True)
    assert model.layers[-1].out_features == 4
    for command in (["fit", "--trainer.max_epochs=2"], ["test"]):
        assert lit_ssl(*command, *words, "--ckpt_path", path).code == 0


def test_checkpoint_keeps_its_number_on_other_data(lit_ssl, workdir, built):
    words = [*BASE, "--model", "toy_project.Classifier"]
    other = ["--data", "toy_project.UnnamedData", "--model.num_classes=9"]
    assert lit_ssl("fit", *words, *other).code == 0
    path = newest_checkpoint([workdir / "checkpoints"]).path
    assert built("test", *words, "--ckpt_path", path).model.classes == 9
