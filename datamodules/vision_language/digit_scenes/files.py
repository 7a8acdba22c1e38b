"""Statements on scenes of digits in the official layout of NLVR2: a small data set to try on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.digit_scenes.scenes import DigitScenesNLVR2DataModule
from lit_ssl.datamodules.vision_language.digit_scenes.statements import PAIRS
from lit_ssl.datamodules.vision_language.digit_scenes.text import PIECES
from lit_ssl.datamodules.vision_language.image_pairs import ArrayPairs
from lit_ssl.errors import InputError
from lit_ssl.files import write_file

__all__ = ["write_nlvr2_layout"]

_OFFICIAL: dict[Split, str] = {"train": "train", "val": "dev", "test": "test1"}
_DIRECTORIES = 100  # of training images


def write_nlvr2_layout(
    folder: str | Path, sizes: Sequence[int] = (40, 12, 12), scene_seed: int = 0
) -> Path:
    """Write statements on scenes of digits as NLVR2's files, for ``NLVR2DataModule``.

    ``train.json``, ``dev.json``, ``test1.json`` (JSON lines with the official fields),
    ``balanced/`` and ``unbalanced/`` (here the statements with even and with odd numbers), the
    images ``images/train/<directory>/``, ``dev/`` and ``test1/``, and ``vocab.txt``, the 73 pieces.
    The rows are those of ``DigitScenesNLVR2DataModule`` with the same sizes and seed, in order.

    Args:
        folder: Where to write; made if need be. There must be no ``train.json`` yet.
        sizes: Statements of train, dev and test1, four rows each.
        scene_seed: Seed of statements and scenes.

    Returns:
        The folder: ``root`` of ``NLVR2DataModule``.

    Raises:
        InputError: The folder has such files already.
    """
    folder = Path(folder).expanduser()
    if (folder / "train.json").exists():
        raise InputError(f"{folder} has a train.json already: name another folder, or delete it")
    data = DigitScenesNLVR2DataModule(sizes=sizes, scene_seed=scene_seed)
    write_file(folder / "vocab.txt", lambda file: file.write("".join(f"{p}\n" for p in PIECES)))
    # train.json last: where it is, all is there.
    for split in ("test", "val", "train"):
        _write_split(folder, data, split)
    return folder


def _write_split(folder: Path, data: DigitScenesNLVR2DataModule, split: Split) -> None:
    name = _OFFICIAL[split]
    rows = data.load_rows(split)
    if rows is None:
        return
    assert isinstance(rows.source, ArrayPairs)
    lines = []
    for row, (text, label) in enumerate(zip(rows.source.texts, rows.labels, strict=True)):
        statement, pair = divmod(row, PAIRS)
        directory = statement % _DIRECTORIES if name == "train" else None
        stem = f"{name}-{statement}-{pair}"
        below = folder / "images" / "train" / str(directory) if name == "train" else folder / name
        for side, pixels in enumerate(rows.source.read(row)):
            _write_png(below / f"{stem}-img{side}.png", pixels)
        lines.append(_line(f"{stem}-0", text, bool(label), directory))
    if name != "train":
        for part, first in (("balanced", 0), ("unbalanced", 1)):
            own = [line for row, line in enumerate(lines) if row // PAIRS % 2 == first]
            _write_lines(folder / part / f"{part}_{name}.json", own)
    _write_lines(folder / f"{name}.json", lines)


def _line(identifier: str, text: str, is_true: bool, directory: int | None) -> dict[str, Any]:
    stem = identifier.rpartition("-")[0]
    fields: dict[str, Any] = {
        "validation": {"0": str(is_true)},
        "sentence": text,
        "left_url": f"drawn:{stem}-img0",
        "right_url": f"drawn:{stem}-img1",
        "writer": 0,
        "label": str(is_true),
        "synset": "digit",
        "query": "digit0",
        "identifier": identifier,
    }
    if directory is None:
        return {**fields, "extra_validations": {}}
    return {**fields, "directory": directory}


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    write_file(path, lambda file: file.writelines(f"{json.dumps(line)}\n" for line in lines))


def _write_png(path: Path, pixels: Tensor) -> None:
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    write_file(path, lambda file: image.save(file, "PNG"), binary=True)
