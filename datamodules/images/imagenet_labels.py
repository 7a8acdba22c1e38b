"""Labels of ImageNet's validation images where they lie in one flat folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.images.devkit_meta import devkit_classes
from lit_ssl.datamodules.selection.lists import read_lines
from lit_ssl.errors import InputError, InputFileNotFoundError, listed, shortened
from lit_ssl.numerals import whole_number

__all__ = ["find_label_file", "read_validation_labels"]

_CANDIDATES = (
    "LOC_val_solution.csv",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)
_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}")


def find_label_file(root: Path) -> Path | None:
    """Return the first of the usual label files below ``root`` that is there, None if none is.

    Args:
        root: folder of the data set.
    """
    return next((root / name for name in _CANDIDATES if (root / name).is_file()), None)


def read_validation_labels(path: Path, files: Sequence[str]) -> list[str]:
    """Return the class of each validation image.

    Args:
        path: One of: a list of ``file name, wnid`` pairs (comma or space between them, extension of
            the file optional, anything after the wnid ignored, so LOC_val_solution.csv as it is);
            or the devkit's ILSVRC2012_validation_ground_truth.txt, with ``meta.mat`` beside it.
        files: Names of the validation images, sorted.

    Returns:
        One wnid per file.

    Raises:
        FileNotFoundError: The file, or ``meta.mat``, is missing.
        ValueError: It has no label for some images, or another number of lines than there are
            images.
        ImportError: ``meta.mat`` needs scipy, which is not installed.
    """
    lines = read_lines(str(path))
    numbers = [whole_number(line) for line in lines]
    if lines and None not in numbers:
        return _devkit_labels(path, [number for number in numbers if number is not None], files)
    pairs = (line.replace(",", " ").split() for line in lines)
    table: dict[str, str] = {}
    for name, wnid, *_ in (fields for fields in pairs if len(fields) > 1):
        stem = PureWindowsPath(name).stem  # takes / and \ alike
        if table.setdefault(stem, wnid) != wnid:
            raise InputError(
                f"{path} gives {shortened(name)} two labels, {shortened(table[stem])} and"
                f" {shortened(wnid)}: keep one"
            )
    missing = [name for name in files if Path(name).stem not in table]
    if missing:
        raise InputError(
            f"{path} has no label for {len(missing)} of the {len(files)} validation images, for"
            f" example {missing[0]}. Expected lines such as `ILSVRC2012_val_00000001.JPEG"
            " n01751748`"
        )
    stems = {Path(name).stem for name in files}
    absent = [stem for stem in table if stem not in stems and _IMAGE.fullmatch(stem)]
    if absent:
        rank_zero_warn(
            f"ImageNet: {len(absent):,} of the {len(files) + len(absent):,} images in {path} are"
            f" not in the validation folder: {listed(sorted(absent))}. If an archive was unpacked"
            " in part, an accuracy on these images is none on ImageNet"
        )
    return [table[Path(name).stem] for name in files]


def _devkit_labels(path: Path, numbers: list[int], files: Sequence[str]) -> list[str]:
    if len(numbers) != len(files):
        raise InputError(
            f"{path} has {len(numbers)} labels but the validation folder has {len(files)} images."
            " The devkit's file goes by position, so all images have to be there, and no others"
        )
    meta = path.parent / "meta.mat"
    if not meta.is_file():
        raise InputFileNotFoundError(
            f"{path} numbers the classes as the devkit does, and {meta}, which names them, is"
            " missing. Put the devkit's data folder there, or set val_labels to a list of file"
            " names and wnids"
        )
    names = devkit_classes(meta)
    unknown = sorted(set(numbers) - set(names))
    if unknown:
        raise InputError(f"{path} has labels that {meta} does not have: {unknown[:5]}")
    return [names[number] for number in numbers]
