"""Images: view recipes, reading, and what is done on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import EvaluationSet, RawImages, RawSet, ViewSet
from lit_ssl.datamodules.loading.class_batches import ClassesPerBatchSampler
from lit_ssl.datamodules.loading.encoded import EncodedImages, EncodedSet, decoded
from lit_ssl.datamodules.loading.repeated import RepeatedEpochSampler
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.reading.decoding import AS_USUAL, Decoding
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, Images
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError
from lit_ssl.seeding import batch_seed
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform, MultiCrop, SingleView, normalize

__all__ = ["ImageDataModule"]


class ImageDataModule(RowsModule):
    """Labelled images for self-supervised training and its evaluation.

    A data set gives its images per split (``load_rows``), its ``class_names`` and, where they
    differ, the class attributes or ``default_eval_transform``; ``images/mnist5k.py`` is a model.
    Batches are described in ``docs/design.md``.

    Args:
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader; they stay alive between epochs. 0 reads in the
            main process.
        train_transform: Views for training: ``MultiCrop`` (batches of views) or ``SingleView``
            (labelled batches of augmented images). None trains on labelled batches with the
            evaluation transform.
        eval_transform: Transform of all other images. None takes the data set's usual one.
        augment: "worker" makes the views in the workers, one image at a time; "device" sends
            undistorted images and makes the views of a whole batch on the training device.
        decode: "worker" decodes images in the workers. "device" has them send the JPEG files of
            training images, which are decoded in batches on the training device, if that is CUDA;
            other formats, CMYK and files that are cut short stay with the workers. Only with
            ``augment: device``.
        subset: Train on a part of the training images only.
        on_corrupt: "raise" stops at an unreadable image; "skip" uses the next readable one of its
            split in its place and warns.
        background: Colour (red, green, blue; 0 to 255) below the transparent pixels of files. None
            leaves out the transparency, so that colours hidden below it show.
        max_value: Value of white in files with more than 8 bits per pixel, such as 4095 for 12
            bits. None: 65535 in files of 16 bits, 1 where floats go from 0 to 1, 255 where 32 bits
            hold 8; where it may be another, an image counts as unreadable.
        seed: Seed of the order of the images and of their views, the same on all processes. None
            takes the one of ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one
            (and, with several processes, the images that do not divide evenly; otherwise some come
            twice).
        val_size: Number of training images held out for validation: always the same ones, in
            proportion to the sizes of the classes. 0 validates on the data set's own validation
            images, or on its test images where it has none.
        val_file: Hold out the training images that a list names, as in ``Subset.file``, in place of
            ``val_size``; such as ``paws/imagenet_train_holdout_12000``, on which PAWS chooses its
            fine-tuned models.
        canvas_size: Pixels; only for ``augment: device`` with images of different sizes: they
            travel on squares of this size, and larger ones are shrunk to fit.
        mean: Mean of each channel for images in [0, 1]. None takes the data set's usual values.
        std: Standard deviation of each channel. None takes the data set's usual values.
        classes_per_batch: Make each training batch, over all processes, of about so few classes, to
            study uneven batches; it must divide their size. None mixes all.
        repeats: Repeated augmentation: each image that an epoch draws comes so often in it, in
            other views and, as far as there are processes, on different ones. An epoch has as many
            images as ever, so that it draws one in ``repeats``.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        image_size: Height and width of images after the evaluation transform.
        in_channels: Number of channels after the evaluation transform.

    Raises:
        InputError: An option has none of its values, or options do not go together.
    """

    in_channels: int = 3
    default_mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    default_std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    # Evaluation images: the shorter side is resized to margin times size, then the centre cut out.
    default_size: int = 224
    default_margin: ClassVar[float] = 8 / 7

    def __init__(
        self,
        *,
        batch_size: int = 128,
        num_workers: int = 4,
        train_transform: MultiCrop | SingleView | None = None,
        eval_transform: EvalTransform | None = None,
        augment: Literal["worker", "device"] = "worker",
        decode: Literal["worker", "device"] = "worker",
        subset: Subset | None = None,
        on_corrupt: Literal["raise", "skip"] = "raise",
        background: Sequence[int] | None = None,
        max_value: float | None = None,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        val_size: int = 0,
        val_file: str | None = None,
        canvas_size: int = 384,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes_per_batch: int | None = None,
        repeats: int = 1,
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
            logger=False,
            ignore=not_plain(
                train_transform=train_transform,
                eval_transform=eval_transform,
                subset=subset,
                data=vars(self).get("data"),  # the one that this is a part of
                video=vars(self).get("video"),  # or whose frames these are
            ),
        )
        if augment not in ("worker", "device"):
            raise InputError(f"augment must be 'worker' or 'device', got {augment!r}")
        if decode not in ("worker", "device"):
            raise InputError(f"decode must be 'worker' or 'device', got {decode!r}")
        if on_corrupt not in ("raise", "skip"):
            raise InputError(f"on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}")
        if decode == "device" and (augment != "device" or train_transform is None):
            raise InputError(
                "decode: device leaves the views to the device too: set augment: device and a"
                " train_transform, or decode: worker"
            )
        self.train_transform = train_transform
        if eval_transform is not None:
            self.eval_transform = eval_transform
            self.in_channels = eval_transform.channels or self.in_channels
        self.augment = augment
        self.decode = decode
        self.on_corrupt = on_corrupt
        self.canvas_size = canvas_size
        self.decoding = Decoding(None if background is None else tuple(background), max_value)
        self.mean = tuple(mean or self.default_mean)
        self.std = tuple(std or self.default_std)
        self.classes_per_batch = classes_per_batch
        self.repeats = repeats
        self._check_repeats()

    def setup(self, stage: str | None = None) -> None:
        """Find the images of a stage, so that errors show before training starts."""
        super().setup(stage)
        if self.trainer is None or self.decode == "worker" or stage not in ("fit", None):
            return
        if self.trainer.strategy.root_device.type != "cuda":
            rank_zero_warn(
                "decode: device without CUDA decodes in the main process, which brings nothing:"
                " set decode: worker"
            )

    @cached_property
    def eval_transform(self) -> EvalTransform:
        """Transform of all images but those that are trained on with a recipe."""
        return self.default_eval_transform()

    def default_eval_transform(self) -> EvalTransform:
        """Return the data set's usual evaluation transform."""
        return EvalTransform(
            self.default_size, resize=round(self.default_size * self.default_margin)
        )

    @property
    def image_size(self) -> int:
        """Height and width of images after the evaluation transform."""
        return self.eval_transform.size

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable images that this process has met so far (``on_corrupt: skip``)."""
        return sum(_reader(rows).num_corrupt for rows in self._splits.read_so_far)

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Read images as ``background``, ``max_value`` and ``on_corrupt`` say."""
        images = rows.source
        assert isinstance(images, Images)
        if self.decode == "device" and isinstance(images, ArrayImages):
            raise InputError(
                f"decode: device is for images in files, and those of {type(self).__name__} are in"
                " memory: set decode: worker"
            )
        if isinstance(images, FileImages) and self.decoding != AS_USUAL:
            images = copy(images)
            images.decoding = self.decoding
        return Rows(ImageReader(images, self.on_corrupt == "skip"), rows.columns)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images or views, rows)."""
        if training:
            return self.training_set(self.train_transform)
        return EvaluationSet(_reader(self._require(split)), self.eval_transform)

    def training_set(self, recipe: MultiCrop | SingleView | None) -> Dataset:
        """Return a data set of the training images.

        Args:
            recipe: Views to make of them; hand it to ``finish`` too.
        """
        if recipe is None:
            return self.served("train")
        reader = _reader(self._require("train"))
        if self.decode == "device":
            return EncodedSet(reader, self.canvas_size)
        if self.augment == "device":
            return RawSet(reader, self.canvas_size)
        return ViewSet(reader, recipe)

    def epoch_sampler(self, dataset: Dataset) -> EpochSampler:
        """Return the sampler that orders training epochs."""
        if self.repeats > 1:
            return RepeatedEpochSampler(
                dataset,
                self.repeats,
                *self.shard(),
                seed=self.run_seed(),
                drop_last=self.drop_last,
            )
        if self.classes_per_batch is None:
            return super().epoch_sampler(dataset)
        return ClassesPerBatchSampler(
            self.labels("train"),
            self.classes_per_batch,
            self.batch_size,
            *self.shard(),
            seed=self.run_seed(),
            drop_last=self.drop_last,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the views where that was left to the device, scale to [0, 1] and normalise.

        Args:
            batch: (images, labels, …): images are ``RawImages``, or one tensor or a list of
                tensors, uint8 or already normalised float.
            dataloader_idx: Index of the loader, unused.

        Returns:
            (float images or list of views, labels, …).
        """
        return self.finish_batch(batch, self.train_transform)

    def finish_batch(self, batch: Any, recipe: MultiCrop | SingleView | None) -> Any:
        """Make a batch ready for the network, as ``on_after_batch_transfer`` does.

        Args:
            batch: (images, labels, …).
            recipe: Makes the views of training images.

        Returns:
            (float images or list of views, labels, …).
        """
        images, *targets = batch
        if isinstance(images, EncodedImages):
            reader = _reader(self._require("train"))
            images, replaced = decoded(images, targets[0].device, reader)
            if replaced:
                self._correct(targets, replaced)
        return self.finish(images, recipe), *targets

    def finish(self, images: Any, recipe: MultiCrop | SingleView | None) -> Tensor | list[Tensor]:
        """Make a batch's images ready for the network, by their type alone.

        Args:
            images: ``RawImages``, or one tensor or a list of tensors, uint8 or already normalised.
            recipe: Makes the views of ``RawImages``.

        Returns:
            Normalised float images ``[B, C, H, W]``, or a list of views
            ``[B, count, C, h, w]``, in the precision of the run.
        """
        if isinstance(images, RawImages):
            assert recipe is not None
            sizes = None if images.sizes is None else torch.from_numpy(images.sizes)
            generator = torch.Generator().manual_seed(batch_seed(images.seeds))
            images = recipe.batched(images.images, sizes=sizes, generator=generator)
            finished = _each(images, lambda views: normalize(views, self.mean, self.std))
        else:
            finished = _each(images, self._normalized)
        if self.trainer is None:
            return finished
        # Lightning has converted the batch already, while it was uint8.
        return self.trainer.precision_plugin.convert_input(finished)

    def _correct(self, targets: Sequence[Tensor], replaced: Mapping[int, int]) -> None:
        """Put what goes with other rows into the places where these stand in."""
        for column, values in zip(targets, self.targets("train"), strict=True):
            for place, row in replaced.items():
                column[place] = torch.as_tensor(values[row])

    def _check_repeats(self) -> None:
        if self.repeats < 1:
            raise InputError(f"repeats must be at least 1, got {self.repeats}")
        if self.repeats > 1 and self.classes_per_batch is not None:
            raise InputError("repeats and classes_per_batch both order an epoch: give one of them")
        if self.repeats > 1 and self.train_transform is None:
            rank_zero_warn(
                f"repeats: {self.repeats} without a train_transform gives the same image"
                f" {self.repeats} times: add random views, or leave it out"
            )

    def _normalized(self, images: Tensor) -> Tensor:
        return normalize(images, self.mean, self.std) if images.dtype == torch.uint8 else images


def _each(images: Any, function: Callable[[Tensor], Tensor]) -> Tensor | list[Tensor]:
    if isinstance(images, Tensor):
        return function(images)
    return [function(view) for view in images]


def _reader(rows: Rows) -> ImageReader:
    assert isinstance(rows.source, ImageReader)
    return rows.source
