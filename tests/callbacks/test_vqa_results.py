"""The file of answers for VQA's server."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.callbacks import VQAResults
from lit_ssl.datamodules.loading.batches import BatchSet
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError

ROWS = 7


class Numbers:
    """Inputs that are the numbers of their rows."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def name(self, row):
        return None

    def select(self, rows):
        return Numbers(self.rows[rows])

    def read_batch(self, rows):
        return {"numbers": torch.from_numpy(self.rows[rows])}


class Questions(RowsModule):
    """Seven questions."""

    class_names = ("no", "naïve", "yes")
    column_name = "question_id"

    def __init__(self):
        super().__init__(batch_size=2, num_workers=0)

    def load_rows(self, split):
        columns = {"label": np.full(ROWS, -1), self.column_name: 10**12 + np.arange(ROWS)[::-1]}
        return Rows(Numbers(np.arange(ROWS)), columns)

    def served(self, split, training=False):
        return BatchSet(self._require(split).source)


class Answers(pl.LightningModule):
    """Answers each question by its number."""

    dtype_of_answers = torch.int64

    def predict_step(self, batch, batch_idx):
        return (batch[0]["numbers"] % 3).to(self.dtype_of_answers)


class Clean(pl.Callback):
    """gloo's threads could abort a process that ends."""

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:
            torch.distributed.destroy_process_group()


def predict(module=None, data=None, **kwargs):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[VQAResults("out"), Clean()], **kwargs,
    )  # fmt: skip
    trainer.predict(module or Answers(), datamodule=data or Questions(), return_predictions=False)


@pytest.mark.parametrize(
    "processes", [1, pytest.param(3, marks=pytest.mark.distributed)]
)  # three have 3, 2 and 2 questions
def test_all_answers_are_in_one_file_in_order(tmp_path, monkeypatch, processes):
    monkeypatch.chdir(tmp_path)
    strategy = "ddp_fork" if processes > 1 else "auto"
    predict(devices=processes, strategy=strategy)
    found = json.loads((tmp_path / "out" / "vqa_results.json").read_text(encoding="utf-8"))
    assert found == [
        {"question_id": 10**12 + ROWS - 1 - row, "answer": Questions.class_names[row % 3]}
        for row in range(ROWS)
    ]


def test_a_part_is_said_to_be_one(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        predict(limit_predict_batches=2)
    assert "4 answers of 7, which servers refuse, in out" in caplog.text
    assert len(json.loads((tmp_path / "out" / "vqa_results.json").read_text())) == 4


def test_data_without_questions_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Questions()
    data.column_name = "number"
    with pytest.raises(InputError, match="VQAResults needs a data module whose rows have"):
        predict(data=data)
    data = Questions()
    data.class_names = ()
    with pytest.raises(InputError, match=r"Questions has no class_names"):
        predict(data=data)
    assert not (tmp_path / "out").exists()


def test_other_predictions_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = Answers()
    module.dtype_of_answers = torch.float32
    with pytest.raises(InputError, match=r"VQAResults needs numbers of answers, int64 \[B\]"):
        predict(module)
