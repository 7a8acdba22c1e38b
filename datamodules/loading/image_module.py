"""The data module that all image data sets share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_ssl.datamodules.loading.batches import EvaluationSet, RawSet, ViewSet, as_is
from lit_ssl.datamodules.loading.class_batches import ClassesPerBatchSampler
from lit_ssl.datamodules.loading.device_views import finish_images
from lit_ssl.datamodules.loading.resumable import (
    ResumableDataLoader,
    ResumingData,
    check_share,
    processed_batches,
    share_of,
)
from lit_ssl.datamodules.loading.samplers import EpochSampler, ShardSampler
from lit_ssl.datamodules.reading.images import Images
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Partition, Split, splits_of_stage
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform, MultiCrop, SingleView

__all__ = ["ImageDataModule"]


class ImageDataModule(ResumingData, pl.LightningDataModule, ABC):
    """Labelled images for self-supervised training and its evaluation.

    A subclass gives its images per split (`load_images`), its `class_names`, its usual evaluation
    transform and, where they differ, the class attributes; everything else is here.
    Batches are described in `docs/design.md`.

    Args:
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader; they stay alive between epochs. 0 reads in the
            main process.
        train_transform: Views for training: `MultiCrop` (batches of views) or `SingleView`
            (labelled batches of augmented images). None trains on labelled batches with the
            evaluation transform.
        eval_transform: Transform of all other images. None takes the data set's usual one.
        augment: "worker" makes the views in the workers, one image at a time; "device" sends
            undistorted images and makes the views of a whole batch on the training device.
        subset: Train on a part of the training images only.
        on_corrupt: "raise" stops at an unreadable image; "skip" uses the next readable one of its
            split in its place and warns.
        seed: Seed of the order of the images and of their views, the same on all processes. None
            takes the one of `seed_everything` (`PL_GLOBAL_SEED`), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one
            (and, with several processes, the images that do not divide evenly; otherwise some come
            twice).
        val_size: Number of training images held out for validation: always the same ones, in
            proportion to the sizes of the classes. 0 validates on the data set's own validation
            images, or on its test images where it has none.
        val_file: Hold out the training images that a list names, as in `Subset.file`, in place of
            `val_size`; such as `paws/imagenet_train_holdout_12000`, on which PAWS chooses its
            fine-tuned models.
        canvas_size: Pixels; only for `augment: device` with images of different sizes: they travel
            on squares of this size, and larger ones are shrunk to fit.
        mean: Mean of each channel for images in [0, 1]. None takes the data set's usual values.
        std: Standard deviation of each channel. None takes the data set's usual values.
        classes_per_batch: Make each training batch, over all processes, of about so few classes, to
            study uneven batches; it must divide their size. None mixes all.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        image_size: Height and width of images after the evaluation transform.
        in_channels: Number of channels after the evaluation transform.
    """

    in_channels: int = 3
    default_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    default_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        batch_size: int = 128,
        num_workers: int = 4,
        train_transform: MultiCrop | SingleView | None = None,
        eval_transform: EvalTransform | None = None,
        augment: Literal["worker", "device"] = "worker",
        subset: Subset | None = None,
        on_corrupt: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = True,
        val_size: int = 0,
        val_file: str | None = None,
        canvas_size: int = 384,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes_per_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            logger=False,
            ignore=not_plain(
                train_transform=train_transform, eval_transform=eval_transform, subset=subset
            ),
        )
        _check_choice("augment", augment, ("worker", "device"))
        _check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.train_transform = train_transform
        self.eval_transform = eval_transform or self.default_eval_transform()
        self.augment = augment
        self.subset = subset
        self.on_corrupt = on_corrupt
        self.seed = seed
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.drop_last = drop_last
        self.val_size = val_size
        self.canvas_size = canvas_size
        self.mean = tuple(mean or self.default_mean)
        self.std = tuple(std or self.default_std)
        self.image_size: int = self.eval_transform.size
        self.in_channels = self.eval_transform.channels or self.in_channels
        self.classes_per_batch = classes_per_batch
        self._splits = Partition(
            self.load_images, val_size, subset, on_corrupt == "skip", self._class_name, val_file
        )

    # What a subclass gives

    @abstractmethod
    def load_images(self, split: Split) -> Images | None:
        """Return the images of one of the data set's own splits, None if it has no such split.

        Called at most once per split and process. The training split is always there, complete, and
        in its official order.
        """

    @abstractmethod
    def default_eval_transform(self) -> EvalTransform:
        """Return the data set's usual evaluation transform."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels; empty if there are no labels."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Find the images of a stage, so that errors show before training starts.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        for split in splits_of_stage(stage):
            self._splits[split]

    def labels(self, split: Split) -> np.ndarray:
        """Return the labels of a split as it is used, after hold-out and subset.

        Args:
            split: "train", "val" or "test".

        Returns:
            int64 `[N]`, −1 where unknown; `[0]` if there is no such split.
        """
        reader = self._splits[split]
        return np.empty(0, dtype=np.int64) if reader is None else reader.labels

    def positions(self, subset: Subset | Mapping[str, Any]) -> np.ndarray:
        """Return which training images, as they are used, a (further) subset picks.

        Args:
            subset: Names or indices in a file refer to the official training set. A mapping holds
                the arguments of a `Subset`, such as `{"file": "paws/imagenet_1percent"}`.

        Returns:
            int64, ascending: positions in `labels("train")`.
        """
        chosen = Subset(**subset) if isinstance(subset, Mapping) else subset
        return self._splits.positions(chosen)

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable images that this process has met so far (`on_corrupt: skip`)."""
        return self._splits.num_corrupt

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of training batches, which resumes in the middle of an epoch."""
        dataset = self._training_set(self.train_transform)
        replicas, rank = self.shard()
        among = (replicas, rank, self.run_seed(), self.drop_last)
        if self.classes_per_batch is None:
            sampler = EpochSampler(dataset, *among)
        else:
            sampler = ClassesPerBatchSampler(
                self.labels("train"), self.classes_per_batch, self.batch_size, *among
            )
        fills_a_batch = check_share(sampler, self.batch_size)
        loader = self.training_loader(
            sampler, self.train_transform, self.batch_size, self.drop_last and fills_a_batch
        )
        self.resume([loader])
        return loader

    def training_loader(
        self,
        sampler: EpochSampler,
        recipe: MultiCrop | SingleView | None,
        batch_size: int,
        drop_last: bool = True,
    ) -> ResumableDataLoader:
        """Return a loader of training images in the order of a sampler.

        Args:
            sampler: Gives positions in `labels("train")`.
            recipe: Views to make of them; hand it to `finish` too.
            batch_size: Images per batch.
            drop_last: Leave out a last, smaller batch.
        """
        return ResumableDataLoader(
            self._training_set(recipe),
            sampler=sampler,
            drop_last=drop_last,
            processed=lambda: processed_batches(self.trainer),
            persistent_workers=self.num_workers > 0,
            **{**self._loader_arguments(), "batch_size": batch_size},
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches; an empty list if there are no images for it."""
        reader = self._splits["val"]
        return [] if reader is None else self._evaluation_loader(reader, keep_workers=True)

    def test_dataloader(self) -> DataLoader:
        """Return the loader of test batches: the validation images where there is no test split."""
        return self._evaluation_loader(self._require("test"))

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of test batches."""
        return self.test_dataloader()

    def bank_dataloader(self, positions: np.ndarray | None = None) -> DataLoader:
        """Return a loader of the training images, evaluation transform, in order, each once.

        Its images are those of the training loader (after hold-out and subset). With several
        processes, sample `i` of the loader on process `r` of `W` is training image `r + i * W`;
        nothing is padded.

        Args:
            positions: int64, positions in `labels("train")` of the images to serve; None: all.
        """
        return self._evaluation_loader(self._require("train"), positions=positions)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the views where that was left to the device, scale to [0, 1] and normalise.

        Args:
            batch: (images, labels): images are `RawImages`, or one tensor or a list of tensors,
                uint8 or already normalised float.
            dataloader_idx: Index of the loader, unused.

        Returns:
            (float images or list of views, labels).
        """
        images, labels = batch
        return self.finish(images, self.train_transform), labels

    def finish(self, images: Any, recipe: MultiCrop | SingleView | None) -> Tensor | list[Tensor]:
        """Make a batch's images ready for the network; see `finish_images`."""
        finished = finish_images(images, recipe, self.mean, self.std)
        if self.trainer is None:
            return finished
        # Lightning has converted the batch already, while it was uint8.
        return self.trainer.precision_plugin.convert_input(finished)

    def _class_name(self, label: int) -> str:
        return self.class_names[label] if 0 <= label < self.num_classes else "without a label"

    def _require(self, split: Split) -> ImageReader:
        reader = self._splits[split]
        if reader is None:
            raise InputError(f"{type(self).__name__} has no images for the {split} split.")
        return reader

    def _training_set(self, recipe: MultiCrop | SingleView | None) -> Dataset:
        reader = self._require("train")
        if recipe is None:
            return EvaluationSet(reader, self.eval_transform)
        if self.augment == "device":
            return RawSet(reader, self.canvas_size)
        return ViewSet(reader, recipe)

    def _evaluation_loader(
        self, reader: ImageReader, keep_workers: bool = False, positions: np.ndarray | None = None
    ) -> DataLoader:
        dataset: Dataset = EvaluationSet(reader, self.eval_transform)
        if positions is not None:
            dataset = torch.utils.data.Subset(dataset, positions.tolist())
        replicas, rank = self.shard()
        return DataLoader(
            dataset,
            sampler=ShardSampler(dataset, replicas, rank) if replicas > 1 else None,
            persistent_workers=keep_workers and self.num_workers > 0,
            **self._loader_arguments(),
        )

    def _loader_arguments(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "collate_fn": as_is,
            # Else each new iterator takes a number from the global generator, and evaluating would
            # change the course of the training.
            "generator": torch.Generator().manual_seed(self.run_seed()),
        }

    def run_seed(self) -> int:
        """Return the seed of this run: `seed`, or else that of `seed_everything`, or else 0."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed

    def shard(self) -> tuple[int, int]:
        """Return the number of processes that share the data, and the rank of this one."""
        return share_of(self.trainer)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}.")
