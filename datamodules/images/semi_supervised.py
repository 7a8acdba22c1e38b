"""An unlabelled stream and a class-stratified labelled stream over one data set."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.loading.resumable import ResumingData
from lit_ssl.datamodules.loading.stratified import ClassStratifiedSampler
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import MultiCrop, SingleView

__all__ = ["SemiSupervisedDataModule"]


class SemiSupervisedDataModule(ResumingData, pl.LightningDataModule):
    """Composes an image data module with a stream of labelled support images out of it (PAWS).

    A training batch is a dictionary of two multi-view batches: ``unlabelled``, which is what
    ``dataset`` serves (all of its training images, the labelled ones included), and ``support``,
    which holds ``images_per_class`` images of each of ``classes_per_batch`` classes, drawn afresh
    in every step from the images of ``subset``. An epoch is one pass over the unlabelled images.
    Everything else (validation, test, bank, ``num_classes``, ``mean``, …) is that of ``dataset``.

    Args:
        dataset: Any image data module; its ``train_transform`` makes the unlabelled views, and its
            ``augment``, ``num_workers`` and seed hold for both streams.
        subset: Which of its training images are supports. None: all that have a label, which most
            data sets have for all. One that is drawn is drawn from these; ``file`` may be the name
            of a packaged list, such as paws/cifar10_4000_split152.
        classes_per_batch: Classes in a support batch of all processes together; None takes all.
        images_per_class: Images of each of them in a support batch of all processes together.
        unique_classes_per_rank: True divides the classes over the processes (many classes); False
            divides the images of each class.
        support_views: Views of each support image, like the first crop of ``dataset``'s
            ``train_transform``.
        support_transform: Views of the support images, in place of ``support_views`` like the first
            crop.

    Raises:
        ValueError: ``support_views`` is below 1 or does not go with ``support_transform``.
    """

    def __init__(
        self,
        dataset: ImageDataModule,
        *,
        subset: Subset | None = None,
        classes_per_batch: int | None = None,
        images_per_class: int = 7,
        unique_classes_per_rank: bool = False,
        support_views: int = 1,
        support_transform: MultiCrop | SingleView | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            logger=False,
            ignore=not_plain(dataset=dataset, subset=subset, support_transform=support_transform),
        )
        if support_views < 1 or (support_views > 1 and support_transform is not None):
            raise InputError(
                f"support_views must be at least 1, and 1 with a support_transform (whose count"
                f" says how many), got {support_views}"
            )
        self.dataset = dataset
        self.subset = subset
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
        self.unique_classes_per_rank = unique_classes_per_rank
        self.support_views = support_views
        self.support_transform = support_transform

    def prepare_data(self) -> None:
        """Prepare the data set."""
        self.dataset.trainer = self.trainer
        self.dataset.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Find the images of a stage, and the labelled ones, so that errors show early."""
        self.dataset.trainer = self.trainer
        self.dataset.setup(stage)
        if stage in ("fit", None):
            _ = self.support_recipe
            self._support_sampler(num_batches=1)

    @property
    def validates_on_test(self) -> bool:
        """As of the data set: whether validation sees the images that results are reported on."""
        return self.dataset.validates_on_test

    @cached_property
    def support_positions(self) -> np.ndarray:
        """Positions of the labelled images in ``labels("train")``, int64, ascending."""
        labels = self.dataset.labels("train")
        if self.subset is None:
            return np.flatnonzero(labels >= 0)
        positions = self.dataset.positions(self.subset)
        # what a list names is wanted as it is: the sampler refuses images without a label
        return positions if self.subset.file else positions[labels[positions] >= 0]

    @property
    def support_recipe(self) -> MultiCrop | SingleView:
        """The views of the support images."""
        if self.support_transform is not None:
            return self.support_transform
        recipe = self.dataset.train_transform
        if not isinstance(recipe, MultiCrop):
            raise InputError(
                "SemiSupervisedDataModule needs a MultiCrop as train_transform of its dataset, the"
                f" large views first, got {recipe!r}"
            )
        return MultiCrop([replace(recipe.crops[0], count=self.support_views)])

    # Loaders

    def train_dataloader(self) -> CombinedLoader:
        """Return both loaders; they resume together in the middle of an epoch."""
        unlabelled = self.dataset.train_dataloader()
        sampler = self._support_sampler(max(1, len(unlabelled)))
        images = self.dataset.training_set(self.support_recipe)
        support = self.dataset.training_loader(images, sampler, sampler.batch_size)
        self.resume([unlabelled, support])
        return CombinedLoader({"unlabelled": unlabelled, "support": support}, "min_size")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the data set's loader of validation batches."""
        return self.dataset.val_dataloader()

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the data set's loader of test batches."""
        return self.dataset.test_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Return the data set's loader of batches to predict."""
        return self.dataset.predict_dataloader()

    def support_dataloader(self) -> DataLoader:
        """Return a loader of the labelled images, evaluation transform, in order, each once.

        With several processes, sample ``i`` of the loader on process ``r`` of ``W`` is labelled
        image ``r + i * W``; nothing is padded.
        """
        return self.dataset.bank_dataloader(self.support_positions)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the views where that was left to the device, scale to [0, 1] and normalise.

        Args:
            batch: A batch of the data set, or a dictionary with ``unlabelled`` and ``support``.
            dataloader_idx: Index of the loader, unused.
        """
        if not isinstance(batch, dict):
            return self.dataset.on_after_batch_transfer(batch, dataloader_idx)
        return {
            "unlabelled": self.dataset.on_after_batch_transfer(batch["unlabelled"], dataloader_idx),
            "support": self.dataset.finish_batch(batch["support"], self.support_recipe),
        }

    def _support_sampler(self, num_batches: int) -> ClassStratifiedSampler:
        replicas, rank = self.dataset.shard()
        return ClassStratifiedSampler(
            self.dataset.labels("train")[self.support_positions],
            self.images_per_class,
            self.classes_per_batch,
            num_batches=num_batches,
            num_replicas=replicas,
            rank=rank,
            unique_classes_per_rank=self.unique_classes_per_rank,
            seed=self.dataset.run_seed(),
            positions=self.support_positions,
        )

    # What callbacks and the command line ask a data module is as the data set says it.
    bank_dataloader = property(attrgetter("dataset.bank_dataloader"))
    labels = property(attrgetter("dataset.labels"))
    positions = property(attrgetter("dataset.positions"))
    num_corrupt = property(attrgetter("dataset.num_corrupt"))
    num_classes = property(attrgetter("dataset.num_classes"))
    class_names = property(attrgetter("dataset.class_names"))
    mean = property(attrgetter("dataset.mean"))
    std = property(attrgetter("dataset.std"))
    image_size = property(attrgetter("dataset.image_size"))
    in_channels = property(attrgetter("dataset.in_channels"))
    batch_size = property(attrgetter("dataset.batch_size"))
    num_workers = property(attrgetter("dataset.num_workers"))
