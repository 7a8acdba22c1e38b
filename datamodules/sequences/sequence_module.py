"""Sequences of bytes or symbols with a class."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import BatchSet
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.datamodules.sequences.packed import PackedSequences
from lit_ssl.errors import InputError, check_choice
from lit_ssl.trainer.hparams import not_plain

__all__ = ["SequenceModule"]


class SequenceModule(RowsModule):
    """Labelled sequences of token ids, held in memory.

    A data set gives ``load_rows``, whose source is ``PackedSequences``, and the class attributes
    below. A batch is ``(inputs, labels)``: inputs are ``input_ids`` and ``attention_mask``, int64
    ``[B, L]`` each, the mask 1 where a token is; labels are int64 ``[B]``. An empty sequence is one
    padding token with a mask of 1. Names of rows in lists are those of the data set's files.

    Args:
        max_length: Longest sequence, in tokens, >= 1; longer ones are cut, which is said.
        padding: "longest" fills a batch up to its longest sequence; "max_length" always to
            ``max_length``, for compiled models.
        batch_size: Sequences per batch and process.
        num_workers: Worker processes per loader; tokens in memory need none.
        seed: Seed of the order, the same on all processes. None takes the one of
            ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training sequences only.
        val_size: Number of training sequences held out for validation: always the same ones, in
            proportion to the sizes of the classes. 0 validates on the data set's own validation
            sequences, or on its test sequences where it has none.
        val_file: Hold out the training sequences that a list names, in place of ``val_size``.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        vocab_size: Number of ids, that of padding included: ids lie in ``[0, vocab_size)``.
        pad_id: The id of padding.
        max_length: Longest sequence.

    Raises:
        InputError: ``max_length`` is below 1.
    """

    inputs = "sequences"
    tokens: ClassVar[str] = "tokens"  # what sequences are made of, for messages
    vocab_size: ClassVar[int]
    pad_id: ClassVar[int]

    def __init__(
        self,
        *,
        max_length: int,
        padding: Literal["longest", "max_length"] = "longest",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        subset: Subset | None = None,
        val_size: int = 0,
        val_file: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            drop_last=drop_last,
            subset=subset,
            val_size=val_size,
            val_file=val_file,
        )
        self.save_hyperparameters(logger=False, ignore=not_plain(subset=subset))
        check_choice("padding", padding, ("longest", "max_length"))
        if max_length < 1:
            raise InputError(f"max_length must be at least 1, not {max_length}")
        self.max_length = max_length
        self.padding = padding

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Cut sequences that are too long, and say how many are cut or empty."""
        source = rows.source
        assert isinstance(source, PackedSequences)
        lengths = source.lengths
        if longer := int((lengths > self.max_length).sum()):
            source = self.shortened(source, split, longer)
        if empty := int((lengths == 0).sum()):
            rank_zero_warn(
                f"{split}: {empty:,} of {len(rows):,} {self.inputs} are empty; each counts as one"
                " padding token"
            )
        width = self.max_length if self.padding == "max_length" else None
        return Rows(replace(source, width=width), rows.columns)

    def shortened(self, source: PackedSequences, split: Split, longer: int) -> PackedSequences:
        """Return sequences of at most ``max_length``, where so many are longer.

        Args:
            source: the sequences.
            split: which split they are of, for the message.
            longer: how many are longer than ``max_length``.
        """
        rank_zero_info(
            f"{split}: {longer:,} of {len(source):,} {self.inputs} are cut to {self.max_length:,}"
            f" {self.tokens} (max_length); the longest has {int(source.lengths.max()):,}"
        )
        return source.cut(self.max_length)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (inputs, rows)."""
        return BatchSet(self._require(split).source)
