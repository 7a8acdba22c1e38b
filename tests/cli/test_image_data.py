"""Image data modules that are made of others, and those with several evaluation sets."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lit_ssl.checkpoints.newest import newest_checkpoint

BASE = ["--config", "recipe.yaml", "--model", "toy_project.Classifier"]
FEW_SHOT = """\
data:
  class_path: FewShotDataModule
  init_args:
    data:
      class_path: toy_project.ToyData
    ways: 3
    shots: 2
"""


def test_an_episode_is_fitted_tested_and_resumed(lit_ssl, workdir):
    (workdir / "few.yaml").write_text(FEW_SHOT)
    words = [*BASE, "--config", "few.yaml", "--data.data.seed=4"]
    assert lit_ssl("fit", *words).code == 0
    path = newest_checkpoint([workdir / "checkpoints"]).path
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["num_classes"] == 3
    found = content["datamodule_hyper_parameters"]
    assert found["data"]["class_path"] == "toy_project.ToyData"
    assert (found["data"]["init_args"]["seed"], found["shots"]) == (4, 2)
    for command in (["fit", "--trainer.max_epochs=2"], ["validate"], ["test"], ["predict"]):
        result = lit_ssl(*command, *words, "--ckpt_path", path)
        assert result.code == 0, result.err


def test_some_classes_from_words_alone(built):
    words = ["--data=SomeClassesDataModule", "--data.data=MNIST5kDataModule"]
    cli = built("fit", *BASE, *words, "--data.classes=[3,1,4]", "--data.data.val_size=0")
    assert cli.datamodule.class_names == ["3", "1", "4"]
    assert cli.model.classes == 3


def test_a_wrong_episode_is_one_line(lit_ssl, workdir):
    (workdir / "few.yaml").write_text(FEW_SHOT)
    result = lit_ssl("fit", *BASE, "--config", "few.yaml", "--data.ways=30")
    assert result.code == 2
    assert "error: ways=30, but there are 4 classes to draw from" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["--data=CUB200DataModule", "--data.crop_to_box=true", "--data.attributes=true"],
        ["--data=CUBGroupsDataModule", "--data.attribute=has_bill_shape::dagger"],
    ],
)
def test_cub_by_name(lit_ssl, words):
    result = lit_ssl("fit", *BASE, *words, "--data.root=nowhere")
    assert result.code == 2
    assert "error: CUB-200-2011: expected images.txt in" in result.err


@pytest.fixture
def tiny(workdir):
    folder = workdir / "tiny-imagenet-200"
    for wnid in ("n01443537", "n01770393"):
        for split, inside in (("train", "images"), ("val", "")):
            path = folder / split / wnid / inside / "0.JPEG"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (64, 64)).save(path)
    (folder / "wnids.txt").write_text("n01770393\nn01443537\n")
    return ["--data=TinyImageNetDataModule", f"--data.root={workdir}", "--data.num_workers=0"]


def test_tiny_imagenet_by_name(built, tiny):
    cli = built("validate", *BASE, *tiny)
    assert cli.datamodule.class_names == ["n01443537", "n01770393"]


def test_a_set_that_is_not_there_is_one_line(lit_ssl, tiny):
    result = lit_ssl("fit", *BASE, *tiny, "--data.ood=[r]")
    assert result.code == 2
    assert "error: Tiny-ImageNet-R: expected" in result.err
    assert lit_ssl("fit", *BASE, *tiny, "--data.ood=[v2]").code == 2


def test_a_method_that_knows_one_loader_is_refused(lit_ssl, workdir, tiny):
    path = workdir / "imagenet-r" / "n01443537" / "0.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (80, 50)).save(path)
    tiny.append("--data.image_size=8")  # of the toy model
    for command, step in (("fit", "validation"), ("validate", "validation"), ("test", "test")):
        result = lit_ssl(command, *BASE, *tiny, "--data.ood=[r]")
        assert result.code == 2
        assert f"error: Classifier evaluates on one set (its {step}_step takes no" in result.err
    assert lit_ssl("predict", *BASE, *tiny, "--data.ood=[r]").code == 0
