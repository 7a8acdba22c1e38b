"""The files of NLVR2: statements in JSON lines, and where their images are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.listing import FolderListing
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import layout_error, read_text
from lit_ssl.json_text import JSONError, parse_json

__all__ = ["NAME", "Statements", "images_root", "images_there", "read_statements", "statement_file"]

NAME = "NLVR2"

_NUMBER = "([0-9]{1,9})"
_IDENTIFIER = re.compile(f"([a-z0-9]+)-{_NUMBER}-{_NUMBER}-{_NUMBER}")  # split, set, pair, sentence
_NUMBERS = range(10**9)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no UTF-8 has
_LABELS = {"False": 0, "True": 1}


class Statements(NamedTuple):
    """What a file says, a row for each of its lines.

    Attributes:
        sentences: N sentences.
        labels: int64 ``[N]``: 0 false, 1 true, −1 where there is none.
        identifiers: N times ``split-set-pair-sentence``.
        statements: N times ``split-set-sentence``: rows with the same one are one sentence about
            several pairs.
        sets: int64 ``[N]``: number of the set of pairs that were searched together.
        pairs: N times the path of both images below the folder of images, without
            ``-img0.png`` and ``-img1.png``.
        directories: int64 ``[N]``, of training images; −1 elsewhere.
    """

    sentences: list[str]
    labels: np.ndarray
    identifiers: list[str]
    statements: list[str]
    sets: np.ndarray
    pairs: list[str]
    directories: np.ndarray


def statement_file(root: Path, split: str, part: str) -> Path:
    """Return the file of a split.

    Args:
        root: Folder with the files, or with the official repository's ``data`` in it.
        split: "train", "dev", "test1" or "test2".
        part: "full", "balanced" or "unbalanced".

    Raises:
        FileNotFoundError: It is not there.
    """
    name = f"{split}.json" if part == "full" else f"{part}/{part}_{split}.json"
    return find_file(root, [name], NAME, folders=("data", "nlvr2/data", "nlvr/nlvr2/data"))


def images_root(root: Path, split: str) -> Path:
    """Return the folder that holds the folder of a split's images: ``images/``, or the root itself.

    Args:
        root: folder of the data set.
        split: name of the folder of its images.

    Raises:
        FileNotFoundError: Neither has it.
    """
    for folder in (root / "images", root):
        if (folder / split).is_dir():
            return folder
    inside = "<directory>/" if split == "train" else ""
    where = f"images/{split}/{inside} or {split}/{inside}"
    raise layout_error(NAME, root, f"the {split} images, <pair>-img0.png, in {where} in {root}")


def read_statements(path: Path, split: str) -> Statements:
    """Read a file of statements, a JSON object a line.

    Args:
        path: The file.
        split: "train", "dev", "test1" or "test2"; the identifiers have to begin with it.

    Raises:
        InputError: A line is none of such a file; the message says which.
    """
    found: dict[str, list[Any]] = {name: [] for name in Statements._fields}
    known: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _read_line(line, split)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        first = known.setdefault(row["identifiers"], number)
        if first != number:
            raise InputError(
                f"{path}, line {number}: the identifier {row['identifiers']} stands in line {first}"
                " too. Take the official file"
            )
        for name, value in row.items():
            found[name].append(value)
    if not known:
        raise InputError(f"{path} is empty: expected a JSON object with a statement in each line")
    columns: dict[str, Any] = dict(found)
    for name in ("labels", "sets", "directories"):
        columns[name] = np.array(found[name], dtype=np.int64)
    return Statements(**columns)


def _read_line(line: str, split: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except JSONError as error:
        raise InputError(f"expected a JSON object with a statement ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object with a statement, found {quoted(row)}")
    sentence, identifier = row.get("sentence"), row.get("identifier")
    if not isinstance(sentence, str) or not sentence.strip() or _SURROGATE.search(sentence):
        raise InputError(f"expected a sentence, found {quoted(sentence)}")
    match = _IDENTIFIER.fullmatch(identifier) if isinstance(identifier, str) else None
    if match is None or match[1] != split:
        raise InputError(
            f"expected an identifier {split}-<set>-<pair>-<sentence>, found {quoted(identifier)}"
        )
    label = row.get("label")
    if label is not None and str(label) not in _LABELS:
        raise InputError(f"expected the label True or False, found {quoted(label)}")
    directory = _directory(row) if split == "train" else None
    _, numbers_of_set, pair, statement = match.groups()
    stem = f"{split}-{numbers_of_set}-{pair}"
    return {
        "sentences": sentence,
        "labels": -1 if label is None else _LABELS[str(label)],
        "identifiers": identifier,
        "statements": f"{split}-{numbers_of_set}-{statement}",
        "sets": int(numbers_of_set),
        "pairs": f"{split}/{stem}" if directory is None else f"{split}/{directory}/{stem}",
        "directories": -1 if directory is None else directory,
    }


def _directory(row: dict[str, Any]) -> int:
    directory = row.get("directory")
    if isinstance(directory, bool) or not isinstance(directory, int) or directory not in _NUMBERS:
        raise InputError(f"expected the number of the images' directory, found {quoted(directory)}")
    return directory


def images_there(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return which image files are there, by listing their folders: bool ``[N]``.

    Args:
        folder: Folder of the images.
        names: N paths below it, with ``/``.
    """
    listing = FolderListing(folder)
    return np.array([name in listing for name in names], dtype=bool)
