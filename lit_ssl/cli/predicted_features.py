"""Features that ``lit-ssl predict`` wrote, of one process or several, with the images' names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.cells import name_of_cell
from lit_ssl.errors import InputError, InputFileNotFoundError, did_you_mean, listed, quoted
from lit_ssl.files import describe_folder, read_bytes
from lit_ssl.numerals import whole_number

__all__ = ["PredictedFeatures", "read_features"]

_COLUMNS = ["row", "file", "label", "class"]


class PredictedFeatures(NamedTuple):
    """Features and what is known of the image of each, by rising row.

    Attributes:
        features: float32 ``[N, D]``, finite.
        rows: int64 ``[N]``, the number of each in its split.
        files: Paths below the folder of the images; empty where a row has no name.
        labels: int64 ``[N]``, −1 where unknown.
        classes: Names of the classes of the labels; empty where unknown.
        folder: Folder of the images, as it was when they were predicted; None: not known.
    """

    features: Tensor
    rows: np.ndarray
    files: list[str]
    labels: np.ndarray
    classes: list[str]
    folder: Path | None

    def name(self, place: int) -> str:
        """Return what an image is called in tables and captions.

        Args:
            place: Which of the N.
        """
        return self.files[place] or f"row {self.rows[place]}"

    def find(self, asked: str) -> int:
        """Return the place of an image.

        Args:
            asked: Its row, its file below the folder of the images or elsewhere (a path that leads
                to it), or the end of its path where no other has it.

        Raises:
            InputError: It is not among them, or several may be meant.
        """
        number = whole_number(asked)
        if number is not None and asked not in self.files:
            found = np.flatnonzero(self.rows == number)
            if not len(found):
                raise InputError(
                    f"--query {asked}: no such row; there are {len(self.rows):,}, from"
                    f" {self.rows[0]} to {self.rows[-1]}"
                )
            return int(found[0])
        if asked in self.files:
            return self.files.index(asked)
        path = Path(os.path.expanduser(asked))
        if os.path.exists(path) and self.folder is not None:
            real, folder = path.resolve(), self.folder.resolve()
            if real.is_relative_to(folder) and real.relative_to(folder).as_posix() in self.files:
                return self.files.index(real.relative_to(folder).as_posix())
        parts = PurePosixPath(asked.replace("\\", "/")).parts
        ends = [
            place
            for place, file in enumerate(self.files)
            if parts and PurePosixPath(file).parts[-len(parts) :] == parts
        ]
        if len(ends) == 1 and not os.path.exists(path):
            return ends[0]
        if len(ends) > 1:
            names = listed([self.files[place] for place in ends])
            raise InputError(f"--query {asked} may be {len(ends):,} images: {names}. Name one")
        hint = did_you_mean(asked, self.files, list_up_to=0)
        raise InputError(
            f"--query {asked} is not among the {len(self.files):,} images of the features.{hint} To"
            " compare other images, put them into a folder, run the same `lit-ssl predict` with"
            " --data.root FOLDER, and give --query the predictions.safetensors that it writes"
        )


def read_features(paths: Sequence[str]) -> PredictedFeatures:
    """Read files of features, with the tables of names beside them.

    Args:
        paths: Files ``predictions.safetensors``, those of all processes, or the folder of a run.

    Raises:
        InputError: One is not there, cannot be read, holds no features or such that are NaN or
            infinite, does not fit its table, or they are not of one run.
    """
    files = [file for path in paths for file in _files(Path(os.path.expanduser(path)))]
    parts = [_read(file) for file in {file.resolve(): file for file in files}.values()]
    widths = {part.features.shape[1] for part in parts}
    if len(widths) > 1:
        raise InputError(
            f"the features have {' and '.join(map(str, sorted(widths)))} dimensions: give files of"
            " one network"
        )
    folders = {part.folder for part in parts}
    if len(folders) > 1:
        where = [str(folder or "no folder") for folder in folders]
        raise InputError(
            f"the files are of images in {listed(sorted(where))}: give the files of one run"
        )
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    if len(np.unique(rows)) < len(rows):
        again = rows[order][1:][np.diff(rows[order]) == 0]
        raise InputError(
            f"{len(again):,} rows are in several of the files, such as row {again[0]}: give the"
            " files of one run"
        )
    names = [name for part in parts for name in part.files]
    classes = [name for part in parts for name in part.classes]
    return PredictedFeatures(
        torch.cat([part.features for part in parts])[torch.from_numpy(order)],
        rows[order],
        [names[place] for place in order],
        np.concatenate([part.labels for part in parts])[order],
        [classes[place] for place in order],
        parts[0].folder,
    )


def _files(path: Path) -> list[Path]:
    """The file, or those in a folder."""
    if os.path.isdir(path):
        if found := sorted(path.glob("predictions*.safetensors")):
            return found
        raise InputFileNotFoundError(
            f"{path} has no predictions.safetensors, which `lit-ssl predict` writes; found:"
            f" {describe_folder(path)}"
        )
    if not os.path.isfile(path):
        raise InputFileNotFoundError(
            f"there is no file {path}: give the predictions.safetensors that `lit-ssl predict`"
            f" writes, or its folder; {describe_folder(path.parent)}"
        )
    return [path]


def _read(path: Path) -> PredictedFeatures:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is no .safetensors: give the predictions.safetensors that `lit-ssl predict`"
            " writes, with its predictions.csv beside it"
        )
    try:
        with safe_open(path, framework="pt") as file:
            known = set(file.keys())
            features = file.get_tensor("features") if "features" in known else None
            rows = file.get_tensor("rows") if "rows" in known else None
            folder = (file.metadata() or {}).get("folder")
    except Exception as error:  # its own kinds
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
    if features is None or rows is None:
        what = "predictions of a classifier" if "predictions" in known else listed(sorted(known))
        raise InputError(
            f"{path} holds no features but {what}: predict with the network alone, lit-ssl predict"
            " --config eval/folder.yaml --model.weights CHECKPOINT"
        )
    if features.ndim != 2 or not features.is_floating_point() or rows.shape != features.shape[:1]:
        raise InputError(
            f"{path}: features must be numbers [N, D] with rows [N], found"
            f" {list(features.shape)} with {list(rows.shape)}"
        )
    names, labels, classes = _table(path.with_suffix(".csv"), rows.numpy())
    finite = features.isfinite().all(1)
    if not finite.all():
        lost = [names[place] or str(rows[place].item()) for place in (~finite).nonzero()[:, 0]]
        raise InputError(
            f"{path}: the features of {len(lost):,} of {len(finite):,} images are NaN or infinite:"
            f" {listed(lost)}. The training has failed, or the precision is too small for it"
        )
    return PredictedFeatures(
        features.float(), rows.numpy(), names, labels, classes, Path(folder) if folder else None
    )


def _table(path: Path, rows: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    """Names, labels and classes, after a check that they are of the same rows."""
    content = read_bytes(path).decode("utf-8", "surrogateescape")  # as names of files are
    try:
        lines = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is no table as `lit-ssl predict` writes it ({error})") from error
    if not lines or lines[0] != _COLUMNS or any(len(line) != len(_COLUMNS) for line in lines):
        raise InputError(
            f"{path} has not the columns {', '.join(_COLUMNS)} that `lit-ssl predict` writes"
        )
    found = [whole_number(line[0]) for line in lines[1:]]
    if found != rows.tolist():
        raise InputError(
            f"{path} has {len(found):,} rows that are not the {len(rows):,} rows of"
            f" {path.with_suffix('.safetensors').name}: take both from one run"
        )
    names = [name_of_cell(line[1]) for line in lines[1:]]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path} names a file outside of the images' folder: {quoted(name)}")
    labels = [-1 if line[2] == "" else whole_number(line[2]) for line in lines[1:]]
    if None in labels:
        wrong = lines[1 + labels.index(None)][2]
        raise InputError(f"{path} has a label that is no number: {quoted(wrong)}")
    classes = [name_of_cell(line[3]) for line in lines[1:]]
    return names, np.array(labels, dtype=np.int64), classes
