"""Which factors each image has: ImageNet-X's annotations, or a user's own table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lit_ssl.cells import name_of_cell
from lit_ssl.errors import InputError, check_choice, did_you_mean, listed, quoted, shortened
from lit_ssl.imagenet_x.annotation_files import FACTORS, METACLASSES, find_folder, read_folder
from lit_ssl.numerals import whole_number
from lit_ssl.tables import Line, csv_lines

__all__ = ["FactorAnnotations", "FactorKind", "read_annotations"]

FactorKind = Literal["top", "multi"]

# In any folder, and with whatever the data sets' mirrors append to it.
_IMAGENET_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")


@dataclass(frozen=True, eq=False)
class FactorAnnotations:
    """Images by number, 1 … ``size``, with their labels, and the factors of some of them.

    Attributes:
        factors: Names of the factors, F of them.
        numbers: The annotated images, int64 ``[M]``, ascending.
        members: Which factors each has, bool ``[M, F]``.
        labels: Class of each image, int64 ``[size]``: of image n at n − 1.
        kind: ``top``, ``multi``, or ``own`` for a user's table.
        source: Where they come from, for reports.
        files: File names of a user's table, in the order of the numbers; None for ImageNet's.
        real: ReaL labels, in two arrays: those of image n are
            ``real[0][real[1][n - 1] : real[1][n]]``; None without.
        metaclasses: Names of groups of classes; empty without.
        class_to_metaclass: Position of each class's group in ``metaclasses``, int64 ``[C]``.
        keeps_prototypes: Whether ImageNet-X's prototypes are among ``numbers``.
    """

    factors: tuple[str, ...]
    numbers: np.ndarray
    members: np.ndarray
    labels: np.ndarray
    kind: str
    source: str
    files: tuple[str, ...] | None = None
    real: tuple[np.ndarray, np.ndarray] | None = None
    metaclasses: tuple[str, ...] = ()
    class_to_metaclass: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    keeps_prototypes: bool = False

    @property
    def size(self) -> int:
        """Highest image number."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes; at least so many in a user's table, which does not tell it."""
        return len(self.class_to_metaclass) or int(self.labels.max()) + 1

    def fits(self, outputs: int) -> bool:
        """Whether the outputs of a classifier, so many, can be these classes.

        Args:
            outputs: number of outputs.
        """
        return outputs == self.num_classes or (
            self.files is not None and outputs > self.num_classes
        )

    def file_name(self, number: int) -> str:
        """Name of an image.

        Args:
            number: of the image, from 1.
        """
        if self.files is not None:
            return self.files[number - 1]
        return f"ILSVRC2012_val_{number:08d}.JPEG"

    def find_numbers(self, names: Sequence[str]) -> np.ndarray:
        """Numbers of images by file name.

        ImageNet's go by the number in ``ILSVRC2012_val_NNNNNNNN``, in any folder and whatever
        follows; a user's by the name in the table, where one of both may lack its first folders.

        Args:
            names: File names or paths.

        Returns:
            int64, 0 for a name that is not known.
        """
        if self.files is None:
            found = map(_IMAGENET_NAME.search, names)
            numbers = np.array([int(m[1]) if m else 0 for m in found], dtype=np.int64)
            return np.where(numbers <= self.size, numbers, 0)
        return np.array([self._own_number(name) for name in names], dtype=np.int64)

    def _own_number(self, name: str) -> int:
        """Number by the name in a user's table; folders may only be missing on one of both sides.

        So ``cat/3.png`` never stands for ``dog/3.png``.
        """
        assert self.files is not None
        exact, by_base = self._by_name
        name = name if name in exact else _plain(name)
        if name in exact:
            return exact[name]
        number = by_base.get(name.rpartition("/")[2], 0)
        listed_as = _plain(self.files[number - 1])
        fits = f"/{name}".endswith(f"/{listed_as}") or f"/{listed_as}".endswith(f"/{name}")
        return number if number and fits else 0

    @cached_property
    def _by_name(self) -> tuple[dict[str, int], dict[str, int]]:
        """Number by whole name, and by the last part of it where that is unambiguous."""
        assert self.files is not None
        exact = {name: number for number, name in enumerate(self.files, start=1)}
        exact = {_plain(name): number for name, number in exact.items()} | exact
        bases: dict[str, int] = {}
        for number, name in enumerate(self.files, start=1):
            base = _plain(name).rpartition("/")[2]
            bases[base] = 0 if base in bases else number
        return exact, bases


def _plain(name: str) -> str:
    """A path with ``/`` for the backslashes of Windows, without ``./``."""
    return name.replace("\\", "/").removeprefix("./")


def read_annotations(
    source: str = "auto", which_factor: FactorKind = "top", keep_prototypes: bool = False
) -> FactorAnnotations:
    """Read annotations.

    Args:
        source: ``auto`` takes those of the installed package imagenet-x (found without importing
            it); or a folder with its files; or a CSV file of your own with the columns
            ``file_name``, ``label`` (class index) and one of 0 and 1 per factor.
        which_factor: ImageNet-X: the one factor that tells an image apart most (``top``), or all
            that were ticked (``multi``).
        keep_prototypes: ImageNet-X: count the prototypical images too.

    Returns:
        The annotations.

    Raises:
        InputError: If there are none, or they cannot be read.
    """
    check_choice("which_factor", which_factor, ("top", "multi"))
    if source.lower().endswith((".csv", ".tsv")):
        return _read_table(Path(source).expanduser())
    folder = find_folder(source)
    arrays = read_folder(folder)
    mask = arrays[which_factor]
    kept = np.ones(len(mask), dtype=bool)
    if not keep_prototypes:
        kept = ~np.isin(arrays["number"], arrays["prototype"])
    return FactorAnnotations(
        factors=FACTORS,
        numbers=arrays["number"][kept],
        members=(mask[kept, None] >> np.arange(len(FACTORS))) & 1 == 1,
        labels=arrays["label"],
        kind=which_factor,
        source=f"ImageNet-X ({which_factor} factors)",
        real=(arrays["real_flat"], arrays["real_offset"]),
        metaclasses=METACLASSES,
        class_to_metaclass=arrays["class_to_metaclass"],
        keeps_prototypes=keep_prototypes,
    )


# a user's own table

_WANTED = "expected the columns file_name, label (class index) and one of 0 and 1 per factor"


def _read_table(path: Path) -> FactorAnnotations:
    if not path.is_file():
        raise InputError(f"no annotations at {path}")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        lines = csv_lines(path, _WANTED, delimiter)
        header = [name.strip() for name in next(lines, (0, []))[1]]
        body = list(lines)
    except InputError as error:
        raise InputError(f"{path} is no table in UTF-8: {_WANTED}") from error
    factors = _factor_columns(path, header, body)
    names = [name_of_cell(row[header.index("file_name")].strip()) for _, row in body]
    if len(set(names)) < len(names):
        doubled = [name for name, times in Counter(names).items() if times > 1]
        raise InputError(f"{path} names {len(doubled)} images twice, e.g. {shortened(doubled[0])}")
    labels = _numbers(path, body, header.index("label"), "label", "class indices from 0")
    members = [_numbers(path, body, header.index(f), f, "0 or 1", 1) for f in factors]
    return FactorAnnotations(
        factors=tuple(factors),
        numbers=np.arange(1, len(names) + 1),
        members=np.stack(members, axis=1).astype(bool),
        labels=labels,
        kind="own",
        source=path.name,
        files=tuple(names),
    )


def _factor_columns(path: Path, header: list[str], body: list[Line]) -> list[str]:
    for name in ("file_name", "label"):
        if name not in header:
            hint = did_you_mean(name, header) if header else ""
            raise InputError(f"{path} has no column {name}: {_WANTED}.{hint}")
    factors = [name for name in header if name not in ("file_name", "label")]
    if not factors or not body or len(set(header)) < len(header):
        found = "no images" if header and not body else f"the columns {listed(header, 20)}"
        raise InputError(f"{path} has {found}: {_WANTED}, and at least one image")
    for line, row in body:
        if len(row) != len(header):
            raise InputError(
                f"line {line} of {path} has {len(row)} values for {len(header)} columns"
            )
    return factors


def _numbers(
    path: Path, body: list[Line], column: int, name: str, what: str, highest: int = 2**31 - 1
) -> np.ndarray:
    """A column of integers ``[N]``, from 0 to ``highest``."""
    values = np.empty(len(body), dtype=np.int64)
    for row, (line, fields) in enumerate(body):
        text = fields[column].strip()
        number = whole_number(text)
        if number is None or not 0 <= number <= highest:
            raise InputError(
                f"column {name} of {path} holds {quoted(text)} in line {line}: expected {what}"
            )
        values[row] = number
    return values
