"""Errors before the first batch: one line for those of the user, the traceback for bugs."""

from __future__ import annotations

import types

import pytest
import torch

from lit_ssl.cli.mistakes.one_line import one_line
from lit_ssl.errors import (
    InputAttributeError,
    InputError,
    InputFileNotFoundError,
    InputImportError,
    InputRuntimeError,
    InputTypeError,
    check_choice,
)

BASE = ["fit", "--config", "recipe.yaml"]


def raised(source, module):
    """The exception of `source`, run as the body of a function of `module`."""
    space = {**types.ModuleType(module).__dict__, "InputError": InputError}
    body = "\n".join(f"    {line}" for line in source.splitlines())
    exec(f"def run():\n{body}\n", space)
    try:
        space["run"]()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("source", "module", "shown"),
    [
        ("raise ValueError('a bug')", "lit_ssl.datamodules.x", None),
        ("raise ImportError('a bug')", "lit_ssl.callbacks.x", None),
        ("open('missing.txt')", "lit_ssl.datamodules.x", "missing.txt"),
        ("raise ValueError('invalid accelerator')", "lightning.pytorch.x", "invalid accelerator"),
        ("raise RuntimeError('Unknown model')", "timm.models.x", "Unknown model"),
        ("int('x')", "lit_ssl.datamodules.x", None),
        ("{}['x']", "lit_ssl.datamodules.x", None),
        ("raise AttributeError('a bug')", "lit_ssl.callbacks.x", None),
        ("raise ValueError('invalid rate')", "torch.optim.adamw", "invalid rate"),
        ("raise ValueError('no workers')", "torch.utils.data.dataloader", "no workers"),
        ("None.pixels", "lit_ssl.datamodules.x", None),
        ("raise ValueError('bug')", "torch.nn.x", None),
        ("raise ValueError('bug')", "torch.optimistic", None),
        ("raise ValueError('theirs')", "toy_project", None),
        ("open('missing.txt')", "toy_project", None),
        ("open('missing.txt')", "lit_ssl.cli.training", None),
        ("raise RuntimeError('bug')", "torch.nn.x", None),
        ("raise ValueError('bug')", "lit_ssl_like.x", None),
    ],
)
def test_one_line_only_for_what_was_meant(workdir, source, module, shown):
    line = one_line(raised(source, module))
    if shown is None:
        assert line is None
    else:
        assert shown in line
        assert line.endswith("(LIT_SSL_DEBUG=1 shows where)")


@pytest.mark.parametrize(
    "kind",
    [
        InputError,
        InputFileNotFoundError,
        InputImportError,
        InputRuntimeError,
        InputTypeError,
        InputAttributeError,
    ],
)
def test_our_own_error_is_its_text(kind):
    assert one_line(kind("no\n  class folders")) == "no class folders"


def test_choices_are_listed():
    check_choice("mode", "b", ("a", "b", None))
    with pytest.raises(InputError, match=r"^mode must be 'a', 'b' or None, not 'c'$"):
        check_choice("mode", "c", ("a", "b", None))


def test_missing_data_folder(lit_ssl):
    result = lit_ssl(
        *BASE, "--data", "ImageFolderDataModule", "--data.root", "no/such/folder"
    )  # fmt: skip
    assert result.code == 2
    error = result.err[result.err.index("error: ") :]
    assert "no/such/folder" in error
    assert error.count("\n") == 1
    assert "Traceback" not in result.err


def test_missing_data_folder_with_debug(lit_ssl, monkeypatch):
    monkeypatch.setenv("LIT_SSL_DEBUG", "1")
    with pytest.raises(Exception, match="no/such/folder"):
        lit_ssl(*BASE, "--data", "ImageFolderDataModule", "--data.root", "no/such/folder")


def test_wrong_accelerator(lit_ssl):
    result = lit_ssl(*BASE, "--trainer.accelerator", "gpuu")
    assert result.code == 2
    assert "accelerator='gpuu'" in result.err[result.err.index("error: ") :]


def test_bug_before_training_keeps_its_traceback(lit_ssl):
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'pixels'"):
        lit_ssl(*BASE, "--data", "toy_project.BuggyData")


def test_error_in_training_keeps_its_traceback(lit_ssl):
    with pytest.raises(ValueError, match="a bug in training"):
        lit_ssl(*BASE, "--model", "toy_project.BuggyModel")


def test_weights_that_a_module_loads_itself_keep_their_error(lit_ssl, monkeypatch):
    """No checkpoint was given, so none is to blame."""
    import toy_project

    def setup(self, stage):
        self.layers.load_state_dict({"0.weight": torch.zeros(1)})

    monkeypatch.setattr(toy_project.ToyModel, "setup", setup)
    with pytest.raises(RuntimeError, match="Error"):
        lit_ssl(*BASE)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(
    "source", ["raise ValueError('no labels')", "raise InputError('no labels')"]
)
def test_error_of_the_optimiser_keeps_its_traceback_after_the_first_batch(
    lit_ssl, monkeypatch, batch, source
):
    import toy_project

    plain = toy_project.ToyModel.training_step

    def step(self, batch_now, batch_idx):
        if batch_idx == batch:
            raise raised(source, "torch.optim.x")
        return plain(self, batch_now, batch_idx)

    monkeypatch.setattr(toy_project.ToyModel, "training_step", step)
    meant = "InputError" in source
    if batch == 0 or meant:
        result = lit_ssl(*BASE)
        assert result.code == 2
        end = "" if meant else " (LIT_SSL_DEBUG=1 shows where)"
        assert result.err.endswith(f"error: no labels{end}\n")
    else:
        with pytest.raises(ValueError, match="no labels"):
            lit_ssl(*BASE)


def test_run_that_never_began_leaves_no_folder(lit_ssl, workdir, monkeypatch):
    import toy_project

    def setup(self, stage):
        raise InputError("no images")

    words = [*BASE, "--trainer.logger=true"]
    assert lit_ssl(*words).code == 0
    before = sorted(workdir.rglob("*"))
    monkeypatch.setattr(toy_project.ToyData, "setup", setup, raising=False)
    assert lit_ssl(*words).err.endswith("error: no images\n")
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image_is_one_line_at_any_time(lit_ssl, workdir, workers):
    from PIL import Image

    for number in range(12):
        (workdir / "images").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(workdir / f"images/{number}.png")
    (workdir / "images/7.png").write_bytes(b"no image")
    words = ["--data=ImageFolderDataModule", "--data.root=images", "--data.image_size=8"]
    words += ["--data.batch_size=1", f"--data.num_workers={workers}", "--trainer.accelerator=cpu"]
    result = lit_ssl("fit", "--model=toy_project.TinyViT", *words)
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith("error: Cannot read the image images/7.png (UnidentifiedImageError: ")
    assert line.endswith("set on_corrupt: skip to use the next readable image in its place")
