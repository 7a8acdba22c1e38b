"""Texts with a class and an attribute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.groups.data import GroupedData
from lit_ssl.datamodules.loading.batches import BatchSet
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.text.tokens import Tokens, load_tokenizer, tokenize

__all__ = ["GroupTextDataModule", "Texts"]


@dataclass(frozen=True)
class Texts:
    """Texts, or pairs of texts: a source of rows.

    Args:
        first: N texts.
        second: N texts that make pairs with them, or None.
    """

    first: Sequence[str]
    second: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def name(self, row: int) -> None:
        """Return None: texts have no names.

        Args:
            row: not used.
        """

    def select(self, rows: np.ndarray) -> Texts:
        """Return the texts at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """
        first = [self.first[row] for row in rows]
        return Texts(first, None if self.second is None else [self.second[row] for row in rows])


@dataclass(frozen=True)
class _TokenReader:
    """Tokens of the texts of a split, in batches of a fixed width, or of that of the longest."""

    tokens: Tokens
    width: int | None

    def __len__(self) -> int:
        return len(self.tokens.starts) - 1

    def name(self, row: int) -> None:
        """Return None: texts have no names."""

    def select(self, rows: np.ndarray) -> _TokenReader:
        raise NotImplementedError("rows are chosen before their texts are tokenized")

    def read_batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return self.tokens.batch(rows, self.width)


class GroupTextDataModule(GroupedData):
    """Texts whose class goes along with an attribute in training.

    A data set gives ``load_rows``, whose source is ``Texts``, with the columns ``label`` and
    ``attribute``. A batch is ``(tokens, labels, groups)``, see ``GroupedData``; tokens are int64
    ``[B, L]`` each: ``input_ids``, ``attention_mask`` and, where the tokenizer has them,
    ``token_type_ids``. All texts of a split are tokenized once, in ``setup``, and kept in memory.

    Args:
        tokenizer: Folder of a pretrained tokenizer (or model) that transformers can read; nothing
            is downloaded.
        max_length: Longest text, in tokens; longer ones are cut.
        padding: "longest" fills a batch up to its longest text; "max_length" always to
            ``max_length``, for compiled models.
        batch_size: Texts per batch and process.
        num_workers: Worker processes per loader; tokens in memory need none.
        seed: Seed of the order, the same on all processes. None takes the one of
            ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        group_label_fraction: Share of the training rows whose attribute is known; see
            ``GroupImageDataModule``.
        group_label_seed: Seed of that choice.
        group_labels: CSV file with an attribute of every training row.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.

    Raises:
        InputError: ``padding`` has none of its values.
    """

    inputs = "texts"

    def __init__(
        self,
        *,
        tokenizer: str,
        max_length: int = 128,
        padding: Literal["longest", "max_length"] = "longest",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        group_label_fraction: float = 1.0,
        group_label_seed: int = 0,
        group_labels: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            drop_last=drop_last,
        )
        self.save_hyperparameters(logger=False)
        if padding not in ("longest", "max_length"):
            raise InputError(f"padding must be 'longest' or 'max_length', got {padding!r}")
        self.tokenizer = os.path.expanduser(tokenizer)
        self.max_length = max_length
        self.padding = padding
        self._init_groups(group_label_fraction, group_label_seed, group_labels)

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Tokenize the texts of a split."""
        texts = rows.source
        assert isinstance(texts, Texts)
        tokenizer = load_tokenizer(self.tokenizer)
        rank_zero_info(f"Tokenizing {len(texts):,} texts of the {split} split.")
        tokens = tokenize(tokenizer, texts.first, texts.second, self.max_length)
        width = self.max_length if self.padding == "max_length" else None
        return Rows(_TokenReader(tokens, width), rows.columns)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (tokens, rows)."""
        return BatchSet(self._require(split).source)
