"""The data module under all others: rows and columns, selected, sampled, shared out, resumed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Subset as DatasetSubset

from lit_ssl.datamodules.loading.batches import as_is
from lit_ssl.datamodules.loading.resumable import (
    ResumableDataLoader,
    ResumingData,
    RowsLoader,
    Targets,
)
from lit_ssl.datamodules.loading.samplers import EpochSampler, ShardSampler
from lit_ssl.datamodules.loading.workers import begin_worker, check_prefetch
from lit_ssl.datamodules.reading.found import check_labels, describe_rows
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Partition, Split, splits_of_stage
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError
from lit_ssl.seeding import run_seed
from lit_ssl.trainer.selection import check_monitors

__all__ = ["RowsModule"]


class RowsModule(ResumingData, pl.LightningDataModule, ABC):
    """Rows of any kind of input, for training and evaluation.

    A data set gives ``load_rows`` and ``class_names``; a kind of input gives ``served``. Workers
    read inputs; columns are added by row in the main process (``targets``), so that a method may
    change them between epochs. After a crash in the middle of an epoch the rest of it comes, in the
    same order and with the same augmentation, whatever the number of workers; that costs one hash
    per row and epoch, and rules out samplers that remember.

    The arguments are those of the same names of
    [`ImageDataModule`][lit_ssl.datamodules.ImageDataModule].

    Args:
        batch_size: Rows per batch and process.
        num_workers: Worker processes per loader; 0 reads in the main process.
        seed: Seed of the order of the rows and of their views. None takes the one of
            ``seed_everything``, or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready, at least 1. None: 2. Only with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training rows only.
        val_size: Number of training rows held out for validation; 0: none.
        val_file: Hold out the rows that a list names, in place of ``val_size``.
    """

    carried: ClassVar[tuple[str, ...]] = ("label",)  # columns that batches carry
    inputs: ClassVar[str] = "images"  # what rows are, for messages
    reported: ClassVar[Split] = "test"  # the data set's own split that papers report
    # A column, and what has one value of it: rows of one value are chosen and held out together.
    chosen_by: ClassVar[tuple[str, str] | None] = None

    def __init__(
        self,
        *,
        batch_size: int,
        num_workers: int,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        subset: Subset | None = None,
        val_size: int = 0,
        val_file: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.prefetch_factor = prefetch_factor
        if prefetch_factor is not None:
            check_prefetch(prefetch_factor, num_workers)
        self.drop_last = drop_last
        self.subset = subset
        self._said: set[Split] = set()
        self.hold_out(val_size, val_file)

    def hold_out(self, val_size: int = 0, val_file: str | None = None) -> None:
        """Say which training rows are held out for validation, before any row is read.

        Args:
            val_size: As the argument of the same name.
            val_file: As the argument of the same name.
        """
        self.val_size = val_size
        self._splits = Partition(
            self.load_rows,
            self.opened,
            val_size=val_size,
            val_file=val_file,
            subset=self.subset,
            class_name=self._class_name,
            inputs=self.inputs,
            chosen_by=self.chosen_by,
            usable=self.usable,
        )

    # What a data set gives

    @abstractmethod
    def load_rows(self, split: Split) -> Rows | None:
        """Return the rows of one of the data set's own splits, None if it has no such split.

        Called once per split and process, and only for splits that the run reads (the training
        split once more where it is also what is predicted). The training split is always there,
        complete, and in its official order.

        Args:
            split: which split.
        """

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels; empty if there are no labels."""

    # What a kind of input gives

    @abstractmethod
    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (inputs, rows); see ``loading.batches``.

        Args:
            split: which split, of which there are rows.
            training: whether a network trains on it: views in place of evaluation images, and the
                like.
        """

    def usable(self, rows: Rows, split: Split) -> np.ndarray | None:
        """Say which of the chosen rows of a split can be read, bool ``[N]``; None: all.

        What is chosen does not depend on it: the others are then left out.

        Args:
            rows: chosen rows, before they are opened.
            split: which split they are of.
        """
        return None

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Make the chosen rows of a split ready to be read, once; here they are.

        Args:
            rows: chosen rows.
            split: which split they are of.
        """
        return rows

    # Rows and columns

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None where it is not known."""
        return len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Find the rows of a stage, so that errors show before training starts.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        for split in splits_of_stage(stage):
            self.say_found(split)
        if stage == "validate" and not self.rows("val"):
            raise InputError(
                f"{type(self).__name__} has no {self.inputs} for the val split: give it some, or"
                " hold out training rows (val_size)"
            )
        if self.trainer is not None and self.trainer.state.fn == "fit":
            check_monitors(self.trainer, self)

    def say_found(self, split: Split) -> None:
        """Find the rows of a split, check their labels, and say once what there is.

        Args:
            split: which split; nothing is said of one without rows.
        """
        rows = self.rows(split)
        if not rows:
            return
        check_labels(rows, self.num_classes, split)
        found = describe_rows(rows, self.class_names, self.inputs, self._splits.size_before(split))
        if found is not None and split not in self._said:
            rank_zero_info(f"{split}: {found}")
        self._said.add(split)

    @property
    def validates_on_test(self) -> bool:
        """Whether validation sees the rows that results are reported on; no choice is for them."""
        return self._splits.validation_source == self.reported

    def rows(self, split: Split) -> Rows | None:
        """Return the rows of a split as it is used, after hold-out and subset.

        Args:
            split: which split.

        Returns:
            None without such a split.
        """
        return self._splits[split]

    def column(self, name: str, split: Split) -> np.ndarray:
        """Return a column of a split as it is used: ``[N, …]``; ``[0]`` without such a split.

        Args:
            name: of a column that the data set has.
            split: which split.
        """
        rows = self.rows(split)
        return np.empty(0, dtype=np.int64) if rows is None else rows.columns[name]

    def labels(self, split: Split) -> np.ndarray:
        """Return the labels of a split as it is used: int64 ``[N]``, −1 where unknown.

        Args:
            split: which split.
        """
        return self.column("label", split)

    def targets(self, split: Split) -> tuple[np.ndarray, ...]:
        """Return what batches carry beside the inputs, ``[N, ...]`` each; asked once per pass.

        Args:
            split: which split.
        """
        return tuple(self.column(name, split) for name in self.carried)

    def positions(self, subset: Subset | Mapping[str, Any]) -> np.ndarray:
        """Return which training rows, as they are used, a (further) subset picks.

        Args:
            subset: Names or indices in a file refer to the official training set. A mapping holds
                the arguments of a ``Subset``, such as ``{"file": "paws/imagenet_1percent"}``.

        Returns:
            int64, ascending: positions in ``labels("train")``.
        """
        chosen = Subset(**subset) if isinstance(subset, Mapping) else subset
        return self._splits.positions(chosen)

    # Loaders

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of training batches, which resumes in the middle of an epoch."""
        dataset = self.served("train", training=True)
        sampler = self.epoch_sampler(dataset)
        full = _fills_a_batch(sampler, self.batch_size, self.inputs)
        loader = self.training_loader(dataset, sampler, self.batch_size, self.drop_last and full)
        self.resume([loader])
        return loader

    def epoch_sampler(self, dataset: Dataset) -> EpochSampler:
        """Return the sampler that orders training epochs.

        Args:
            dataset: what ``served`` returned for training.
        """
        return EpochSampler(dataset, *self.shard(), seed=self.run_seed(), drop_last=self.drop_last)

    def training_loader(
        self, dataset: Dataset, sampler: EpochSampler, batch_size: int, drop_last: bool = True
    ) -> ResumableDataLoader:
        """Return a loader of training rows in the order of a sampler.

        Args:
            dataset: Gives batches (inputs, rows).
            sampler: Gives positions in ``labels("train")``.
            batch_size: Rows per batch.
            drop_last: Leave out a last, smaller batch.
        """
        return ResumableDataLoader(
            dataset,
            sampler=sampler,
            drop_last=drop_last,
            processed=self._processed_batches,
            persistent_workers=self.num_workers > 0,
            **{**self._arguments(partial(self.targets, "train")), "batch_size": batch_size},
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches; an empty list if there are no rows for it."""
        return self.evaluation_loader("val", keep_workers=True) if self.rows("val") else []

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of test batches; of validation batches where there is no test split."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of test batches, else validation batches, else of all training rows."""
        return self.evaluation_loader("predict")

    def bank_dataloader(self, positions: np.ndarray | None = None) -> DataLoader:
        """Return a loader of the training rows, evaluation transform, in order, each once.

        Its rows are those of the training loader (after hold-out and subset). With several
        processes, row ``i`` of the loader on process ``r`` of ``W`` is training row ``r + i * W``;
        nothing is padded.

        Args:
            positions: int64, positions in ``labels("train")`` of the rows to serve; None: all.
        """
        return self.evaluation_loader("train", positions=positions)

    def evaluation_loader(
        self, split: Split, keep_workers: bool = False, positions: np.ndarray | None = None
    ) -> RowsLoader:
        """Return a loader of a split, or of some of its rows, in order, over all processes.

        Args:
            split: which split.
            keep_workers: whether its worker processes outlive a pass.
            positions: in the split, int64 ``[M]``, in the order in which they are served; None:
                all.
        """
        dataset = self.served(split)
        if positions is not None:
            dataset = DatasetSubset(dataset, positions.tolist())
        return self.loader_in_order(dataset, partial(self.targets, split), keep_workers)

    def loader_in_order(
        self, dataset: Dataset, targets: Targets, keep_workers: bool = False
    ) -> RowsLoader:
        """Return a loader of any data set, each row once, in order, over all processes.

        Args:
            dataset: Gives batches (inputs, rows).
            targets: Returns what goes with its rows, as ``targets`` does for a split.
            keep_workers: Let workers live between passes.
        """
        replicas, rank = self.shard()
        return RowsLoader(
            dataset,
            sampler=ShardSampler(dataset, replicas, rank) if replicas > 1 else None,
            persistent_workers=keep_workers and self.num_workers > 0,
            **self._arguments(targets),
        )

    def run_seed(self) -> int:
        """Return the seed of this run: ``seed``, or else that of ``seed_everything``, or else 0."""
        return run_seed(self.seed)

    def shard(self) -> tuple[int, int]:
        """Return the number of processes that share the data, and the rank of this one."""
        if self.trainer is not None:
            share = self.trainer.distributed_sampler_kwargs or {}
            return share.get("num_replicas", 1), share.get("rank", 0)
        if dist.is_available() and dist.is_initialized():
            return dist.get_world_size(), dist.get_rank()
        return 1, 0

    def _arguments(self, targets: Targets) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "prefetch_factor": self.prefetch_factor,
            "collate_fn": as_is,
            "targets": targets,
            "worker_init_fn": begin_worker,
            # Else each new iterator takes a number from the global generator, and evaluating would
            # change the course of the training.
            "generator": torch.Generator().manual_seed(self.run_seed()),
        }

    def _processed_batches(self) -> int | None:
        """How many batches of this epoch the training loop has finished; None without one."""
        if self.trainer is None:
            return None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.processed  # type: ignore[attr-defined]

    def _require(self, split: Split) -> Rows:
        rows = self.rows(split)
        if not rows:
            raise InputError(f"{type(self).__name__} has no {self.inputs} for the {split} split")
        return rows

    def _class_name(self, label: int) -> str:
        return self.class_names[label] if 0 <= label < len(self.class_names) else "without a label"


def _fills_a_batch(sampler: EpochSampler, batch_size: int, inputs: str) -> bool:
    """Whether each process has a full batch of training rows; warns if it has only part of one."""
    share = len(sampler)
    if share == 0:
        raise InputError(
            f"No training batch: {sampler.dataset_size} training {inputs} for"
            f" {sampler.num_replicas} processes. Use fewer processes, or drop_last: false"
        )
    if share < batch_size and sampler.drop_last:
        rank_zero_warn(
            f"Only {share} training {inputs} per process, but batch_size is {batch_size}: each"
            f" epoch is one batch of {share}."
        )
    return share >= batch_size
