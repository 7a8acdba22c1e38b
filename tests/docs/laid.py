"""What pages find in their working folder: files and, in Python blocks, names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from commands import Command, run
from fences import ROOT
from photographs import lay_photographs


def photos(names: dict[str, Any]) -> None:
    """A folder `photos` of photographs in class folders."""
    lay_photographs("photos", per_class=12)


def msn_run(names: dict[str, Any]) -> None:
    """A checkpoint `runs/msn/last.ckpt` of the recipe on digits, after two steps."""
    cut = "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1"
    words = f"lit-ssl fit --config msn/mnist5k.yaml {cut} --trainer.default_root_dir laid"
    run(Command(words.split()), "", check=False)
    Path("runs/msn").mkdir(parents=True)
    (checkpoint,) = Path("laid").rglob("last.ckpt")
    checkpoint.rename("runs/msn/last.ckpt")


def predictions_by_kind(names: dict[str, Any]) -> None:
    """Answers, labels and the kinds of image of eight images."""
    names["logits"] = torch.eye(8)[:, :4]
    names["labels"] = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    names["factors"] = torch.tensor([0, 1, 2, 0, 1, 2, -1, 0])


def photo_table(names: dict[str, Any]) -> None:
    """The folder `photos`, and `photos.csv` that says file, label and split of each."""
    photos(names)
    files = sorted(path.relative_to("photos") for path in Path("photos").rglob("*.*"))
    splits = ("train", "train", "train", "val", "test", "train")
    with open("photos.csv", "w") as table:
        print("file,label,split", file=table)
        for number, file in enumerate(files):
            label = "" if number == 0 else file.parent.name
            print(f"{file.as_posix()},{label},{splits[number % len(splits)]}", file=table)


def wandb(names: dict[str, Any]) -> None:
    """The package; pages that need it are skipped without."""
    pytest.importorskip("wandb")


def stored_results(names: dict[str, Any]) -> None:
    """The stored runs of `docs/results`."""
    shutil.copytree(ROOT / "docs" / "results", Path("docs", "results"))


LAID = {
    function.__name__: function
    for function in (photos, photo_table, msn_run, predictions_by_kind, stored_results, wandb)
}
