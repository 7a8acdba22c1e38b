"""`lit-ssl pictures`: of a run's own data, of other data, of files that are not of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from lit_ssl.checkpoints.newest import newest_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_checkpoints import ATTACKS, PLAIN, plant, write_checkpoint

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
QUIET = "--trainer.enable_progress_bar=false"
RECIPE = """\
model:
  class_path: MSN
  init_args:
    backbone: vit_tiny_patch16_224
    backbone_kwargs: {img_size: 8, patch_size: 4, embed_dim: 12, depth: 2, num_heads: 3}
    num_prototypes: 6
    proj_hidden_dim: 8
    proj_output_dim: 4
data:
  class_path: ImageFolderDataModule
  init_args:
    root: images
    image_size: 8
    batch_size: 5
    num_workers: 0
    val_size: 7
    train_transform:
      class_path: lit_ssl.transforms.MultiCrop
      init_args:
        crops: [{size: 8, count: 2}]
trainer:
  max_epochs: 1
  limit_train_batches: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
"""


def lay_images(folder, count=8):
    generator = np.random.default_rng(0)
    for name in ("apples", "pears"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a run of MSN on a folder of images, of one step."""
    from lit_ssl.cli.training import LitSSLCLI

    folder = tmp_path_factory.mktemp("run")
    lay_images(folder / "images")
    text = RECIPE.replace("root: images", f"root: {folder / 'images'}")
    (folder / "recipe.yaml").write_text(text)
    LitSSLCLI(
        args=["fit", f"--config={folder}/recipe.yaml", f"--trainer.default_root_dir={folder}"]
    )
    return newest_checkpoint([folder]).path


def drawn(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_of_a_run_all_that_fits_is_drawn_of_its_own_data(lit_ssl, workdir, checkpoint):
    before = sorted(checkpoint.parents[1].rglob("*"))
    result = lit_ssl("pictures", checkpoint, QUIET)
    assert result.code == 0, result.err
    names = ["attention_maps", "embedding_map_pca", "neighbour_grid", "prototype_gallery"]
    assert drawn(workdir / "pictures") == [f"{name}/validate.png" for name in names]
    assert "without supports: MSN does not predict by supports" in result.out
    listed = [line for line in result.out.splitlines() if line.endswith(".png")]
    assert sorted(listed) == [f"pictures/{name}/validate.png" for name in names]
    assert sorted(checkpoint.parents[1].rglob("*")) == before
    assert sorted(path.name for path in workdir.iterdir()) == ["pictures", "recipe.yaml"]
    # what is there is another run's
    assert lit_ssl("pictures", checkpoint, QUIET, "--kinds", "map").code == 0
    assert (workdir / "pictures/lit_ssl_runs/version_0/embedding_map_pca/validate.png").exists()


def test_of_other_data_with_the_options_of_the_run(lit_ssl, workdir, checkpoint):
    lay_images(workdir / "mine", count=6)
    words = ["pictures", checkpoint, "--data.root", "mine", "--kinds=map,attention"]
    words += ["--data.val_size=5", "--data.train_transform.crops=[{size: 8, count: 3}]"]
    result = lit_ssl(*words, "--output", "out", QUIET)
    assert result.code == 0, result.err
    assert drawn(workdir / "out") == [
        "attention_maps/validate.png",
        "embedding_map_pca/validate.png",
    ]


def test_of_a_file_of_weights(lit_ssl, workdir):
    lay_images(workdir / "mine")
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT)
    save_file(vit.state_dict(), "weights.safetensors")
    data = ["--data=ImageFolderDataModule", "--data.root=mine", "--data.image_size=8",
            "--data.val_size=6", "--data.num_workers=0"]  # fmt: skip
    model = ["--model=FrozenEncoder", "--model.backbone=vit_tiny_patch16_224",
             f"--model.backbone_kwargs={VIT}"]  # fmt: skip
    result = lit_ssl("pictures", "weights.safetensors", QUIET)
    assert result.code == 2
    assert "weights.safetensors does not say what data it is of: give --data CLASS" in result.err
    result = lit_ssl("pictures", "weights.safetensors", *data, *model, QUIET)
    assert result.code == 0, result.err
    names = ["attention_maps", "embedding_map_pca", "neighbour_grid"]
    assert drawn(workdir / "pictures") == [f"{name}/validate.png" for name in names]
    result = lit_ssl("pictures", "weights.safetensors", *data, *model, "--kinds=prototypes", QUIET)
    assert result.code == 2
    assert "error: PrototypeGallery needs a module with prototypes" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds=map"], "the checkpoint comes first: lit-ssl pictures CHECKPOINT"),
        ([], "the following arguments are required: checkpoint"),
        (["CKPT", "--kinds=maps"], "--kinds has no 'maps'. Did you mean"),
        (["CKPT", "--kinds=,"], "--kinds takes some of map, umap"),
        (["nothing.ckpt"], "no weights at nothing.ckpt"),
        (["CKPT", "--ckpt_path=x"], "leave out --ckpt_path"),
        (["CKPT", "--split=train"], "invalid choice"),
        (["CKPT", "--output=CKPT"], "is no folder"),
        (["CKPT", "--output=CKPT/inside"], "is no folder"),
        (["CKPT", "--data.rot=x"], "rot"),
        (["CKPT", "--trainer.fast_dev_run=true"], "leaves no files"),
        (["CKPT", "--data.val_size=0"], "no images for the val split"),
        (["CKPT", "--split=test"], "no images for the test split"),
    ],
)
def test_mistakes_are_one_line(lit_ssl, workdir, checkpoint, words, message):
    words = [word.replace("CKPT", str(checkpoint)) for word in words]
    result = lit_ssl("pictures", *words)
    assert result.code == 2
    assert result.err.count("error: ") == 1
    assert message in result.err
    assert not (workdir / "pictures").exists()


HOSTILE = {
    "module": {"hyper_parameters": ATTACKS["module of the folder"]},
    "function": {"hyper_parameters": ATTACKS["function"]},
    "data": {"datamodule_hyper_parameters": {"_class_path": "planted.Data"}},
    "function as data": {"datamodule_hyper_parameters": {"_class_path": "os.system"}},
    "method as data": {"datamodule_hyper_parameters": {"_class_path": "lit_ssl.methods.MSN"}},
    "class in the data": {
        "datamodule_hyper_parameters": {
            "_class_path": "lit_ssl.datamodules.MNIST5kDataModule",
            "eval_transform": {"class_path": "planted.Transform"},
        }
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_of_a_stranger_runs_no_code(lit_ssl, workdir, monkeypatch, kind):
    plant(workdir)
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    path = write_checkpoint(workdir / "x.ckpt", PLAIN)
    content = torch.load(path, weights_only=True)
    content["datamodule_hyper_parameters"] = {
        "_class_path": "lit_ssl.datamodules.MNIST5kDataModule"
    }
    torch.save({**content, **HOSTILE[kind]}, path)
    result = lit_ssl("pictures", path)
    assert result.code == 2, result.err
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    assert "planted" not in sys.modules


CLIPS = [
    "--config=video/moving_digits_supervised.yaml", "--model.backbone=resnet10t",
    "--model.backbone_kwargs={stem_width: 8, channels: [8, 8, 8, 8]}", "--data.sizes=[8, 6, 4]",
    "--data.batch_size=4", "--data.num_frames=2", "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0", "--trainer.logger=false",
    "--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=run",
    "--trainer.callbacks.save_last=true", QUIET,
]  # fmt: skip


def test_of_clips_there_is_a_map_and_a_line_for_each_other_kind(lit_ssl, workdir):
    pytest.importorskip("mlxtend")
    assert lit_ssl("fit", *CLIPS).code == 0
    result = lit_ssl("pictures", "run/last.ckpt", QUIET)
    assert result.code == 0, result.err
    assert drawn(workdir / "pictures") == ["embedding_map_pca/validate.png"]
    said = [line for line in result.out.splitlines() if line.startswith("without ")]
    assert [line.split(":")[0] for line in said] == [
        "without attention", "without prototypes", "without supports", "without neighbours"
    ]  # fmt: skip
    assert "needs images [B, C, H, W], got " in said[-1]
    # a kind that was asked for is an error
    result = lit_ssl("pictures", "run/last.ckpt", "--kinds=neighbours", "--output=other", QUIET)
    assert result.code == 2
    assert "error: NeighbourGrid needs images [B, C, H, W], got" in result.err
    # and so is no picture at all
    result = lit_ssl("pictures", "run/last.ckpt", "--data.clips_per_video=2", "--output=two", QUIET)
    assert result.code == 2
    assert "without map: " in result.out
    assert "no picture of run/last.ckpt was drawn, for the reasons above" in result.err
    assert drawn(workdir / "two") == []


def test_a_closed_folder_is_refused_first(lit_ssl, workdir, checkpoint, monkeypatch):
    monkeypatch.setattr("lit_ssl.trainer.run.os.access", lambda *_: False)
    result = lit_ssl("pictures", checkpoint, "--output=mine/out")
    assert result.code == 2
    assert f"error: --output mine/out: {workdir} cannot be written; give another" in result.err
