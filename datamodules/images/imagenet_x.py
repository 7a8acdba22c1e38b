"""Images with factor annotations: ImageNet-X over ImageNet's validation images, or your own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import EvaluationSet
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.folders import images_in
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.layout import split_folder
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputFileNotFoundError, check_choice
from lit_ssl.files import describe_folder
from lit_ssl.imagenet_x.annotations import FactorAnnotations, FactorKind, read_annotations
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform, Preprocessing, normalize, vanilla_preprocessing

__all__ = ["ImageNetXDataModule"]


class ImageNetXDataModule(RowsModule):
    """Images whose factors of variation are annotated, to evaluate classifiers on.

    Batches are ``(images, labels, image_number)``. ImageNet's validation images are told by the
    number in their names (``ILSVRC2012_val_00000001…``), so they may lie in class folders, flat in
    one folder, or with what a mirror has appended to their names; labels come with the annotations.

    The annotations of ImageNet-X are CC BY-NC 4.0 and not part of this package: `pip install
    'lit-ssl[imagenet-x]'` brings them.

    Args:
        root: Folder with the images, or with a folder ``val`` or ``validation`` of them.
        annotations: ``auto`` takes ImageNet-X's of the installed package imagenet-x; or a folder
            with its files; or your own CSV file: ``file_name`` (below ``root``), ``label``, and a
            column of 0 and 1 per factor.
        which_factor: ImageNet-X: ``top``, the one factor that tells most, or ``multi``, all.
        keep_prototypes: ImageNet-X: count the prototypical images too.
        transform: ``model`` takes what the model was made for (its attribute ``preprocessing``);
            ``vanilla`` resizes to 256, crops 224 and normalises as usual; or an ``EvalTransform``.
        images: ``all``, or ``annotated`` only: then predictions are no full official file.
        partial: Whether annotated images may be missing in the folder; a report then is of those
            that are there.
        batch_size: Images per batch and process.
        num_workers: Worker processes.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        num_classes: Of your own annotations; None leaves it open. ImageNet-X has 1000.

    Attributes:
        annotations: What is known of the images (``FactorAnnotations``), for metrics and callbacks.
        preprocessing: The transform in use, after ``setup``.
        num_classes: Number of classes, None if not known.
    """

    carried = ("label", "image_number")
    in_channels = 3
    class_names: Sequence[str] = ()

    def __init__(
        self,
        *,
        root: str,
        annotations: str = "auto",
        which_factor: FactorKind = "top",
        keep_prototypes: bool = False,
        transform: Literal["model", "vanilla"] | EvalTransform = "model",
        images: Literal["all", "annotated"] = "all",
        partial: bool = False,
        batch_size: int = 128,
        num_workers: int = 8,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
        )
        self.save_hyperparameters(logger=False, ignore=not_plain(transform=transform))
        if isinstance(transform, str):
            check_choice("transform", transform, ("model", "vanilla"))
        check_choice("images", images, ("all", "annotated"))
        self.root = Path(root).expanduser()
        self.source = annotations
        self.which_factor = which_factor
        self.keep_prototypes = keep_prototypes
        self.transform = transform
        self.images = images
        self.partial = partial
        self._num_classes = num_classes
        self.preprocessing: Preprocessing | None = None

    @cached_property
    def annotations(self) -> FactorAnnotations:
        """Labels and factors of the images."""
        return read_annotations(self.source, self.which_factor, self.keep_prototypes)

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None where a user's table leaves it open."""
        if self.annotations.files is not None:
            return self._num_classes
        return self.annotations.num_classes

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, for images in [0, 1]."""
        return tuple((self.preprocessing or vanilla_preprocessing()).mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel."""
        return tuple((self.preprocessing or vanilla_preprocessing()).std)

    def setup(self, stage: str | None = None) -> None:
        """Find the images and the model's transform, so that errors show at once.

        Raises:
            FileNotFoundError: If there are no such images, or annotated ones are missing.
            ValueError: If images come twice.
        """
        self.say_found("test")
        self.preprocessing = self._preprocessing()

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images, rows), rows in the order of numbers."""
        source = self._require(split).source
        assert isinstance(source, FileImages)
        assert self.preprocessing is not None
        return EvaluationSet(ImageReader(source), self.preprocessing)

    def _preprocessing(self) -> Preprocessing:
        if isinstance(self.transform, EvalTransform):
            tensors = _OnTensors(self.transform)
            return Preprocessing(tensors, text=repr(self.transform))
        if self.transform == "vanilla":
            return vanilla_preprocessing()
        module = self.trainer and self.trainer.lightning_module
        found = getattr(module, "preprocessing", None)
        if not isinstance(found, Preprocessing):
            raise InputError(
                f"{type(module).__name__} does not say how it wants its images (attribute "
                "preprocessing): set transform to vanilla or to an EvalTransform"
            )
        return found

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images with their numbers, ascending; the one split is for evaluation."""
        if split != "test":
            return None
        inside = split_folder(self.root, "val")
        is_own = self.annotations.files is not None
        folder = inside if inside.is_dir() and not is_own else self.root
        names = images_in(folder) if folder.is_dir() else []
        numbers = self.annotations.find_numbers(names)
        known = np.flatnonzero(numbers)
        if not len(known):
            raise InputFileNotFoundError(
                f"{self.annotations.source}: expected images such as "
                f"{self.annotations.file_name(1)} at any depth in {folder}, found none in "
                f"{len(names)} image files. Found: {describe_folder(folder)}. Set root to their "
                "folder"
            )
        order = known[np.argsort(numbers[known], kind="stable")]
        numbers = numbers[order]
        self._check(folder, [names[i] for i in order], numbers)
        if self.images == "annotated":
            order = order[np.isin(numbers, self.annotations.numbers)]
            numbers = numbers[np.isin(numbers, self.annotations.numbers)]
        columns = {"label": self.annotations.labels[numbers - 1], "image_number": numbers}
        return Rows(FileImages(folder, [names[i] for i in order]), columns)

    def _check(self, folder: Path, names: Sequence[str], numbers: np.ndarray) -> None:
        twice = np.flatnonzero(np.diff(numbers) == 0)
        if len(twice):
            first = int(twice[0])
            raise InputError(
                f"{len(twice):,} images are twice in {folder}, e.g. {names[first]} and "
                f"{names[first + 1]}: keep one copy of each, or set root to the folder of one"
            )
        missing = np.setdiff1d(self.annotations.numbers, numbers)
        none = len(missing) == len(self.annotations.numbers)  # nothing to make a table of
        if len(missing) and (none or not self.partial):
            raise InputFileNotFoundError(
                f"{folder} lacks {len(missing):,} of the {len(self.annotations.numbers):,} "
                f"annotated images, e.g. {self.annotations.file_name(int(missing[0]))}: complete "
                "it, or set partial: true of the data for a table of the images that are there"
            )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale and normalise images that are still uint8."""
        images, labels, numbers = batch
        if images.dtype == torch.uint8:
            images = normalize(images, self.mean, self.std)
        if self.trainer is not None:
            # Lightning has converted the batch already, while it was uint8.
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels, numbers


class _OnTensors:
    """An ``EvalTransform`` for Pillow images."""

    def __init__(self, transform: EvalTransform) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> Tensor:
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return self.transform(pixels.permute(2, 0, 1))
