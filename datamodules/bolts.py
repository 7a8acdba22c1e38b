"""Data modules of lightning-bolts, which Lightning 2's Trainer refuses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data import Subset as DatasetSubset

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.images import FileImages, Images
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputImportError, InputTypeError, quoted, shortened
from lit_ssl.transforms import EvalTransform

__all__ = ["BoltsDataModule"]

_HOME = "pl_bolts.datamodules"
# Arguments of theirs that concern their own loaders and transforms, which are not used → ours.
_OURS = {
    "batch_size": "batch_size",
    "num_workers": "num_workers",
    "pin_memory": "pin_memory",
    "drop_last": "drop_last",
    "shuffle": None,
    "normalize": "mean and std",
    "train_transforms": "train_transform",
    "val_transforms": "eval_transform",
    "test_transforms": "eval_transform",
}
# What fails in their code for want of files, of arguments, or of the versions it was written for.
_THEIRS = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError)  # of Pillow


class BoltsDataModule(ImageDataModule):
    """Images of a data module of lightning-bolts, with our views, loaders and exact resume.

    Lightning 2 refuses these modules, which are children of ``pytorch_lightning``'s. Here one only
    says which images its splits have and how they are labelled: its data sets are taken from its
    loaders, and these loaders and its transforms are not used. So its seed decides what is held out
    for validation, and everything else is as of any other data module: batches, orders, resume, the
    bank of evaluators.

    It has to give images with one label each, as those of MNIST, FashionMNIST, EMNIST, CIFAR-10,
    STL-10 and ImageNet do. Others (detection, segmentation, tables, experience of agents) are
    refused. ``pip install lit-ssl[bolts]`` installs lightning-bolts and versions that it works
    with.

    Other packages: a child of this class may list them in ``packages``. A name in a file of
    hyper-parameters can thus not import what nobody has named.

    Args:
        class_path: Its class, such as ``pl_bolts.datamodules.CIFAR10DataModule``, or the name of
            one in ``pl_bolts.datamodules``.
        init_args: Its arguments, such as ``data_dir``, ``val_split`` and ``seed``. Those of loaders
            and transforms (``batch_size``, …) are given to this class in place of it.
        train_loader: Its method that serves the training images, such as
            ``train_dataloader_labeled`` of STL-10, whose usual one has no labels.
        val_loader: Its method that serves the validation images.
        mean: Mean of each channel. None takes that of its own normalisation, else 0.5 for grey
            images and ImageNet's for others.
        std: Standard deviation of each channel, likewise.
        kwargs: Arguments of [`ImageDataModule`][lit_ssl.datamodules.ImageDataModule].

    Raises:
        InputImportError: lightning-bolts is missing, or cannot be imported beside what is there.
        InputError: The class is of another package or no data module, does not take these
            arguments, or gives something else than labelled images.
    """

    packages: ClassVar[tuple[str, ...]] = ("pl_bolts",)

    def __init__(
        self,
        *,
        class_path: str,
        init_args: dict[str, Any] | None = None,
        train_loader: str = "train_dataloader",
        val_loader: str = "val_dataloader",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        for loader in (train_loader, val_loader):
            if "dataloader" not in loader or not loader.isidentifier():
                raise InputError(
                    "train_loader and val_loader name methods such as train_dataloader, not"
                    f" {quoted(loader)}"
                )
        self.class_path = class_path
        self.bolts = _built(self._class(class_path), init_args or {})
        for name in (train_loader, val_loader, "test_dataloader"):
            if not callable(getattr(self.bolts, name, None)):
                raise InputError(f"{class_path} has no {name}: name one of its loaders")
        self._loaders = {"train": train_loader, "val": val_loader, "test": "test_dataloader"}
        self._prepared: set[str] = set()
        self._datasets: dict[str, Dataset] = {}
        channels, *sizes = getattr(self.bolts, "dims", None) or (3, self.default_size)
        self.in_channels = channels
        self.default_size = sizes[-1]
        usual_mean, usual_std = _normalization(self.bolts, channels)
        super().__init__(mean=mean or usual_mean, std=std or usual_std, **kwargs)
        # what the class does not say, for exports
        self.hparams.update(mean=list(self.mean), std=list(self.std))

    def _class(self, path: str) -> type:
        """The class of a name, once it is clear that its package may be imported."""
        path = path if "." in path else f"{_HOME}.{path}"
        module, _, name = path.rpartition(".")
        if module.partition(".")[0] not in self.packages:
            raise InputError(
                f"class_path names a class of {' or '.join(self.packages)}, such as"
                f" {_HOME}.CIFAR10DataModule, not {quoted(path)}: for another package derive a"
                " class from BoltsDataModule that lists it in its attribute packages"
            )
        try:
            found = getattr(import_module(module), name, None)
        except Exception as error:  # whatever fails in it beside versions that it does not know
            raise _not_importable(module, error) from error
        kinds = [
            f"{parent.__module__}.{parent.__name__}" for parent in getattr(found, "__mro__", ())
        ]
        is_data = any("lightning" in kind and "LightningDataModule" in kind for kind in kinds)
        if not isinstance(found, type) or not is_data:
            what = "is not there" if found is None else "is no data module"
            raise InputError(f"{path} {what}: class_path names a data module of {module}")
        return found

    @property
    def num_classes(self) -> int | None:
        """Number of classes, as the module of bolts says."""
        return int(getattr(self.bolts, "num_classes", 0))

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the classes where its training images have them, else their numbers."""
        inside, _ = _inside(self._dataset("train"))
        names = getattr(inside, "classes", None) or ()
        if len(names) != self.num_classes:
            return [str(number) for number in range(self.num_classes or 0)]
        return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in names]

    def default_eval_transform(self) -> EvalTransform:
        """Images of one size as they are; those of other sizes are resized and cut."""
        if hasattr(self.bolts, "image_size"):  # what its own transforms cut images to
            return super().default_eval_transform()
        return EvalTransform(self.default_size, resize=self.default_size)

    def prepare_data(self) -> None:
        """Let it download, or check, its files."""
        _told(self.class_path, self.bolts.prepare_data)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of the data set behind one of its loaders."""
        dataset = self._dataset(split)
        inside, places = _inside(dataset)
        labels = _labels(inside, self.class_path)[places]
        if len(places):
            self._check(dataset, labels, split)
        return Rows(_source(inside, places, self.in_channels == 1), {"label": labels})

    def _dataset(self, split: str) -> Dataset:
        """The data set behind a loader, whose images come without transforms."""
        if split not in self._datasets:
            stage = "test" if split == "test" else "fit"
            for kind in ("train", "val", "test"):
                setattr(self.bolts, f"{kind}_transforms", _as_it_is)
            if stage not in self._prepared:
                _told(self.class_path, lambda: self.bolts.setup(stage))
                self._prepared.add(stage)
            loader = _told(self.class_path, getattr(self.bolts, self._loaders[split]))
            found = getattr(loader, "dataset", None)
            if found is None or not hasattr(found, "__len__"):
                raise InputTypeError(
                    f"{self.class_path}.{self._loaders[split]} serves no data set with rows"
                    f" (found {type(loader).__name__}): only those of labelled images can be used"
                )
            self._datasets[split] = found
        return self._datasets[split]

    def _check(self, dataset: Any, labels: np.ndarray, split: str) -> None:
        """Refuse what is no image with one label, by the first and the last row."""
        for row in {0, len(labels) - 1}:
            item = _told(self.class_path, lambda row=row: dataset[row])
            is_pair = isinstance(item, tuple | list) and len(item) == 2
            if not is_pair or not isinstance(item[0], Image.Image):
                first = item[0] if is_pair else item
                raise InputTypeError(
                    f"{self.class_path} gives {type(first).__name__} for {split} and no pairs of"
                    " image and label: only data modules of labelled images can be used"
                )
            if not _is_number(item[1]) or int(item[1]) != labels[row]:
                raise InputTypeError(
                    f"{self.class_path} gives the label {quoted(item[1])} for row {row} of {split},"
                    f" where its data set lists {labels[row]}: only data modules of images with one"
                    " number of a class each can be used"
                )


def _not_importable(module: str, error: Exception) -> InputImportError:
    is_missing = isinstance(error, ModuleNotFoundError) and str(error.name) in module
    if is_missing:
        return InputImportError(
            f"BoltsDataModule needs {module}, which is not there: `pip install lit-ssl[bolts]` for"
            " lightning-bolts"
        )
    return InputImportError(
        f"{module} cannot be imported beside the packages that are here"
        f" ({type(error).__name__}: {shortened(error)}): `pip install lit-ssl[bolts]`, in an"
        " environment of its own, takes versions that it works with"
    )


def _built(kind: type, arguments: Mapping[str, Any]) -> Any:
    for name, ours in _OURS.items():
        if name in arguments:
            instead = (
                "leave it out" if ours is None else f"give BoltsDataModule {ours} in place of it"
            )
            raise InputError(
                f"init_args.{name} is for the loaders of {kind.__name__}, which are not used:"
                f" {instead}"
            )
    try:
        return kind(**arguments)
    except _THEIRS as error:
        raise InputError(
            f"{kind.__name__} cannot be made of these init_args ({type(error).__name__}:"
            f" {shortened(error)})"
        ) from error


def _told(name: str, function: Any) -> Any:
    """Call a function of theirs; what fails in it is told in one line."""
    try:
        return function()
    except InputError:
        raise
    except _THEIRS as error:
        raise InputError(
            f"{name} cannot give its images ({type(error).__name__}: {shortened(error)}): see its"
            " init_args, such as data_dir"
        ) from error


def _as_it_is(image: Any) -> Any:
    return image


def _inside(dataset: Any) -> tuple[Any, np.ndarray]:
    """A data set without the parts around it, and which of its rows are served: int64."""
    if not isinstance(dataset, DatasetSubset):
        return dataset, np.arange(len(dataset))
    inside, places = _inside(dataset.dataset)
    return inside, places[np.asarray(dataset.indices, dtype=np.int64)]


def _labels(dataset: Any, name: str) -> np.ndarray:
    """Labels of all rows, without reading an image."""
    for place in ("targets", "labels", "_labels"):
        found = getattr(dataset, place, None)
        if found is None:
            continue
        numbers = np.asarray(found)
        if numbers.shape != (len(dataset),) or numbers.dtype.kind not in "iu":
            break
        change = getattr(dataset, "target_transform", None)
        values = numbers if change is None else [change(int(number)) for number in numbers]
        return np.asarray(values, dtype=np.int64)
    raise InputTypeError(
        f"{name} has {type(dataset).__name__} inside, which does not list a class for each image:"
        " only data modules of labelled images can be used"
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point()
    return isinstance(value, int | np.integer)


def _normalization(module: Any, channels: int) -> tuple[Any, Any]:
    """Mean and standard deviation of the transform that it would use."""
    for name in ("default_transforms", "_default_transforms", "val_transform"):
        make = getattr(module, name, None)
        if make is None:
            continue
        before = getattr(module, "normalize", None)
        module.normalize = True
        try:
            steps = getattr(make(), "transforms", [])
        finally:
            module.normalize = before
        for step in steps:
            values = [np.ravel(getattr(step, part, ())) for part in ("mean", "std")]
            if all(len(value) == channels for value in values):
                mean, std = (tuple(map(float, value)) for value in values)
                return mean, std
    return ((0.5,), (0.5,)) if channels == 1 else (None, None)


def _source(dataset: Any, places: np.ndarray, is_grey: bool) -> Images:
    """Images in files where the data set is a list of them, else what it gives."""
    from torchvision.datasets import DatasetFolder
    from torchvision.datasets.folder import default_loader

    is_files = isinstance(dataset, DatasetFolder) and dataset.loader is default_loader
    if not is_files or type(dataset).__getitem__ is not DatasetFolder.__getitem__ or is_grey:
        return _GivenImages(dataset, places, is_grey)
    folder = Path(getattr(dataset, "split_folder", dataset.root))
    paths = (dataset.samples[place][0] for place in places)
    return FileImages(folder, (Path(os.path.relpath(path, folder)).as_posix() for path in paths))


class _GivenImages(Images):
    """Images that a data set gives, one by one.

    Args:
        dataset: Gives pairs (image of Pillow, label).
        places: Which of them, int64 ``[N]``.
        is_grey: One channel; else three.
    """

    def __init__(self, dataset: Any, places: np.ndarray, is_grey: bool) -> None:
        self._dataset = dataset
        self._places = places
        self._is_grey = is_grey

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one image as uint8 ``[C, H, W]``."""
        place = int(self._places[index])
        try:
            image, _ = self._dataset[place]
            image = image.convert("L" if self._is_grey else "RGB")
        except _READ_ERRORS as error:
            raise CorruptImageError(
                f"Cannot read image {place} of {type(self._dataset).__name__}"
                f" ({type(error).__name__}: {shortened(error)}). Repair it, or set on_corrupt: skip"
                " to use the next readable image in its place"
            ) from error
        if max_side is not None:
            image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels[None] if self._is_grey else pixels.permute(2, 0, 1)

    def name(self, row: int) -> None:
        """Return None: a data set does not name its images."""

    def select(self, rows: np.ndarray) -> _GivenImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order."""
        return _GivenImages(self._dataset, self._places[rows], self._is_grey)
