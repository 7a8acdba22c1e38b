"""A pass in the middle of a training leaves the training as it was."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.callbacks import KNNEvaluator
from lit_ssl.contracts.batches import grouped_batch, labelled_batch
from lit_ssl.errors import InputError, InputImportError, by_name
from lit_ssl.files import write_csv, write_json
from lit_ssl.trainer.passes import evaluate_batches, predict_rows

ROWS = torch.arange(14.0).view(7, 2)


class Module(pl.LightningModule):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.layer = nn.Linear(2, 1)
        self.frozen = nn.BatchNorm1d(2).eval()

    def forward(self, inputs):
        assert not self.training
        assert not torch.is_grad_enabled()
        torch.rand(1)
        return inputs * 2

    def training_step(self, batch, batch_idx):
        before = torch.get_rng_state(), [part.training for part in self.modules()]
        loader = DataLoader(TensorDataset(ROWS, torch.zeros(7)), batch_size=3, shuffle=False)
        self.seen.append(predict_rows(self.trainer, self, loader, 7))
        self.seen.append(evaluate_batches(self.trainer, self, lambda b, _: len(b[0]), loader, 2))
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == [part.training for part in self.modules()]
        assert torch.is_grad_enabled()
        return self.layer(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_mode_random_state_and_gradients_stay(tmp_path):
    seen = []
    trainer = pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(seen), DataLoader(TensorDataset(ROWS), batch_size=7))
    rows, lengths = seen
    assert torch.equal(rows, 2 * ROWS)
    assert lengths == [3, 3]


def test_a_loader_without_batches_is_explained():
    with pytest.raises(InputError, match="the loader is empty on this process"):
        predict_rows(None, nn.Identity(), [], 3)


class Speaker:
    @by_name
    def speak(self, error):
        raise error


class Quiet(Speaker):
    pass


def test_an_error_begins_with_the_class_of_who_met_it():
    for error, wanted in (
        (InputError("needs labels"), "Quiet needs labels"),
        (InputError("the split is empty"), "Quiet: the split is empty"),
        (InputError("Quiet: the split is empty"), "Quiet: the split is empty"),
        (InputImportError("the plot needs a package"), "Quiet: the plot needs a package"),
    ):
        with pytest.raises(type(error), match=f"^{wanted}$"):
            Quiet().speak(error)
    with pytest.raises(KeyError, match="'needs'"):
        Quiet().speak(KeyError("needs"))


def test_a_wrong_batch_is_told_by_the_callback_that_met_it():
    with pytest.raises(InputError, match=r"^trains on labelled batches"):
        labelled_batch(([ROWS], torch.zeros(2)))
    with pytest.raises(InputError, match=r"^needs batches .* got list\(Tensor\[7, 2\], Tensor"):
        grouped_batch([ROWS, torch.zeros(7)])
    with pytest.raises(ValueError, match=r"^KNNEvaluator needs k >= 1"):
        KNNEvaluator(k=0)


def test_json_has_null_for_nan_and_csv_has_unix_lines(tmp_path):
    content = {"a": [float("nan"), (1.5, np.float64("nan"))], "b": "ä"}
    text = write_json(tmp_path / "deep/a.json", content).read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, [1.5, None]], "b": "ä"}
    assert "ä" in text
    path = write_csv(tmp_path / "a.csv", [{"x": 1, "y": "a,b"}])
    assert path.read_bytes() == b'x,y\n1,"a,b"\n'
