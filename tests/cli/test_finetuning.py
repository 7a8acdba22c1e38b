"""Linear evaluation and fine-tuning from the command line, on fixtures of their data."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from lit_ssl.cli.recipes import packaged_config
from lit_ssl.models import ProjectionHead

ONE_STEP = ["--trainer.fast_dev_run=true", "--trainer.precision=32-true"]
SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2}
SMALL_VIT = [f"--model.backbone_kwargs.{name}={value}" for name, value in SMALL.items()]
QUICK = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def imagenet(workdir):
    """Three classes of six images; a list of two of each, and one of one other of each."""
    for label, wnid in enumerate(("n01440764", "n01443537", "n02085620")):
        for number in range(6):
            for path in (f"train/{wnid}/{wnid}_{number}.JPEG", f"val/{wnid}/v{number}.JPEG"):
                (workdir / path).parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(label).integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(noise).save(workdir / path)
    names = [path.name for path in sorted((workdir / "train").rglob("*.JPEG"))]
    (workdir / "list.txt").write_text("\n".join(names[0::3]))
    (workdir / "held.txt").write_text("\n".join(names[1::6]))
    return [f"--data.root={workdir}", "--data.num_workers=0"]


@pytest.fixture
def cifar10(workdir):
    """The official Python layout with 100 training and 20 test images."""
    folder = workdir / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    content = {"data": pixels, "labels": [i % 10 for i in range(20)]}
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (workdir / "list.txt").write_text("\n".join(map(str, range(50))))
    return workdir


def official(path, key, backbone, head=None):
    """A file with the keys and prefixes of the official checkpoints of MSN and PAWS."""
    names = {f"module.{k}": v for k, v in backbone.state_dict().items()}
    names |= {f"module.fc.{k}": v for k, v in (head.state_dict() if head else {}).items()}
    torch.save({key: names}, path)
    return path


def small_vit(name, **kwargs):
    return timm.create_model(name, num_classes=0, **SMALL, **kwargs)


# ------------------------------------------------------------------------- digits


@pytest.fixture
def digits(lit_ssl, workdir):
    """Words for the network, and a checkpoint of `msn/mnist5k` with it."""
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--data.batch_size=32"]
    quick += ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
    quick += ["--trainer.limit_val_batches=0", "--trainer.default_root_dir=msn", *QUICK]
    assert lit_ssl("fit", "--config=msn/mnist5k.yaml", *SMALL_VIT, *quick).code == 0
    return next((workdir / "msn").rglob("last.ckpt"))


def test_a_sweep_on_a_checkpoint_of_msn_is_tested_by_its_best_head(lit_ssl, digits, workdir):
    words = ["--config=eval/linear_mnist5k.yaml", *SMALL_VIT, *QUICK]
    words += ["--model.features=[token-1,mean]", "--trainer.default_root_dir=run"]
    words += ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    words += ["--trainer.limit_train_batches=2", f"--model.weights={digits}"]
    result = lit_ssl("fit", *words)
    assert result.code == 0, result.err
    assert "24 heads, best on the validation images first" in result.out
    found = json.loads(next((workdir / "run").rglob("linear_sweep.json")).read_text())
    assert len(found["heads"]) == 24
    best = max(head["val_acc1"] for head in found["heads"])
    assert found["heads"][found["chosen"]]["val_acc1"] == found["val_acc1"] == best
    digits.unlink()  # the backbone is in the checkpoint of the heads
    tested = lit_ssl("test", *words, "--ckpt_path=last", "--model.weights=null")
    assert tested.code == 0, tested.err
    reports = [json.loads(p.read_text()) for p in (workdir / "run").rglob("linear_sweep.json")]
    (after,) = [r for r in reports if "test_acc1" in r]
    assert (after["chosen"], after["heads"]) == (found["chosen"], found["heads"])


def test_fine_tuning_from_a_checkpoint_of_msn(lit_ssl, built, digits):
    words = ["fit", "--config=finetune/mnist5k.yaml", *SMALL_VIT, f"--model.pretrained={digits}"]
    result = lit_ssl(*words, *ONE_STEP)
    assert result.code == 0, result.err
    module = built(*words).model
    module.setup("fit")
    target = torch.load(digits, weights_only=True)["state_dict"]
    key = "blocks.0.attn.qkv.weight"
    saved = target[next(name for name in target if name.startswith("target_") and key in name)]
    assert torch.equal(module.backbone.state_dict()[key], saved)
    assert module.hparams["layer_decay"] == 0.65


def test_choosing_heads_on_test_images_is_refused(lit_ssl, workdir):
    words = ["fit", "--config=eval/linear_mnist5k.yaml", "--data.val_size=0", *ONE_STEP]
    result = lit_ssl(*words)
    assert result.code == 2
    assert "the best of 48 heads would be chosen on the test images" in result.err
    # no more by validate, which would write its choice
    before = sorted(workdir.rglob("*"))
    result = lit_ssl("validate", *words[1:3], "--trainer.limit_val_batches=1")
    assert (result.code, sorted(workdir.rglob("*"))) == (2, before)
    assert "the best of 48 heads would be chosen on the test images" in result.err
    one = ["--model.features=[mean]", "--model.learning_rates=[6.4]", "--model.weight_decays=[0]"]
    assert lit_ssl(*words, *one).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.weights=nowhere.ckpt"], "no weights at nowhere.ckpt"),
        (["--model.features=[token-9]"], "has 3 blocks"),
        (["--model.learning_rate=1"], "Did you mean learning_rates?"),
        (["--trainer.gradient_clip_val=1"], "gradient_clip_val"),
    ],
)
def test_wrong_entries_take_one_line(lit_ssl, words, message):
    result = lit_ssl("fit", "--config=eval/linear_mnist5k.yaml", *words, *ONE_STEP)
    assert result.code == 2
    assert message in result.err.splitlines()[-1]


# ---------------------------------------------------------------- large recipes


def test_linear_evaluation_of_an_official_checkpoint(lit_ssl, built, imagenet, workdir):
    path = official(workdir / "msn.pth.tar", "target_encoder", small_vit("vit_small_patch16_224"))
    words = ["fit", "--config=eval/linear_imagenet_vits16.yaml", *imagenet, "--data.val_size=3"]
    few = ["--data.batch_size=4", "--model.features=[token-1,token-2]", f"--model.weights={path}"]
    result = lit_ssl(*words, *few, *SMALL_VIT, *ONE_STEP)
    assert result.code == 0, result.err
    module = built(*words).model
    assert len(module.points) == 12
    assert ("token-1", 6.4, 0.0) in module.points
    assert module.heads[1].weight.shape == (6, 3, 4 * 384)
    assert "val_size: 12800" in packaged_config("eval/linear_imagenet_vits16.yaml").read_text()


@pytest.mark.parametrize("percent", [1, 10])
def test_paws_recipes_on_an_official_checkpoint(lit_ssl, built, imagenet, workdir, percent):
    name = f"finetune/imagenet_rn50_{percent}pct.yaml"
    text = packaged_config(name).read_text()
    assert f"file: paws/imagenet_{percent}percent\n" in text
    assert "val_file: paws/imagenet_train_holdout_12000\n" in text
    backbone = timm.create_model("resnet10t", num_classes=0)
    head = ProjectionHead(512, 16, 8)
    path = official(workdir / "paws.pth.tar", "encoder", backbone, head)
    words = ["fit", f"--config={name}", *imagenet, f"--model.pretrained={path}"]
    words += [
        f"--data.subset.file={workdir / 'list.txt'}",
        f"--data.val_file={workdir / 'held.txt'}",
    ]
    words += ["--data.batch_size=4", "--model.backbone=resnet10t", "--model.proj_hidden_dim=16"]
    result = lit_ssl(*words, *ONE_STEP)
    assert result.code == 0, result.err
    loose = lit_ssl(*words, "--data.val_file=null", "--trainer.precision=32-true")
    assert loose.code == 2
    assert "ModelCheckpoint(monitor='val/acc1') would be chosen on the test images" in loose.err
    wide = lit_ssl(*words, "--model.proj_hidden_dim=17", *ONE_STEP)
    assert wide.code == 2
    assert "set proj_hidden_dim to 16" in wide.err.splitlines()[-1]
    cli = built(*words)
    cli.datamodule.setup("fit")
    assert len(cli.datamodule.labels("train")) == 6
    assert len(cli.datamodule.labels("val")) == 3
    cli.model.setup("fit")
    assert torch.equal(cli.model.classifier.fc1.weight, head.fc1.weight)
    assert not cli.model.classifier.linear.weight.any()


def test_vit_recipes(lit_ssl, imagenet, cifar10):
    path = official(cifar10 / "msn.pth.tar", "target_encoder", small_vit("vit_base_patch16_224"))
    few = ["--data.batch_size=4", "--data.num_workers=0", f"--model.pretrained={path}", *SMALL_VIT]
    recipes = [
        ("imagenet", [imagenet[0]]),
        ("cifar10", [f"--data.root={cifar10}"]),
        ("cifar10", [f"--data.root={cifar10}", "--data.augment=device"]),
    ]
    for name, root in recipes:
        words = [f"--config=finetune/{name}_vitb16.yaml", *root, *few, *ONE_STEP]
        result = lit_ssl("fit", *words)
        assert result.code == 0, result.err


def test_vit_recipes_are_what_the_papers_say(built, imagenet, cifar10):
    module = built("fit", "--config=finetune/imagenet_vitb16.yaml", *imagenet, *SMALL_VIT).model
    groups = module._layer_groups()
    assert [g["lr_scale"] for g in groups[-2:]] == [1.0, 1.0]
    assert groups[0]["lr_scale"] == pytest.approx(0.65**3)  # two blocks and what is below
    assert isinstance(module.optimizer_factory(groups), torch.optim.AdamW)
    assert (module.lr, module.weight_decay, module.label_smoothing) == (2e-3, 0.05, 0.1)
    assert len(module.mixing.kinds) == 2
    assert module.erasing.probability == 0.25
    words = ["--config=finetune/cifar10_vitb16.yaml", f"--data.root={cifar10}", *SMALL_VIT]
    assert built("fit", *words).model.lr == 7.5e-5


def test_suncet_on_a_checkpoint_of_paws(lit_ssl, built, cifar10):
    root = [f"--data.dataset.root={cifar10}", f"--data.subset.file={cifar10 / 'list.txt'}"]
    root += ["--data.dataset.num_workers=0", "--data.images_per_class=2"]
    first = [
        "fit",
        "--config=paws/cifar10_wrn28_2.yaml",
        *root,
        "--data.dataset.batch_size=4",
        *QUICK,
    ]
    first += ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1", "--trainer.precision=32"]
    first += ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
    crops = '[{"size": 32, "count": 2}]'
    first += ["--data.dataset.train_transform.crops", crops, "--trainer.limit_val_batches=0"]
    result = lit_ssl(*first, "--trainer.default_root_dir=paws")
    assert result.code == 0, result.err
    path = next((cifar10 / "paws").rglob("last.ckpt"))
    words = ["fit", "--config=finetune/cifar10_wrn28_2_suncet.yaml", *root]
    words += [f"--model.pretrained={path}"]
    result = lit_ssl(*words, *ONE_STEP)
    assert result.code == 0, result.err
    cli = built(*words)
    cli.model.setup("fit")
    state = torch.load(path, weights_only=True)["state_dict"]
    head = cli.model.projection_head
    assert torch.equal(head.bn1.running_mean, state["projection_head.bn1.running_mean"])
    assert not cli.model.train().projection_head.bn1.training
    assert cli.trainer.limit_train_batches == 6
