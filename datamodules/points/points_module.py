"""Shapes as clouds of points."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import EvaluationSet, ViewSet
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.points.clouds import CloudReader, Clouds
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError, check_choice
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms.points import PointAugmentation, PointSample

__all__ = ["PointsModule"]


class PointsModule(RowsModule):
    """Labelled clouds of points.

    A data set gives ``load_rows``, whose source is a ``Clouds``, and ``class_names``; where it is
    known which axis is up, ``up_axis`` too. A batch is ``(points, labels)``: points float32
    ``[B, num_points, 3]``. Each cloud is moved to its mean and scaled to the unit sphere, then
    ``num_points`` of it are chosen: for training others in each epoch, a function of seed, epoch
    and row; for evaluation always the same. Where a cloud has fewer, all of them come, some or all
    of them repeatedly.

    Args:
        num_points: Points per cloud, >= 1.
        train_transform: Distorts training clouds at random; None: nothing does.
        on_corrupt: "raise" stops at an unreadable shape; "skip" uses the next readable one of its
            split in its place and warns.
        batch_size: Clouds per batch and process.
        num_workers: Worker processes per loader; clouds in memory need none.
        seed: Seed of the order, of the points chosen and of their distortions, the same on all
            processes. None takes the one of ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training clouds only.
        val_size: Number of training clouds held out for validation: always the same ones, in
            proportion to the sizes of the classes. 0 validates on the data set's own validation
            clouds, or on its test clouds where it has none.
        val_file: Hold out the training clouds that a list names, in place of ``val_size``.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        num_points: Points per cloud.

    Raises:
        InputError: ``num_points`` is below 1.
    """

    inputs: ClassVar[str] = "shapes"

    def __init__(
        self,
        *,
        num_points: int = 1024,
        train_transform: PointAugmentation | None = None,
        on_corrupt: Literal["raise", "skip"] = "raise",
        batch_size: int = 64,
        num_workers: int = 4,
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
        self.save_hyperparameters(
            logger=False, ignore=not_plain(train_transform=train_transform, subset=subset)
        )
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        if num_points < 1:
            raise InputError(f"num_points must be at least 1, got {num_points}")
        self.num_points = num_points
        self.train_transform = train_transform
        self.on_corrupt = on_corrupt

    @property
    def up_axis(self) -> int | None:
        """The axis of the clouds that is up: 0, 1 or 2; None where none is known."""
        return None

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable shapes that this process has met so far (``on_corrupt: skip``)."""
        readers = (rows.source for rows in self._splits.read_so_far)
        return sum(reader.num_corrupt for reader in readers if isinstance(reader, CloudReader))

    def setup(self, stage: str | None = None) -> None:
        """Find the rows of a stage, so that errors show before training starts."""
        super().setup(stage)
        rotates = self.train_transform is not None and self.train_transform.rotate
        if rotates and self.up_axis is None:
            raise InputError(
                f"{type(self).__name__} does not know which axis is up: leave out rotate of its"
                " train_transform"
            )

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Read clouds as ``on_corrupt`` says."""
        clouds = rows.source
        assert isinstance(clouds, Clouds)
        return Rows(CloudReader(clouds, self.on_corrupt == "skip"), rows.columns)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (points, rows)."""
        reader: Any = self._require(split).source
        if not training:
            return EvaluationSet(reader, PointSample(self.num_points))
        recipe = PointSample(self.num_points, self.train_transform, self.up_axis)
        return ViewSet(reader, recipe)
