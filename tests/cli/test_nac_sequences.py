"""The recipes of NAC for symbols and bytes: the small ones for a few steps, the others for one."""

from __future__ import annotations

import csv

import pytest
import torch

from lit_ssl.checkpoints.files import read_checkpoint

QUICK = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1", "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1", "--model.net.init_args.graph_prior.steps=20",
]  # fmt: skip
SMALL = {
    "nac/listops_small.yaml": ["--data.sizes=[200, 64, 64]"],
    "nac/mnist5k_bytes.yaml": ["--data.subset={per_class: 20}"],
}


def weights(folder):
    content = read_checkpoint(next(folder.rglob("last.ckpt")))
    return content["global_step"], content["state_dict"]


@pytest.mark.parametrize("recipe", SMALL)
def test_a_small_recipe_resumes_to_the_same_weights(lit_ssl, workdir, recipe):
    words = ["--config", recipe, *SMALL[recipe], *QUICK, "--trainer.max_epochs=2"]
    save = "{class_path: ModelCheckpoint, init_args: {every_n_train_steps: 2, save_top_k: -1}}"
    whole = ["--trainer.default_root_dir=whole", f"--trainer.callbacks+={save}"]
    done = lit_ssl("fit", *words, *whole)
    assert done.code == 0, done.err
    middle = next((workdir / "whole").rglob("*step=2.ckpt"))
    rest = lit_ssl("fit", *words, "--trainer.default_root_dir=rest", f"--ckpt_path={middle}")
    assert rest.code == 0, rest.err
    steps, expected = weights(workdir / "whole")
    resumed, found = weights(workdir / "rest")
    assert steps == resumed > 2
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    done = lit_ssl("test", *words, f"--ckpt_path={middle}")
    assert done.code == 0, done.err
    assert "test/acc1" in done.out


@pytest.mark.parametrize("recipe", SMALL)
def test_a_small_recipe_in_half_precision(lit_ssl, workdir, recipe):
    words = ["--config", recipe, *SMALL[recipe], *QUICK, "--trainer.limit_train_batches=1"]
    done = lit_ssl("fit", *words, "--trainer.max_epochs=1", "--trainer.precision=bf16-mixed")
    assert done.code == 0, done.err
    _, found = weights(workdir)
    assert all(tensor.isfinite().all() for tensor in found.values())


ONE_STEP = [*QUICK, "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]


def test_listops(lit_ssl, workdir):
    words = ["--config=nac/listops.yaml", "--data.sizes=[2, 2, 2]", "--data.batch_size=2"]
    done = lit_ssl("fit", *words, *ONE_STEP)
    assert done.code == 0, done.err
    (kept,) = (workdir / "data" / "listops").iterdir()
    assert {path.name for path in kept.iterdir()} == {
        "basic_train.tsv", "basic_val.tsv", "basic_test.tsv",
    }  # fmt: skip
    words += [f"--data.root={kept}", "--data.cache_dir=null"]
    done = lit_ssl("test", *words, *QUICK, "--ckpt_path=last")
    assert done.code == 0, done.err
    assert "test/acc1" in done.out


def test_bytes(lit_ssl, workdir):
    for split in ("train", "test"):
        for name in ("pos", "neg"):
            folder = workdir / "data" / "aclImdb" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}_7.txt").write_text(f"This film is {name}.<br />" * 300)
    words = ["--config=nac/bytes.yaml", "--data.val_size=2", "--data.batch_size=2"]
    done = lit_ssl("fit", *words, *ONE_STEP, "--trainer.max_steps=1")
    assert done.code == 0, done.err
    done = lit_ssl("test", *words, *QUICK, "--ckpt_path=last")
    assert done.code == 0, done.err
    assert "test/acc1" in done.out


def test_bytes_of_a_table(lit_ssl, workdir):
    rows = [(f"text number {number}", number % 2, "train") for number in range(6)]
    with (workdir / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "split"), *rows, ("", 0, "val")])
    words = ["--config=nac/bytes.yaml", "--data=ByteTextCSVDataModule", "--data.table=mine.csv"]
    words += ["--data.batch_size=2", *ONE_STEP, "--trainer.max_steps=1"]
    done = lit_ssl("fit", *words)
    assert done.code == 0, done.err


def test_a_wrong_file_is_one_line(lit_ssl, workdir):
    (workdir / "basic_train.tsv").write_text("Source\tTarget\n[MAX 2 8 ]\t7\n")
    words = ["--config=nac/listops.yaml", "--data.root=.", "--data.cache_dir=null", *ONE_STEP]
    done = lit_ssl("fit", *words)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert "line 2 of basic_train.tsv gives '7' for an expression whose value is 8" in done.err
