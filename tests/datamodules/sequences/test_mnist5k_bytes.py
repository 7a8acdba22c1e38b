from __future__ import annotations

import pytest
import torch

from lit_ssl.datamodules import MNIST5kBytesDataModule, MNIST5kDataModule
from lit_ssl.errors import InputError


@pytest.mark.parametrize(("pool", "length"), [(1, 784), (2, 196), (4, 49)])
def test_the_digits_of_mnist5k_row_by_row(pool, length):
    data = MNIST5kBytesDataModule(pool=pool, batch_size=500)
    assert (data.vocab_size, data.pad_id, data.max_length) == (257, 256, length)
    digits = MNIST5kDataModule(batch_size=500)
    for split in ("train", "val", "test"):
        assert data.labels(split).tolist() == digits.labels(split).tolist()
    (inputs, labels), (images, expected) = (
        next(iter(part.val_dataloader())) for part in (data, digits)
    )
    assert torch.equal(labels, expected)
    assert inputs["input_ids"].shape == (500, length)
    assert inputs["attention_mask"].all()
    side = 28 // pool
    means = images.view(500, side, pool, side, pool).double().mean((2, 4)).flatten(1)
    assert (inputs["input_ids"] - means).abs().max() <= 0.5


def test_no_other_squares():
    with pytest.raises(InputError, match="pool must be 1, 2 or 4, not 3"):
        MNIST5kBytesDataModule(pool=3)
