"""What a step of the optimizer sees is said once, and compared with the recipe."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.callbacks import GlobalBatch
from lit_ssl.errors import InputError

RECIPES = Path(__file__).parents[2] / "cli_configs"


class Model(BoringModel):
    def __init__(self, batch_size=4):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(16, 32)), batch_size=self.batch_size)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).sum()


def lines(caplog, recipe=None, model=None, callbacks=(), **options):
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_epochs=3,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        callbacks=[*callbacks, GlobalBatch(recipe)], **options,
    )  # fmt: skip
    caplog.clear()
    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model or Model())
    said = [r.getMessage() for r in caplog.records if "global batch" in r.getMessage()]
    return said, [str(w.message) for w in caught if "global batch" in str(w.message)]


def test_it_is_said_once(caplog):
    said, warned = lines(caplog, accumulate_grad_batches=2)
    assert said == ["global batch: 4 per device x 1 device x 2 accumulated = 8"]
    assert warned == []
    assert lines(caplog, recipe=4)[0] == [
        "global batch: 4 per device x 1 device x 1 accumulated = 4"
    ]


def test_another_number_than_the_recipes_is_a_warning(caplog):
    said, (warned,) = lines(caplog, recipe=1024)
    assert said == []
    assert "1 accumulated = 4, and the recipe's is 1,024: set the batch size" in warned
    assert "--global_batch 4" in warned


def test_a_scheduler_that_changes_it(caplog):
    scheduler = GradientAccumulationScheduler({1: 2})
    said, warned = lines(caplog, recipe=8, callbacks=[scheduler])
    assert said == ["global batch: 4 per device x 1 device x 2 accumulated = 8"]
    assert len(warned) == 1
    assert "1 accumulated = 4, and the recipe's is 8" in warned[0]


def test_batches_without_a_size(caplog):
    class Batches:
        def __iter__(self):
            yield (torch.randn(3, 32),)

        def __len__(self):
            return 1

    class Single(Model):
        def train_dataloader(self):
            return Batches()

    assert lines(caplog, model=Single()) == ([], [])
    said, warned = lines(caplog, recipe=8, model=Single())
    assert said == []
    assert len(warned) == 1
    assert "cannot be known" in warned[0]


def test_a_wrong_number():
    with pytest.raises(InputError, match="global_batch must be at least 1, not 0"):
        GlobalBatch(0)


def recipes():
    return [p for p in sorted(RECIPES.glob("*/*.yaml")) if "\nglobal_batch:" in p.read_text()]


@pytest.mark.parametrize("path", recipes(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_say_the_product_of_their_own_command(path):
    text = path.read_text()
    config = yaml.safe_load(text)
    command = text.partition("lit-ssl fit")[2].partition("\n#\n")[0]
    data = config["data"]["init_args"]
    size = data.get("batch_size") or data["dataset"]["init_args"]["batch_size"]
    for option in ("num_nodes", "devices"):
        found = re.search(rf"--trainer\.{option} (\d+)", command)
        size *= int(found[1]) if found else config["trainer"].get(option, 1)
    size *= config["trainer"].get("accumulate_grad_batches", 1)
    assert config["global_batch"] == size


def test_every_recipe_of_imagenet_says_it():
    training = [p for p in RECIPES.glob("*/imagenet*.yaml") if p.parent.name != "eval"]
    assert training
    assert set(training) <= set(recipes())
    for path in training:
        assert re.search(r"^# .*8 GPUs", path.read_text(), re.M), path
