"""PMSN from the command line: recipes on fixtures of their data, priors, resume, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.losses import power_law_prior

SMALL = [
    "--model.backbone_kwargs.depth=1",
    "--model.backbone_kwargs.embed_dim=16",
    "--model.backbone_kwargs.num_heads=2",
    "--model.proj_hidden_dim=32",
]
DIGITS = ["--config=pmsn/mnist5k_lt.yaml", *SMALL]
QUICK = [
    "--trainer.logger=false",
    "--trainer.check_val_every_n_epoch=100",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_test_batches=1",
    "--data.batch_size=32",
    "--trainer.callbacks=ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
]
ONE_STEP = "--trainer.fast_dev_run=true"


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40, 32), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def imagenet_lt(workdir):
    """Two classes of three images, and the official kind of list: 3 of one, 1 of the other."""
    lines = []
    for label, wnid in enumerate(("n01440764", "n01443537")):
        names = [f"train/{wnid}/{wnid}_{number}.JPEG" for number in range(3)]
        for number, name in enumerate(names):
            write_image(workdir / name, number)
        lines += [f"{name} {label}" for name in (names[:1] if label else names)]
        write_image(workdir / f"val/{wnid}/ILSVRC2012_val_0000000{label}.JPEG", label)
    (workdir / "lt.txt").write_text("\n".join(lines) + "\n")
    return ["--data.root", workdir, "--data.subset.file", workdir / "lt.txt"]


@pytest.fixture
def inat18(workdir):
    """Two species with three and one training images."""
    for split, classes in (("train", [0, 0, 0, 1]), ("val", [0, 1])):
        files = [f"train_val2018/Aves/{c}/{split}{i}.jpg" for i, c in enumerate(classes)]
        for number, name in enumerate(files):
            write_image(workdir / name, number)
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(files)],
            "annotations": [{"image_id": i, "category_id": c} for i, c in enumerate(classes)],
            "categories": [{"id": i, "name": f"species {i}"} for i in range(2)],
        }
        (workdir / f"{split}2018.json").write_text(json.dumps(content))
    return ["--data.root", workdir]


def test_imagenet_lt_recipe(lit_ssl, built, imagenet_lt):
    words = ["fit", "--config=pmsn/imagenet_lt_vits16.yaml", *imagenet_lt]
    words += [*SMALL, "--data.num_workers=0", "--data.batch_size=2"]
    assert lit_ssl(*words, ONE_STEP).code == 0
    cli = built(*words)
    assert cli.datamodule.labels("train").tolist() == [0, 0, 0, 1]
    assert type(cli.model).__name__ == "PMSN"
    assert (cli.model.loss.me_max_weight, cli.model.loss.sinkhorn_iterations) == (5.0, 0)
    torch.testing.assert_close(cli.model.loss.prior, power_law_prior(1024).float())


@pytest.mark.parametrize("name", ["inat18_vits16", "inat18_vitb16"])
def test_inat18_recipes(lit_ssl, built, inat18, name):
    words = ["fit", f"--config=pmsn/{name}.yaml", *inat18, *SMALL]
    words += ["--data.num_workers=0", "--data.batch_size=2", "--model.prior=data"]
    result = lit_ssl(*words, ONE_STEP)
    assert result.code == 0, result.err
    assert built(*words).datamodule.class_names == ["species 0", "species 1"]


def test_prior_of_the_long_tailed_digits(lit_ssl, workdir):
    words = ["fit", *DIGITS, *QUICK, "--model.prior=data", "--trainer.max_epochs=1"]
    result = lit_ssl(*words)
    assert result.code == 0, result.err
    checkpoint = torch.load("checkpoints/last.ckpt", weights_only=True)
    sizes = torch.tensor([350, 152, 93, 66, 50, 40, 33, 28, 25, 22]).repeat_interleave(4)
    torch.testing.assert_close(checkpoint["state_dict"]["loss.prior"], sizes / sizes.sum())
    # a command on other data takes the model, its prior included, from the checkpoint
    tested = lit_ssl("test", *DIGITS, *QUICK, "--data.subset=null", "--ckpt_path=last")
    assert tested.code == 0, tested.err


def test_list_and_file(built, lit_ssl, workdir):
    shares = list(range(1, 41))
    np.save("shares.npy", shares)
    words = ["fit", *DIGITS, *QUICK, "--model.prior=shares.npy", "--trainer.max_epochs=1"]
    assert lit_ssl(*words).code == 0
    state = torch.load("checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["loss.prior"], torch.tensor(shares) / 820)
    model = built("fit", *DIGITS, f"--model.prior={shares}").model
    torch.testing.assert_close(model.loss.prior, torch.tensor(shares) / 820)


def test_resumed_run_continues_identically(lit_ssl, workdir):
    words = ["fit", *DIGITS, *QUICK, "--model.prior=data", "--model.sinkhorn_iterations=2"]
    words += ["--model.sinkhorn_marginal=prior", "--trainer.max_epochs=3"]
    words += ["--trainer.limit_train_batches=4"]

    def weights(folder, *more):
        assert lit_ssl(*words, f"--trainer.default_root_dir={folder}", *more).code == 0
        return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]

    whole = weights("whole")
    # from a checkpoint in the middle of the second epoch
    often = ["--trainer.callbacks.every_n_train_steps=5", "--trainer.callbacks.save_top_k=-1"]
    weights("often", *often)
    middle = workdir / "often/checkpoints/epoch=1-step=5.ckpt"
    resumed = weights("resumed", "--ckpt_path", middle)
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.prior=powerlaw"], "Did you mean power_law?"),
        (["--model.prior=absent.npy"], "no prior at "),
        (["--model.prior=[1, 2]"], "2 entries for 40 prototypes"),
        (["--model.prior=data", "--model.num_prototypes=41"], "shared equally by 10 classes"),
        (["--model.kl_direction=up"], "up"),
        (["--data.subset.power_law=-1"], "subset.power_law must be at least 0"),
        (["--data.subset.exponential=3"], "exactly one of fraction"),
    ],
)
def test_wrong_entries_take_one_line(lit_ssl, words, message):
    result = lit_ssl("fit", *DIGITS, *QUICK, *words)
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
