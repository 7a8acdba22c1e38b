"""ImageNet-X's annotation files, read where the user has them.

They are licensed CC BY-NC 4.0 and so no part of this package; the ``imagenet-x`` package of PyPI
brings them. It is found but never imported: its code does not run on every Python and pandas.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lit_ssl.arrays import ArrayFileError, read_arrays
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import read_bytes, text_lines, write_file
from lit_ssl.json_text import parse_json
from lit_ssl.numerals import whole_number
from lit_ssl.tables import csv_lines

__all__ = ["FACTORS", "METACLASSES", "find_folder", "read_folder"]

_CLASSES = 1000
_ARRAYS = (
    "number", "top", "multi", "prototype", "label", "real_flat", "real_offset",
    "class_to_metaclass",
)  # fmt: skip
# The order is that of the paper's tables; positions are ids.
FACTORS = (
    "pose",
    "background",
    "pattern",
    "color",
    "smaller",
    "shape",
    "partial_view",
    "subcategory",
    "texture",
    "larger",
    "darker",
    "object_blocking",
    "person_blocking",
    "style",
    "brighter",
    "multiple_objects",
)
METACLASSES = (
    "device",
    "dog",
    "commodity",
    "bird",
    "structure",
    "covering",
    "wheeled_vehicle",
    "food",
    "equipment",
    "insect",
    "vehicle",
    "furniture",
    "primate",
    "vessel",
    "snake",
    "natural_object",
    "other",
)
_FILES = {
    "top": "imagenet_x_val_top_factor.jsonl",
    "multi": "imagenet_x_val_multi_factor.jsonl",
    "prototype": "prototypical_paths.csv",
    "label": "filename_label.csv",
    "metaclass": "imagenet_1k_classes_to_100_metaclasses.csv",
    "real": "imagenet_real_labels.jsonl",
}
_HOW = (
    "install them with `pip install 'lit-ssl[imagenet-x]'` (their licence is CC BY-NC 4.0), or "
    "give the folder that holds them"
)
_CACHE_VERSION = 1

Result = TypeVar("Result")


def find_folder(source: str = "auto") -> Path:
    """The folder with the annotation files.

    Args:
        source: ``auto`` looks for the installed package ``imagenet-x``; else the folder itself, or
            one above it.

    Raises:
        InputError: If the files are not there.
    """
    if source == "auto":
        places = _installed()
        if not places:
            raise InputError(f"the annotations of ImageNet-X are not installed: {_HOW}")
    else:
        places = [Path(source).expanduser()]
        if not places[0].is_dir():
            raise InputError(f"no folder {source} with annotations of ImageNet-X: {_HOW}")
    inside = ("", "annotations", "imagenet_x/annotations")
    folders = [place / name for place in places for name in inside]
    found = next((folder for folder in folders if (folder / _FILES["top"]).is_file()), None)
    if found is None:
        raise InputError(
            f"{places[0]} has no {_FILES['top']}, neither in it nor in annotations/: {_HOW}"
        )
    missing = [name for name in _FILES.values() if not (found / name).is_file()]
    if missing:
        raise InputError(f"{found} lacks {', '.join(missing)}: {_HOW}")
    return found


def _installed() -> list[Path]:
    """Folders of the installed package; also where a file imagenet_x.py hides it from imports."""
    spec = find_spec("imagenet_x")  # does not import it
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    with suppress(PackageNotFoundError):
        places.append(Path(str(distribution("imagenet-x").locate_file("imagenet_x"))))
    return places


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Read the annotations as arrays.

    The result is kept in the user's cache folder (``$XDG_CACHE_HOME/lit_ssl``), where reading it
    takes milliseconds instead of seconds.

    Args:
        folder: As ``find_folder`` returns it.

    Returns:
        ``number`` ``[M]`` of the annotated images, ascending; ``top`` and ``multi`` ``[M]``, whose
        bit f says that the image has factor f; ``prototype``, numbers of the prototypes; ``label``
        ``[50000]``; ``real_flat`` and ``real_offset`` ``[50001]``; ``class_to_metaclass``
        ``[1000]``. All int64.

    Raises:
        InputError: If a file is not what it should be.
    """
    cached = _cache_file(folder)
    try:
        kept = read_arrays(cached)
        if set(kept) == set(_ARRAYS) and all(kept[n].dtype == np.int64 for n in kept):
            return kept
    except (OSError, ArrayFileError):
        pass
    arrays: dict[str, Any] = {
        **_try(_read_factors, folder),
        "prototype": _try(_read_prototypes, folder),
        "label": _try(_read_labels, folder),
        **_try(_read_real, folder),
        "class_to_metaclass": _try(_read_metaclasses, folder),
    }
    with suppress(OSError):  # a home that cannot be written to costs the time of reading again
        write_file(cached, lambda file: np.savez_compressed(file, **arrays), binary=True)
    return arrays


def _try(read: Callable[[Path], Result], folder: Path) -> Result:
    try:
        return read(folder)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"the annotations in {folder} are not those of ImageNet-X: {type(error).__name__}: "
            f"{error}; {_HOW}"
        ) from error


def _number(name: str) -> int:
    """The number of an image, from 1."""
    found = whole_number(name.partition("ILSVRC2012_val_")[2][:8])
    if found is None or found < 1:
        raise InputError(f"{quoted(name)} is no name of an image, as ILSVRC2012_val_00000001.JPEG")
    return found


def _bit(value: object) -> int:
    if value not in (0, 1):
        raise InputError(f"a factor is {quoted(value)}, and not 0 or 1")
    return int(value)


def _class(value: object) -> int:
    found = value if type(value) is int else whole_number(str(value))
    if found is None or not 0 <= found < _CLASSES:
        raise InputError(f"a label is {quoted(value)}, and not from 0 to {_CLASSES - 1}")
    return found


def _read_factors(folder: Path) -> dict[str, np.ndarray]:
    masks: dict[str, dict[int, int]] = {}
    for kind in ("top", "multi"):
        masks[kind] = {}
        for _, line in text_lines(folder / _FILES[kind]):
            row = parse_json(line)
            bits = sum(_bit(row[name]) << f for f, name in enumerate(FACTORS))
            masks[kind][_number(row["file_name"])] = bits
    number = np.array(sorted(masks["top"]), dtype=np.int64)
    return {
        "number": number,
        "top": np.array([masks["top"][n] for n in number], dtype=np.int64),
        "multi": np.array([masks["multi"][n] for n in number], dtype=np.int64),
    }


def _read_rows(path: Path) -> list[dict[str, str]]:
    lines = csv_lines(path, _HOW)
    _, header = next(lines, (0, []))
    return [dict(zip(header, fields, strict=False)) for _, fields in lines]


def _read_prototypes(folder: Path) -> np.ndarray:
    rows = _read_rows(folder / _FILES["prototype"])
    return np.array(sorted(_number(row["file_name"]) for row in rows), dtype=np.int64)


def _read_labels(folder: Path) -> np.ndarray:
    rows = _read_rows(folder / _FILES["label"])
    label = np.full(len(rows), -1, dtype=np.int64)
    for row in rows:
        label[_number(row["file_name"]) - 1] = _class(row["label"])
    if (label < 0).any():
        raise InputError(f"{_FILES['label']} does not name all images from 1 to {len(rows)}")
    return label


def _read_real(folder: Path) -> dict[str, np.ndarray]:
    sets = parse_json(read_bytes(folder / _FILES["real"]))
    sizes = [len(labels) for labels in sets]
    return {
        "real_flat": np.array(
            [_class(label) for labels in sets for label in labels], dtype=np.int64
        ),
        "real_offset": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    }


def _read_metaclasses(folder: Path) -> np.ndarray:
    position = {name: index for index, name in enumerate(METACLASSES)}
    rows = _read_rows(folder / _FILES["metaclass"])
    return np.array([position.get(row["name"], position["other"]) for row in rows], dtype=np.int64)


# the cache


def _cache_file(folder: Path) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    stats = [(folder / name).stat() for name in _FILES.values()]
    key = repr(
        [_CACHE_VERSION, str(folder.resolve()), *((s.st_size, s.st_mtime_ns) for s in stats)]
    )
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(root) / "lit_ssl" / f"imagenet_x_{digest}.npz"
