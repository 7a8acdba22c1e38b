"""Texts as the bytes of their UTF-8, in the layout of aclImdb."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import visible_folders
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.sequences.packed import PackedSequences
from lit_ssl.datamodules.sequences.sequence_module import SequenceModule
from lit_ssl.errors import InputError, listed
from lit_ssl.files import layout_error
from lit_ssl.opening import open_file, text_encoding

__all__ = ["ByteTextDataModule"]

_NAME = "aclImdb"
_CLASSES = ("neg", "pos")


class ByteTextDataModule(SequenceModule):
    """Reviews as bytes, in the layout of the Large Movie Review Dataset: is a text positive?

    Expected: ``train/pos/*.txt``, ``train/neg/*.txt``, ``test/pos/*.txt`` and ``test/neg/*.txt`` in
    ``root`` or in its folder ``aclImdb``. Texts are the bytes of their files, without a byte-order
    mark; files in UTF-16 with its mark become UTF-8. Unlabelled reviews (``train/unsup``) are left
    out. Rows are sorted by class and name.

    Args:
        root: Folder with these files.
        max_length: Longest text, in bytes; longer ones are cut. Long Range Arena's base
            configuration has 1000; its reported task is said to use 4000.
        val_size: Number of training texts held out for validation; the data set has none of its
            own, and 0 validates on its test texts.
        kwargs: Arguments of ``SequenceModule``.
    """

    inputs = "texts"
    tokens = "bytes"
    vocab_size = 257  # bytes, and padding
    pad_id = 256
    class_names = _CLASSES

    def __init__(
        self, *, root: str, max_length: int = 4096, val_size: int = 2500, **kwargs: Any
    ) -> None:
        super().__init__(max_length=max_length, val_size=val_size, **kwargs)
        self.root = Path(root).expanduser()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the texts of train or test; there is no own validation split."""
        if split == "val":
            return None
        folder = find_file(self.root, [split], _NAME, ["aclImdb"])
        unlabelled = folder / "unsup"
        if unlabelled.is_dir():
            rank_zero_info(f"{_NAME}: the unlabelled texts of {unlabelled} are left out")
        if others := sorted(set(visible_folders(folder)) - {*_CLASSES, "unsup"}):
            rank_zero_warn(
                f"{_NAME}: {folder} has other folders than {' and '.join(_CLASSES)}, which are left"
                f" out: {listed(others)}"
            )
        names: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(_CLASSES):
            found = _texts_in(folder / name)
            names += [f"{name}/{file}" for file in found]
            labels += [label] * len(found)
        texts = (_utf8(folder / name) for name in names)
        source = PackedSequences.of_bytes(texts, self.pad_id, names, folder)
        return Rows(source, {"label": np.array(labels, dtype=np.int64)})


def _texts_in(folder: Path) -> list[str]:
    """Sorted names of the texts of a class."""
    entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    texts = [name for name in entries if name.endswith(".txt") and not name.startswith(".")]
    if not texts:
        raise layout_error(_NAME, folder, f"texts {folder}/*.txt")
    if others := sorted(set(entries) - set(texts)):
        rank_zero_warn(
            f"{_NAME}: {len(others):,} entries of {folder} are no texts (*.txt) and are left out:"
            f" {listed(others)}"
        )
    return texts


def _utf8(path: Path) -> bytes:
    """The bytes of a text, which are not decoded unless a mark says that they are no UTF-8."""
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(
            f"{_NAME}: cannot read {path} ({error.strerror or error}): mend it, or take it out"
        ) from error
    encoding = text_encoding(content[:4])
    if encoding == "utf-8-sig":
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(encoding).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text in {encoding}, which its byte-order mark says ({error})"
        ) from error
