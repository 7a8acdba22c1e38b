"""SNLI-VE in its official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.json_entries import is_text, json_lines
from lit_ssl.datamodules.vision_language.tasks.image_questions import ImageQuestionModule
from lit_ssl.errors import InputError, quoted
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece

__all__ = ["SNLIVEDataModule"]

_NAME = "SNLI-VE"
_CLASSES = ("contradiction", "neutral", "entailment")
_UNDECIDED = "-"  # no label has a majority, as in SNLI


class SNLIVEDataModule(ImageQuestionModule):
    """SNLI-VE: does a photograph entail a hypothesis, contradict it, or neither?

    Expected in ``root``: ``snli_ve_train.jsonl``, ``snli_ve_dev.jsonl`` and ``snli_ve_test.jsonl``
    (a JSON object a line, of which ``Flickr30K_ID``, ``sentence2`` and ``gold_label`` are read);
    the images of Flickr30k below ``images/``, ``root`` itself or ``images_root``, in
    ``flickr30k-images/<Flickr30K_ID>.jpg``. The premise in words is not read: the image is it.

    A batch is ``(inputs, labels)``: inputs as of ``ImageQuestionModule``, labels int64 ``[B]``: 0
    contradiction, 1 neutral, 2 entailment, as in METER. Validation is on dev. Rows whose label is
    "-" are left out, and a warning says how many.

    Args:
        root: Folder with the files.
        tokenizer: "bytes", a folder with a tokenizer, a ``vocab.txt``, or a ``CorpusWordPiece``;
            see ``ImageTextModule``.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageQuestionModule`` and ``ImageTextModule``.
    """

    data_set: ClassVar[str] = _NAME
    inputs: ClassVar[str] = "hypotheses"
    class_names = _CLASSES

    def __init__(
        self, *, root: str, tokenizer: str | CorpusWordPiece, num_workers: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(root=root, tokenizer=tokenizer, num_workers=num_workers, **kwargs)

    def load_rows(self, split: Split) -> Rows:
        """Return the hypotheses of a split whose images are there."""
        part = "dev" if split == "val" else split
        path = find_file(self.root, [f"snli_ve_{part}.jsonl"], _NAME)
        found = _read(path)
        source, kept = self.questioned_images(
            [f"flickr30k-images/{image}.jpg" for image in found.images],
            found.texts,
            found.names,
            str(path),
        )
        return Rows(source, {"label": np.array(found.labels, dtype=np.int64)[kept]})


class _Hypotheses(NamedTuple):
    images: list[str]  # the stems of their files
    texts: list[str]
    labels: list[int]
    names: list[str]


def _read(path: Path) -> _Hypotheses:
    found = _Hypotheses([], [], [], [])
    undecided = 0
    for number, row in json_lines(path, "a hypothesis"):
        text, image, label = (row.get(key) for key in ("sentence2", "Flickr30K_ID", "gold_label"))
        where = f"{path}, line {number}"
        if not is_text(text):
            raise InputError(f"{where}: expected a text in sentence2, found {quoted(text)}")
        # Only a stem can be meant: a file elsewhere is none of Flickr30k's.
        if not isinstance(image, str) or not image.isascii() or not image.isalnum():
            raise InputError(
                f"{where}: expected the name of an image without its ending in Flickr30K_ID, found"
                f" {quoted(image)}"
            )
        if label == _UNDECIDED:
            undecided += 1
            continue
        if label not in _CLASSES:
            raise InputError(
                f"{where}: expected {', '.join(_CLASSES)} or {_UNDECIDED} in gold_label, found"
                f" {quoted(label)}"
            )
        pair = row.get("pairID")
        found.images.append(image)
        found.texts.append(text)
        found.labels.append(_CLASSES.index(label))
        found.names.append(pair if isinstance(pair, str) and pair else f"{image}.jpg#{number}")
    if not found.texts:
        raise InputError(f"{path}: no hypothesis has a label. Take the official file")
    if undecided:
        rank_zero_warn(
            f"{_NAME}: {undecided:,} of {undecided + len(found.texts):,} rows of {path} have the"
            f" label {_UNDECIDED!r}, on which annotators did not agree, and are left out"
        )
    return found
