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
from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.files import describe_folder
from lit_ssl.tables import Table, read_table
from lit_ssl.transforms import EvalTransform

__all__ = ["CelebADataModule"]

_NAME = "CelebA"
_SPLITS = {"train": 0, "val": 1, "test": 2}
_YES_NO = {"-1": 0, "0": 0, "1": 1}


class CelebADataModule(GroupImageDataModule):
    """CelebA: 202,599 aligned faces with 40 attributes; one is the class, another the attribute.

    Expected: `list_attr_celeba` and `list_eval_partition`, both as .csv or as the official .txt,
    and the folder `img_align_celeba`. With the defaults, blond men are rare in training: 162,770
    images in groups of about 71,600, 66,900, 22,900 and 1,400.

    Args:
        root: Folder that holds all three.
        target: Column to classify.
        attribute: Column that goes along with it.
        image_size: Height and width: the middle 178 pixels of an image are cut out and resized to
            it.
        num_workers: Worker processes per loader.
        kwargs: Arguments of `GroupImageDataModule`.
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
            raise InputError(f"target and attribute must differ, both are {target!r}.")
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
        table = _read(path, "image_id", [self.target, self.attribute], header_line=1)
        labels = table.codes(self.target, _YES_NO, "-1 or 1")
        attributes = table.codes(self.attribute, _YES_NO, "-1 or 1")
        names = table.columns["image_id"]
        splits = _read(self._file("list_eval_partition"), "image_id", ["partition"])
        parts = splits.codes("partition", {"0": 0, "1": 1, "2": 2})
        part = dict(zip(splits.columns["image_id"], parts.tolist(), strict=True))
        if lacking := [name for name in names if name not in part]:
            raise InputError(
                f"{_NAME}: {len(lacking):,} of the {len(names):,} images in {path} are not in"
                f" {splits.path}, first {lacking[0]}. Use the official files together."
            )
        return names, labels, attributes, np.array([part[name] for name in names])

    def _file(self, stem: str) -> Path:
        return find_file(self.root, [f"{stem}.csv", f"{stem}.txt"], _NAME)


def _read(path: Path, key: str, columns: Sequence[str], header_line: int | None = None) -> Table:
    """Read a .csv file, or a .txt file whose values are separated by blanks.

    Args:
        path: The file.
        key: Name of the first column.
        columns: Names of the others to keep.
        header_line: Line, from 0, of a .txt file that names all columns but the first; None: it has
            no header, and all columns are wanted.
    """
    if path.suffix == ".csv":
        return read_table(path, [key, *columns], _NAME)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = list(columns) if header_line is None else lines[header_line : header_line + 1]
    names = header if header_line is None else " ".join(header).split()
    if unknown := [column for column in columns if column not in names]:
        raise InputError(
            f"{_NAME}: {path} has no column {unknown[0]!r}, its columns are"
            f" {', '.join(map(repr, names)) or 'missing'}."
            f"{did_you_mean(unknown[0], names, list_up_to=0)}"
        )
    start = 0 if header_line is None else header_line + 1
    rows = [(number, line.split()) for number, line in enumerate(lines[start:], start=start + 1)]
    rows = [(number, fields) for number, fields in rows if fields]
    for number, fields in rows:
        if len(fields) != len(names) + 1:
            raise InputError(
                f"{_NAME}: line {number} of {path} has {len(fields)} of {len(names) + 1} columns:"
                " the file is incomplete. Get it again."
            )
    if not rows:
        raise InputError(f"{_NAME}: {path} has no rows. Found: {describe_folder(path.parent)}.")
    found = {name: [fields[names.index(name) + 1] for _, fields in rows] for name in columns}
    found[key] = [fields[0] for _, fields in rows]
    return Table(path, found, np.array([number for number, _ in rows], dtype=np.int64))
