"""CelebA in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules.groups.images import CropThenResize, GroupImageDataModule
from lit_ssl.datamodules.reading.folders import find_file, missing_images
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, shortened
from lit_ssl.files import read_text
from lit_ssl.tables import Table, pick_columns, read_table
from lit_ssl.transforms import EvalTransform

__all__ = ["CelebADataModule"]

_NAME = "CelebA"
_SPLITS = {"train": 0, "val": 1, "test": 2}
_YES_NO = {"-1": 0, "0": 0, "1": 1}


class CelebADataModule(GroupImageDataModule):
    """CelebA: 202,599 aligned faces with 40 attributes; one is the class, another the attribute.

    Expected: ``list_attr_celeba`` and ``list_eval_partition``, both as .csv or as the official
    .txt, and the folder ``img_align_celeba``. With the defaults, blond men are rare in training:
    162,770 images in groups of about 71,600, 66,900, 22,900 and 1,400.

    Args:
        root: Folder that holds all three.
        target: Column to classify.
        attribute: Column that goes along with it.
        image_size: Height and width: the middle 178 pixels of an image are cut out and resized to
            it.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``GroupImageDataModule``.

    Raises:
        InputError: Target and attribute are the same.
    """

    def __init__(
        self,
        *,
        root: str,
        target: str = "Blond_Hair",
        attribute: str = "Male",
        image_size: int = 224,
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        if target == attribute:
            raise InputError(f"target and attribute must differ, both are {target!r}")
        super().__init__(num_workers=num_workers, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.target = target
        self.attribute = attribute

    @property
    def class_names(self) -> Sequence[str]:
        """Without and with the target."""
        return [f"not {self.target}", self.target]

    @property
    def attribute_names(self) -> Sequence[str]:
        """Without and with the attribute."""
        return [f"not {self.attribute}", self.attribute]

    def default_eval_transform(self) -> EvalTransform:
        """Return centre crop of 178 pixels and resize."""
        return CropThenResize(self.default_size, crop=178)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split."""
        names, labels, attributes, parts = self._annotations
        rows = np.flatnonzero(parts == _SPLITS[split])
        if not len(rows):
            return None
        folder = find_file(self.root, ["img_align_celeba"], _NAME)
        if (folder / folder.name).is_dir():  # one mirror's archive has it twice
            folder = folder / folder.name
        chosen = [names[row] for row in rows]
        missing_images(folder, chosen, self._file("list_attr_celeba"), _NAME)
        columns = {"label": labels[rows], "attribute": attributes[rows]}
        return Rows(FileImages(folder, chosen), columns)

    @cached_property
    def _annotations(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        path = self._file("list_attr_celeba")
        table = _read(path, [self.target, self.attribute], header_lines=2)
        labels = table.codes(self.target, _YES_NO, "-1 or 1")
        attributes = table.codes(self.attribute, _YES_NO, "-1 or 1")
        names = table.columns["image_id"]
        splits = _read(self._file("list_eval_partition"), ["partition"])
        parts = splits.codes("partition", {"0": 0, "1": 1, "2": 2})
        part = dict(zip(splits.columns["image_id"], parts.tolist(), strict=True))
        if lacking := [name for name in names if name not in part]:
            raise InputError(
                f"{_NAME}: {len(lacking):,} of the {len(names):,} images in {path} are not in"
                f" {splits.path}, first {shortened(lacking[0])}. Use the official files together"
            )
        return names, labels, attributes, np.array([part[name] for name in names])

    def _file(self, stem: str) -> Path:
        return find_file(self.root, [f"{stem}.csv", f"{stem}.txt"], _NAME)


def _read(path: Path, columns: Sequence[str], header_lines: int = 0) -> Table:
    """Read names of images and some columns of a .csv file, or a .txt file with blanks between.

    Args:
        path: The file.
        columns: Names of the columns to keep beside ``image_id``, the first.
        header_lines: Lines above the rows of a .txt file, the last of which names all columns but
            the first; 0: all columns are wanted.
    """
    wanted = ["image_id", *columns]
    if path.suffix == ".csv":
        return read_table(path, wanted, _NAME)
    text = read_text(path)
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    header = lines[:header_lines][-1][1] if lines and header_lines else columns
    body = (line for line in lines[header_lines:] if line[1])
    return pick_columns(path, ["image_id", *header], body, wanted, _NAME)
