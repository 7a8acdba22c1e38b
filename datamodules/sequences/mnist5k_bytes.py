"""MNIST-5k as sequences of grey values."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.sequences.packed import PackedSequences
from lit_ssl.datamodules.sequences.sequence_module import SequenceModule
from lit_ssl.errors import check_choice

__all__ = ["MNIST5kBytesDataModule"]

_SIDE = 28


class MNIST5kBytesDataModule(SequenceModule):
    """The digits of ``MNIST5kDataModule``, each as its grey values from 0 to 255, row by row.

    The digits and their splits are the same. All sequences are equally long, so that there is no
    padding.

    Args:
        pool: Average squares of so many pixels a side first: 1 gives 784 bytes, 2 196, 4 49.
        val_size: Number of training digits held out for validation.
        kwargs: Arguments of ``SequenceModule`` but ``max_length``, which follows from ``pool``.
    """

    inputs = "digits"
    tokens = "bytes"
    vocab_size = 257  # bytes, and padding
    pad_id = 256
    class_names = MNIST5kDataModule.class_names

    def __init__(self, *, pool: int = 1, val_size: int = 500, **kwargs: Any) -> None:
        check_choice("pool", pool, (1, 2, 4))
        super().__init__(max_length=(_SIDE // pool) ** 2, val_size=val_size, **kwargs)
        self.pool = pool

    def prepare_data(self) -> None:
        """Check that the digits can be loaded."""
        MNIST5kDataModule().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the 4,000 training or the 1,000 test digits; there is no own validation split."""
        digits = MNIST5kDataModule().load_rows(split)
        if digits is None:
            return None
        assert isinstance(digits.source, ArrayImages)
        grey = F.avg_pool2d(digits.source.pixels.float(), self.pool).round().byte()
        rows = (row.numpy().tobytes() for row in grey.flatten(1))
        return Rows(PackedSequences.of_bytes(rows, self.pad_id), digits.columns)
