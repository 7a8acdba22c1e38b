"""Texts with a class and an attribute."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.groups.data import GroupedData
from lit_ssl.datamodules.loading.batches import as_is
from lit_ssl.datamodules.loading.resumable import share_of
from lit_ssl.datamodules.selection.partition import Split, splits_of_stage
from lit_ssl.errors import InputError
from lit_ssl.text.tokens import Tokens, load_tokenizer, tokenize

__all__ = ["GroupTextDataModule", "Texts"]

Key = tuple[int, int] | int


class Texts(NamedTuple):
    """Texts of a split.

    Attributes:
        first: N texts.
        second: N texts that make pairs with them, or None.
        labels: int64 `[N]`.
        attributes: int64 `[N]`, −1 where unknown.
    """

    first: Sequence[str]
    second: Sequence[str] | None
    labels: np.ndarray
    attributes: np.ndarray


class _TokenRows(Dataset):
    """Batches (tokens, rows)."""

    def __init__(self, tokens: Tokens, width: int | None) -> None:
        self.tokens = tokens
        self.width = width

    def __len__(self) -> int:
        return len(self.tokens.starts) - 1

    def __getitem__(self, key: Key) -> tuple[dict[str, Tensor], Tensor]:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        rows = np.array([key[0] if isinstance(key, tuple) else key for key in keys], dtype=np.int64)
        return self.tokens.batch(rows, self.width), torch.from_numpy(rows)


class GroupTextDataModule(GroupedData, pl.LightningDataModule):
    """Texts whose class goes along with an attribute in training.

    A batch is `(tokens, labels, groups)`, see `GroupedData`; tokens are int64 `[B, L]` each:
    `input_ids`, `attention_mask` and, where the tokenizer has them, `token_type_ids`. All texts of
    a split are tokenized once, in `setup`, and kept in memory.

    Args:
        tokenizer: Folder of a pretrained tokenizer (or model) that transformers can read; nothing
            is downloaded.
        max_length: Longest text, in tokens; longer ones are cut.
        padding: "longest" fills a batch up to its longest text; "max_length" always to
            `max_length`, for compiled models.
        batch_size: Texts per batch and process.
        num_workers: Worker processes per loader; tokens in memory need none.
        seed: Seed of the order, the same on all processes. None takes the one of `seed_everything`
            (`PL_GLOBAL_SEED`), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        group_label_fraction: Share of the training rows whose attribute is known; see
            `GroupImageDataModule`.
        group_label_seed: Seed of that choice.
        group_labels: CSV file with an attribute of every training row.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
    """

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
        drop_last: bool = True,
        group_label_fraction: float = 1.0,
        group_label_seed: int = 0,
        group_labels: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if padding not in ("longest", "max_length"):
            raise InputError(f"padding must be 'longest' or 'max_length', got {padding!r}.")
        self.tokenizer = os.path.expanduser(tokenizer)
        self.max_length = max_length
        self.padding = padding
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.drop_last = drop_last
        self._texts: dict[Split, Texts | None] = {}
        self._tokens: dict[Split, Tokens] = {}
        self._init_groups(group_label_fraction, group_label_seed, group_labels)

    @abstractmethod
    def load_texts(self, split: Split) -> Texts | None:
        """Return the texts of a split, None if there are none. Called at most once per split."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenize the texts of a stage and say how many group labels there are.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        for split in splits_of_stage(stage):
            if len(self.labels(split)):
                self._tokenized(split)
        if stage in ("fit", None):
            self.report_groups()

    def labels(self, split: Split) -> np.ndarray:
        """Return the labels of a split: int64 `[N]`; `[0]` if there is no such split."""
        texts = self._read(split)
        return np.empty(0, dtype=np.int64) if texts is None else texts.labels

    def attribute_array(self, split: Split) -> np.ndarray:
        """Return the attributes in the data, int64 `[N]`, −1 where the data do not say."""
        texts = self._read(split)
        return np.empty(0, dtype=np.int64) if texts is None else texts.attributes

    def run_seed(self) -> int:
        """Return the seed of this run: `seed`, or else that of `seed_everything`, or else 0."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed

    def shard(self) -> tuple[int, int]:
        """Return the number of processes that share the data, and the rank of this one."""
        return share_of(self.trainer)

    def _read(self, split: Split) -> Texts | None:
        if split not in self._texts:
            self._texts[split] = self.load_texts(split)
        return self._texts[split]

    def _tokenized(self, split: Split) -> Tokens:
        if split not in self._tokens:
            texts = self._read(split)
            if texts is None:
                raise InputError(f"{type(self).__name__} has no texts for the {split} split.")
            tokenizer = load_tokenizer(self.tokenizer)
            rank_zero_info(f"Tokenizing {len(texts.first):,} texts of the {split} split.")
            tokens = tokenize(tokenizer, texts.first, texts.second, self.max_length)
            self._tokens[split] = tokens
            self._texts[split] = texts._replace(first=(), second=None)  # frees the strings
        return self._tokens[split]

    def _rows(self, split: Split, training: bool = False) -> Dataset:
        width = self.max_length if self.padding == "max_length" else None
        return _TokenRows(self._tokenized(split), width)

    def _loader_arguments(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "collate_fn": as_is,
            # Else each new iterator takes a number from the global generator.
            "generator": torch.Generator().manual_seed(self.run_seed()),
        }
