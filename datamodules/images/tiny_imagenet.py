"""Tiny-ImageNet-200 in its official layout, with ImageNet-R and -A as further test sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torchvision.transforms.v2.functional as F
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lit_ssl.contracts.evaluation_sets import EvaluationSet, check_several_sets
from lit_ssl.datamodules.images.shifted_sets import SHIFTED_SETS, ShiftedSet, find_shifted_set
from lit_ssl.datamodules.loading import batches
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.folders import (
    find_file,
    images_in,
    missing_images,
)
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.reading.walking import (
    LeftOut,
    find_images,
    holds_image,
    visible_folders,
)
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputFileNotFoundError, check_choice, listed, quoted
from lit_ssl.files import layout_error, read_text
from lit_ssl.transforms import EvalTransform

__all__ = ["TinyImageNetDataModule"]

_NAME = "Tiny-ImageNet-200"
_FOLDER = "tiny-imagenet-200"
_PIXELS = 64  # height and width of its images
_NUM_CLASSES = 200
_PER_CLASS = {"train": 500, "val": 50}


class TinyImageNetDataModule(ImageDataModule):
    """Tiny-ImageNet-200: 100,000 training and 10,000 validation images, 64 x 64, 200 classes.

    Expected, as the official archive unpacks: ``wnids.txt``, ``train/<wnid>/images/*.JPEG`` and
    ``val/images/*.JPEG`` with ``val/val_annotations.txt``. ``train/<wnid>/*`` and a validation set
    sorted into ``val/<wnid>/`` do as well. Class i is the i-th of the sorted wnids. The official
    test images have no labels; the validation images are the test images too.

    With ``ood`` there are several validation and test loaders, which ``evaluation_sets`` names: the
    set itself, then ImageNet-R and ImageNet-A as far as they show its classes. Their images are
    resized to 64 x 64 whatever their shape, and then treated as the validation images.

    Args:
        root: The folder ``tiny-imagenet-200``, or the one that holds it.
        ood: Further sets to evaluate on, of "r" and "a": ``tiny-imagenet-r/<wnid>/*``, or
            ``imagenet-r/<wnid>/*`` of which the 62 shared classes are taken; likewise "a". One that
            is not there is an error.
        ood_root: Folder that holds these; None looks in ``root`` and beside ``tiny-imagenet-200``.
        image_size: Height and width of evaluation images: the shorter side is resized (bicubic) to
            ``int(256 / 224 * image_size)``, 73 for 64, then the centre is cut out.
        num_workers: Worker processes per loader.
        val_size: Number of training images held out for validation; 0 validates on ``val``.
        kwargs: Arguments of ``ImageDataModule``.

    Raises:
        InputError: ``ood`` names a set twice, or ``ood_root`` is given without it.

    Source: the protocol of the official code of arXiv 2210.08031. How it resizes the images of -R
    to 64 x 64 is not published; here it is bicubic.
    """

    reported: ClassVar[Split] = "val"

    def __init__(
        self,
        *,
        root: str,
        ood: Sequence[Literal["r", "a"]] = (),
        ood_root: str | None = None,
        image_size: int = _PIXELS,
        num_workers: int = 8,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        for name in ood:
            check_choice("ood", name, SHIFTED_SETS)
        if len(set(ood)) != len(ood):
            raise InputError(f"ood names a set twice: {listed(ood)}. Name each once")
        if ood_root is not None and not ood:
            raise InputError(
                "ood_root is for the sets of ood: name them (ood: [r]), or leave it out"
            )
        super().__init__(num_workers=num_workers, val_size=val_size, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.ood = tuple(ood)
        self.ood_root = None if ood_root is None else Path(ood_root).expanduser()

    def default_eval_transform(self) -> EvalTransform:
        """Return bicubic resize and centre crop."""
        size = self.default_size
        return EvalTransform(size, resize=int(size * 256 / 224), interpolation="bicubic")

    @cached_property
    def class_names(self) -> Sequence[str]:
        """The wnids, sorted."""
        return sorted(set(read_text(self._wnids).split()))

    # The set itself

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of ``train`` or ``val``; there is no labelled test split."""
        if split == "test":
            return None
        rows = self._training_rows() if split == "train" else self._validation_rows()
        expected = _PER_CLASS[split]
        counts = np.bincount(rows.labels, minlength=len(self.class_names))
        other = np.flatnonzero(counts != expected)
        if len(self.class_names) == _NUM_CLASSES and len(other):
            found = listed(
                [f"{self.class_names[label]} ({counts[label]})" for label in other.tolist()]
            )
            rank_zero_warn(
                f"{_NAME}: {len(other)} of the 200 classes of the {split} split do not have"
                f" {expected} images: {found}. If the archive was unpacked in part, an accuracy on"
                " these images is none on Tiny-ImageNet"
            )
        return rows

    def _rows_by_class(self, folder: Path) -> tuple[Rows, list[str]]:
        """Images in ``<wnid>/images/`` or ``<wnid>/``, and the classes without any."""
        there = [name for name in visible_folders(folder) if holds_image(folder / name)]
        if unknown := [name for name in there if name not in set(self.class_names)]:
            raise InputError(
                f"{_NAME}: {folder} has {len(unknown)} folders of images that {self._wnids} does"
                f" not name: {listed(unknown)}. Take them out, or get the archive again"
            )
        names: list[str] = []
        labels: list[int] = []
        left_out = LeftOut(folder)
        for label, wnid in enumerate(self.class_names):
            inside = f"{wnid}/images" if (folder / wnid / "images").is_dir() else wnid
            if (folder / inside).is_dir():
                found = find_images(folder / inside, left_out)
                names += (f"{inside}/{file}" for file in found)
                labels += [label] * len(found)
        left_out.warn()
        rows = Rows(FileImages(folder, names), {"label": np.asarray(labels, dtype=np.int64)})
        lacking = np.setdiff1d(np.arange(len(self.class_names)), rows.labels)
        return rows, [self.class_names[label] for label in lacking]

    def _training_rows(self) -> Rows:
        folder = self._folder / "train"
        rows, lacking = self._rows_by_class(folder)
        if not rows:
            raise layout_error(_NAME, folder, f"images in {folder}/<wnid>/images/")
        if lacking:
            raise InputFileNotFoundError(
                f"{_NAME}: {folder} has no images of {len(lacking)} of the {len(self.class_names)}"
                f" classes in {self._wnids}: {listed(lacking)}. Unpack the whole archive, or take"
                " these classes out of the file"
            )
        return rows

    def _validation_rows(self) -> Rows:
        folder = self._folder / "val"
        images = folder / "images"
        if not (images.is_dir() and holds_image(images)):
            rows, _ = self._rows_by_class(folder)
            if not rows:
                expected = f"images in {images} with val_annotations.txt, or in {folder}/<wnid>/"
                raise layout_error(_NAME, folder, expected)
            return rows
        path = folder / "val_annotations.txt"
        if not path.is_file():
            raise InputFileNotFoundError(
                f"{_NAME}: {images} holds the validation images flat, and {path}, which has their"
                f" classes, is missing. Get it again, or sort the images into {folder}/<wnid>/"
            )
        table = self._read_annotations(path)
        names = list(table)
        missing_images(images, names, path, _NAME)
        if more := sorted(set(images_in(images)) - set(names)):
            raise InputError(
                f"{_NAME}: {path} has no class for {len(more)} of the images in {images}:"
                f" {listed(more)}. Get the file again, or take the images out"
            )
        labels = np.fromiter(table.values(), dtype=np.int64)
        return Rows(FileImages(images, names), {"label": labels})

    def _read_annotations(self, path: Path) -> dict[str, int]:
        """File name → label, in the order of the file (``val_0.JPEG n03444034 0 32 44 62``)."""
        index = {wnid: label for label, wnid in enumerate(self.class_names)}
        table: dict[str, int] = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) < 2 or fields[1] not in index:
                raise InputError(
                    f"{_NAME}: line {number} of {path} is {quoted(line)}: expected a file name and"
                    f" one of the {len(index)} wnids in {self._wnids}. Get the archive again"
                )
            if table.setdefault(fields[0], index[fields[1]]) != index[fields[1]]:
                raise InputError(f"{_NAME}: {path} gives {fields[0]} two classes: keep one")
        return table

    @property
    def _folder(self) -> Path:
        return self._wnids.parent

    @cached_property
    def _wnids(self) -> Path:
        return find_file(self.root, ["wnids.txt"], _NAME, [_FOLDER])

    # What else it is evaluated on

    def evaluation_sets(self, split: Split) -> list[EvaluationSet]:
        """Return the names of the validation or test loaders and the classes that may win.

        Args:
            split: which split; all have the same sets.

        Returns:
            Tiny-ImageNet's own set, without a name, and one for each of ``ood``.
        """
        shifted = [EvaluationSet(name, self._shifted[name].classes) for name in self.ood]
        return [EvaluationSet(), *shifted]

    @property
    def reported_sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets that papers report: no epoch may be chosen on them."""
        return self.ood

    def setup(self, stage: str | None = None) -> None:
        """Find the images of a stage, so that errors show before training starts.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        super().setup(stage)
        if self.ood and stage != "predict":
            _ = self._shifted
            check_several_sets(self.trainer, "leave out ood of TinyImageNetDataModule")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches; with ``ood`` one for each evaluation set."""
        own = self.evaluation_loader("val", keep_workers=True)
        return [own, *self._shifted_loaders(keep_workers=True)] if self.ood else own

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of test batches; with ``ood`` one for each evaluation set."""
        own = self.evaluation_loader("test")
        return [own, *self._shifted_loaders()] if self.ood else own

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable images that this process has met so far (``on_corrupt: skip``)."""
        found = self.__dict__.get("_shifted", {})  # not looked for only to count
        return super().num_corrupt + sum(_reader(part.rows).num_corrupt for part in found.values())

    @cached_property
    def _shifted(self) -> dict[str, ShiftedSet]:
        beside = (self.root, self._folder, self._folder.parent)
        places = list(dict.fromkeys(beside if self.ood_root is None else (self.ood_root,)))
        sets: dict[str, ShiftedSet] = {}
        for name in self.ood:
            part = find_shifted_set(name, places, self.class_names)
            rank_zero_info(f"{name}: {part.found}")
            sets[name] = part._replace(rows=self.opened(part.rows, "test"))
        return sets

    def _shifted_loaders(self, keep_workers: bool = False) -> list[DataLoader]:
        transform = _SquareFirst(_PIXELS, self.eval_transform)
        return [
            self.loader_in_order(
                batches.EvaluationSet(_reader(part.rows), transform),
                partial(tuple, [part.rows.labels]),
                keep_workers,
            )
            for part in self._shifted.values()
        ]


class _SquareFirst:
    """Resizes to a square whatever the shape, before another transform.

    Args:
        size: Height and width of the square, in pixels.
        then: Transform of uint8 ``[..., C, size, size]``.
    """

    def __init__(self, size: int, then: EvalTransform) -> None:
        self.size = size
        self.then = then

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 ``[..., C, H, W]``."""
        bicubic = F.InterpolationMode.BICUBIC
        return self.then(F.resize(image, [self.size, self.size], bicubic, antialias=True))


def _reader(rows: Rows) -> ImageReader:
    assert isinstance(rows.source, ImageReader)
    return rows.source
