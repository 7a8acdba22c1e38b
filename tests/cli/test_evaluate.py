"""Any checkpoint is evaluated by one command: complete presets and those that follow a recipe."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from lit_ssl import PAWS

DIGITS = ["--config=paws/mnist5k.yaml"]
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}


@pytest.fixture
def imagenet(workdir):
    """Three classes of four training and two validation images, and a list of half of them."""
    names = []
    for label, wnid in enumerate(("n01440764", "n01443537", "n02085620")):
        for number in range(4):
            noise = np.random.default_rng(10 * label + number).integers(-40, 40, (40, 48, 3))
            image = Image.fromarray((80 * label + 40 + noise).astype(np.uint8))
            paths = [f"train/{wnid}/{wnid}_{number}.JPEG"]
            paths += [f"val/{wnid}/v{number}.JPEG"] if number < 2 else []
            for path in paths:
                (workdir / path).parent.mkdir(parents=True, exist_ok=True)
                image.save(workdir / path)
            names.append(f"{wnid}_{number}.JPEG")
    (workdir / "half.txt").write_text("\n".join(names[::2]))
    sets = json.dumps({"1_percent": {"files": [str(workdir / "half.txt")], "l2": 0.075}})
    words = [f"--data.root={workdir}", "--data.num_workers=0", "--data.image_size=32"]
    return [*words, "--trainer.callbacks.shots=[1,2]", f"--trainer.callbacks.label_sets={sets}"]


def report(folder):
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with (folder / "report.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["features"] for row in table] == [row["features"] for row in content["rows"]]
    return {row["features"]: row for row in content["rows"]}, content["protocol"]


def official_msn(path):
    vit = timm.create_model("vit_small_patch16_224", num_classes=0, **SMALL)
    names = {f"module.{key}": value for key, value in vit.state_dict().items()}
    torch.save({"target_encoder": names, "encoder": names, "prototypes": torch.zeros(2, 2)}, path)


def official_paws(path, network):
    names = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"encoder": names, "epoch": 300}, path)


FIELDS = [
    "features", "knn_acc1", "lowshot_1_acc1", "lowshot_1_std", "lowshot_2_acc1", "lowshot_2_std",
    "lowshot_1_percent_acc1", "lowshot_1_percent_std", "soft_nn_acc1", "soft_nn_1_acc1",
    "soft_nn_1_std", "soft_nn_2_acc1", "soft_nn_2_std", "soft_nn_1_percent_acc1",
    "soft_nn_1_percent_std",
]  # fmt: skip


def test_official_vit_without_a_recipe(lit_ssl, imagenet, workdir):
    official_msn(workdir / "msn.pth.tar")
    words = ["--config=eval/imagenet_vits16.yaml", *imagenet, "--model.weights=msn.pth.tar"]
    words.append(f"--model.backbone_kwargs={json.dumps(SMALL)}")
    result = lit_ssl("validate", *words)
    assert result.code == 0, result.err
    rows, protocol = report(workdir)
    assert list(rows) == ["trained"]
    assert list(rows["trained"]) == FIELDS
    assert (protocol["split"], protocol["bank"], protocol["queries"]) == ("val", 12, 6)
    assert protocol["checkpoint"] == "msn.pth.tar"
    assert protocol["feature_method"] == protocol["soft_nn"]["feature_method"] == "features"
    assert protocol["label_sets"]["1_percent"]["images"] == [6]
    for text in ("k-NN", "1_percent", "2-shot PAWS-NN", "6 images of half.txt", "report.json"):
        assert text in result.out, text
    assert lit_ssl("test", *words).code == 0
    assert report(workdir / "lit_ssl_runs/version_0")[1]["split"] == "test"
    assert report(workdir)[1]["split"] == "val"  # each run keeps its own


def test_official_resnet_without_a_recipe(lit_ssl, imagenet, workdir):
    official_paws(workdir / "paws.pth.tar", timm.create_model("resnet50", num_classes=0))
    words = ["--config=eval/imagenet_rn50.yaml", *imagenet, "--model.weights=paws.pth.tar"]
    result = lit_ssl("validate", *words)
    assert result.code == 0, result.err
    rows, protocol = report(workdir)
    assert list(rows["trained"]) == FIELDS
    assert protocol["soft_nn"]["are_bank"]


@pytest.mark.parametrize("name", ["vits16", "rn50"])
def test_the_presets_as_they_are(built, imagenet, name):
    cli = built("validate", f"--config=eval/imagenet_{name}.yaml", *imagenet[:2])
    (callback,) = (c for c in cli.trainer.callbacks if type(c).__name__ == "RepresentationReport")
    sets = callback.measurements.sets
    assert {key: (value.files, value.l2) for key, value in sets.items()} == {
        "1_percent": (["paws/imagenet_1percent"], 0.075)
    }
    assert callback.measurements.l2 == 0.0025
    assert cli.datamodule.eval_transform.resize == 256


def test_wrong_weights_lists_and_commands_take_one_line(lit_ssl, imagenet, workdir):
    official_msn(workdir / "msn.pth.tar")
    words = ["--config=eval/imagenet_vits16.yaml", *imagenet]
    size = f"--model.backbone_kwargs={json.dumps(SMALL)}"
    absent = '--trainer.callbacks.label_sets={"a": {"files": ["absent.txt"]}}'
    for more, message in (
        (["--model.weights=absent.pth"], "no weights at absent.pth"),
        (["--model.weights=msn.pth.tar"], "are not those of the backbone"),
        ([size, "--model.weights=msn.pth.tar", absent], "There is no list file absent.txt"),
    ):
        result = lit_ssl("validate", *words, *more)
        assert result.code == 2
        assert message in result.err.splitlines()[-1]
    result = lit_ssl("fit", *words, size)
    assert result.code == 2
    assert "FrozenEncoder has nothing to train" in result.err.splitlines()[-1]


def test_paws_nn_of_a_run_and_of_an_official_checkpoint(lit_ssl, workdir):
    quick = ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1", "--trainer.logger=false"]
    quick += ["--trainer.limit_val_batches=0", "--trainer.callbacks=ModelCheckpoint"]
    quick += ["--trainer.callbacks.save_last=true"]
    words = [*DIGITS, "--trainer.default_root_dir=run", "--data.dataset.batch_size=500"]
    assert lit_ssl("fit", *words, *quick).code == 0
    preset = "--config=eval/paws_nn.yaml"
    result = lit_ssl("validate", *DIGITS, preset, *words[1:], "--ckpt_path=last")
    assert result.code == 0, result.err
    rows, protocol = report(workdir / "run")
    assert (protocol["bank"], protocol["soft_nn"]["supports"]) == (None, 50)
    assert protocol["soft_nn"]["feature_method"] == "embed"
    trained = rows["trained"]
    assert {key for key in trained if key.endswith("acc1")} == {
        "soft_nn_acc1", "soft_nn_1_acc1", "soft_nn_2_acc1", "soft_nn_5_acc1",
    }  # fmt: skip
    # all of five per class, whatever the draw
    assert trained["soft_nn_5_acc1"] == pytest.approx(trained["soft_nn_acc1"])
    assert trained["soft_nn_5_std"] == pytest.approx(0, abs=1e-7)

    module = PAWS.load_from_checkpoint("run/checkpoints/last.ckpt", weights_only=True)
    head = {f"fc.{k}": v for k, v in module.projection_head.state_dict().items()}
    names = {f"module.{k}": v for k, v in {**module.backbone.state_dict(), **head}.items()}
    torch.save({"encoder": names}, "official.pth.tar")
    words += ["--trainer.default_root_dir=official", "--model.pretrained=official.pth.tar"]
    assert lit_ssl("validate", *DIGITS, preset, *words[1:]).code == 0
    assert report(workdir / "official")[0]["trained"] == trained
