"""What all data modules of sequences have in common, on symbols in memory."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.datamodules import PackedSequences, SequenceModule, Subset
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError
from lit_ssl.text.tokens import Tokens

SIZES = {"train": 43, "val": 7, "test": 10}


class ToySequences(SequenceModule):
    """Row ``i`` is ``i`` repeated ``i % 11`` times; every eleventh is empty."""

    class_names = ("a", "b", "c")
    vocab_size = 51
    pad_id = 50

    def __init__(self, *, max_length: int = 20, batch_size: int = 4, **kwargs):
        super().__init__(max_length=max_length, batch_size=batch_size, **kwargs)

    def load_rows(self, split):
        size = SIZES[split]
        sequences = (bytes([row] * (row % 11)) for row in range(size))
        return Rows(PackedSequences.of_bytes(sequences, 50), {"label": np.arange(size) % 3})


class Recorder(pl.LightningModule):
    """Remembers labels and inputs of each training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        self.seen.append((labels.tolist(), inputs["input_ids"].tolist()))
        return self.weight * inputs["input_ids"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_batches_are_filled_up_on_the_right():
    data = ToySequences(batch_size=3)
    inputs, labels = list(data.bank_dataloader())[1]
    assert inputs["input_ids"].tolist() == [
        [3, 3, 3, 50, 50],
        [4, 4, 4, 4, 50],
        [5, 5, 5, 5, 5],
    ]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1] * 5]
    assert {tensor.dtype for tensor in [*inputs.values(), labels]} == {torch.int64}
    assert labels.tolist() == [0, 1, 2]
    last, _ = list(data.bank_dataloader())[-1]
    assert last["input_ids"].shape == (1, 9)  # a last batch of one: row 42


def test_one_width_for_compiled_models():
    data = ToySequences(padding="max_length", max_length=13)
    for inputs, _ in data.train_dataloader():
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (4, 13)


def test_an_empty_sequence_shows_one_padding_token():
    data = ToySequences(batch_size=1)
    with pytest.warns(UserWarning, match="train: 4 of 43 sequences are empty; each counts as one"):
        data.setup("fit")
    batches = list(data.bank_dataloader())
    for row in (0, 11, 22, 33):
        assert batches[row][0]["input_ids"].tolist() == [[50]]
        assert batches[row][0]["attention_mask"].tolist() == [[1]]
    assert all(inputs["attention_mask"].sum() for inputs, _ in batches)


def test_what_is_too_long_is_cut_and_said_once(caplog):
    data = ToySequences(max_length=7)
    with caplog.at_level("INFO"):
        data.setup("fit")
        data.setup("fit")
        next(iter(data.bank_dataloader()))
    said = [record.message for record in caplog.records if "cut" in record.message]
    assert said == [
        "train: 11 of 43 sequences are cut to 7 tokens (max_length); the longest has 10",
    ]
    widths = [inputs["input_ids"].shape[1] for inputs, _ in data.bank_dataloader()]
    assert max(widths) == 7
    assert data.rows("train").source.tokens.ids.dtype == np.uint8


def test_ids_beyond_a_byte():
    tokens = Tokens(np.array([300, 7, 65535], dtype=np.uint16), None, np.array([0, 1, 1, 3]), 65536)
    packed = PackedSequences(tokens).select(np.array([2, 0, 1, 2]))
    assert packed.tokens.ids.dtype == np.uint16
    assert packed.lengths.tolist() == [2, 1, 0, 2]
    batch = packed.read_batch(np.array([2, 0, 1]))
    assert batch["input_ids"].tolist() == [[65536, 65536], [7, 65535], [300, 65536]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1], [1, 0]]


def test_hold_out_and_subset():
    data = ToySequences(val_size=9, subset=Subset(per_class=4), drop_last=False)
    assert np.bincount(data.labels("train")).tolist() == [4, 4, 4]
    assert np.bincount(data.labels("val")).tolist() == [3, 3, 3]
    rows = [row for part in ("train", "val") for row in data.rows(part).source.tokens.ids.tolist()]
    for row in set(rows):
        assert rows.count(row) == row % 11  # each sequence in one part only, and whole


def test_three_processes_share_the_rows(monkeypatch):
    found = []
    for rank in range(3):
        data = ToySequences(batch_size=2)
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        for inputs, _ in data.test_dataloader():
            found += inputs["input_ids"][:, 0].tolist()
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 50]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_stopped_goes_on_with_the_same_batches(tmp_path, fit, workers):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if len(module.seen) == 13:  # in the middle of the second epoch of three
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = fit(ToySequences(num_workers=workers), module=Recorder(), callbacks=[Save()])
    assert len(whole.seen) == 30
    rest = fit(ToySequences(), tmp_path / "middle.ckpt", module=Recorder())
    assert rest.seen == whole.seen[13:]
    assert not any(batch in whole.seen[:10] for batch in whole.seen[10:20])


def test_wrong_options():
    with pytest.raises(InputError, match="padding must be 'longest' or 'max_length', not 'left'"):
        ToySequences(padding="left")
    with pytest.raises(InputError, match="max_length must be at least 1"):
        ToySequences(max_length=0)
