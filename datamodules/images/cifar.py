"""CIFAR-10 and CIFAR-100 in their official layouts."""

from __future__ import annotations

import os
import pickle
import pickletools
from abc import abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, quoted, shortened
from lit_ssl.files import layout_error, read_bytes
from lit_ssl.opening import open_file, reading

__all__ = ["CIFAR10DataModule", "CIFAR100DataModule"]

_PIXELS = 3 * 32 * 32


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, lists and strings, and refuses everything else a pickle could run."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self._ALLOWED and module.partition(".")[0] == "numpy":
            if _new_numpy():  # the old name still works there, with a warning
                module = module.replace("numpy.core", "numpy._core")
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not part of CIFAR")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _new_numpy() -> bool:
    return int(np.__version__.partition(".")[0]) >= 2


def _read_pickle(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    with reading(path), open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            _check_numbers(file, size)
            content = _ArrayUnpickler(file, encoding="latin1").load()
            if not isinstance(content, dict):
                raise TypeError(f"it holds {quoted(content)}, and no dictionary")
            return _pixels(content["data"]), _labels(content[label_key])
        # A pickle is a program: one that is damaged fails in any way, at any place.
        except Exception as error:
            raise InputError(
                f"{path} is not a file of CIFAR's Python version"
                f" ({shortened(error) or type(error).__name__}). Extract the official archive again"
            ) from error


def _check_numbers(file: BinaryIO, size: int) -> None:
    """Refuse the numbers by which Python's reader would make a table of any size in advance."""
    for operation, number, _ in pickletools.genops(file):
        if operation.name.endswith("PUT") and isinstance(number, int) and number > size:
            raise pickle.UnpicklingError(f"it counts to {number:,} in {size:,} bytes")
    file.seek(0)


def _pixels(data: object) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        form = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else quoted(data)
        raise TypeError(f"expected data, uint8 [N, {_PIXELS}], found {form}")
    return data


def _labels(labels: object) -> np.ndarray:
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise TypeError(f"expected a list of whole numbers as labels, found {quoted(labels)}")
    if wrong := [label for label in labels if not 0 <= label < 256]:
        raise ValueError(f"the label {quoted(wrong[0])} is no number of a class")
    return np.array(labels, dtype=np.int64)


def _read_binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    content = np.frombuffer(read_bytes(path), dtype=np.uint8)
    row = label_bytes + _PIXELS
    if len(content) == 0 or len(content) % row:
        raise InputError(
            f"{path} has {len(content)} bytes, which is not a multiple of the {row} bytes of an"
            " image with its label. Extract the official archive again"
        )
    rows = content.reshape(-1, row)
    # CIFAR-100 has a coarse and then the fine label: the last byte before the pixels counts.
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


class _CIFARDataModule(ImageDataModule):
    """What CIFAR-10 and CIFAR-100 share."""

    default_size, default_margin = 32, 1  # as they are

    # Folder, training files, test file of both layouts; key of the labels; bytes of labels.
    _python: tuple[str, tuple[str, ...], str]
    _binary: tuple[str, tuple[str, ...], str]
    _label_key: str
    _label_bytes: int

    def __init__(
        self, *, root: str = "data", download: bool = False, val_size: int = 5000, **kwargs: Any
    ) -> None:
        super().__init__(val_size=val_size, **kwargs)
        self.root = Path(root).expanduser()
        self.download = download

    @abstractmethod
    def _download(self) -> None:
        """Fetch and check the official archive."""

    def prepare_data(self) -> None:
        """Download the Python version if neither layout is there and ``download`` is set."""
        if self.download and self._layout() is None:
            self._download()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the 50,000 training or 10,000 test images; there is no own validation split."""
        if split == "val":
            return None
        layout = self._layout()
        if layout is None:
            name = type(self).__name__.removesuffix("DataModule")
            (python, train, test), (binary, _, _) = self._python, self._binary
            expected = (
                f"{python}/ with {', '.join((*train, test))}, or {binary}/ with the binary"
                f" version, in {self.root} (download: true fetches it)"
            )
            raise layout_error(name, self.root, expected)
        folder, train, test = layout
        parts = [
            self._read(self.root / folder / file)
            for file in (train if split == "train" else (test,))
        ]
        pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([part[1] for part in parts]).astype(np.int64)
        return Rows(ArrayImages(torch.from_numpy(pixels)), {"label": labels})

    def _layout(self) -> tuple[str, tuple[str, ...], str] | None:
        """The layout whose files are all there."""
        for folder, train, test in (self._python, self._binary):
            if all((self.root / folder / file).is_file() for file in (*train, test)):
                return folder, train, test
        return None

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        if path.suffix == ".bin":
            pixels, labels = _read_binary(path, self._label_bytes)
        else:
            pixels, labels = _read_pickle(path, self._label_key)
        count = len(self.class_names)
        if len(pixels) != len(labels) or not len(labels) or int(labels.max()) >= count:
            largest = int(labels.max(initial=-1))
            raise InputError(
                f"{path} has {len(pixels):,} images and {len(labels):,} labels up to {largest}:"
                f" expected as many of both, from 0 to {count - 1}. Extract the official archive"
                " again"
            )
        return pixels, labels


class CIFAR10DataModule(_CIFARDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32 pixels, 10 classes.

    Args:
        root: Folder that holds ``cifar-10-batches-py`` (preferred) or ``cifar-10-batches-bin``.
        download: Fetch the Python version if neither is there.
        val_size: Number of training images held out for validation; 0 validates on the test images.
            Must be 0 for a ``subset.file`` that draws on all 50,000 images.
        kwargs: Arguments of ``ImageDataModule``.
    """

    default_mean = (0.4914, 0.4822, 0.4465)
    default_std = (0.2470, 0.2435, 0.2616)
    _python = ("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    _binary = (
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
    )
    _label_key = "labels"
    _label_bytes = 1
    class_names = _words("airplane automobile bird cat deer dog frog horse ship truck")

    def _download(self) -> None:
        from torchvision.datasets import CIFAR10

        CIFAR10(self.root, download=True)


class CIFAR100DataModule(_CIFARDataModule):
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 pixels, 100 (fine) classes.

    Args:
        root: Folder that holds ``cifar-100-python`` (preferred) or ``cifar-100-binary``.
        download: Fetch the Python version if neither is there.
        val_size: Number of training images held out for validation; 0 validates on the test images.
        kwargs: Arguments of ``ImageDataModule``.
    """

    default_mean = (0.5071, 0.4865, 0.4409)
    default_std = (0.2673, 0.2564, 0.2762)
    _python = ("cifar-100-python", ("train",), "test")
    _binary = ("cifar-100-binary", ("train.bin",), "test.bin")
    _label_key = "fine_labels"
    _label_bytes = 2
    class_names = _words(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm"""
    )

    def _download(self) -> None:
        from torchvision.datasets import CIFAR100

        CIFAR100(self.root, download=True)
