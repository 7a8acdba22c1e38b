"""MultiNLI with annotated negations."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.groups.text import GroupTextDataModule, Texts
from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import text_lines
from lit_ssl.json_text import parse_json
from lit_ssl.tables import Table, read_table

__all__ = ["MultiNLIDataModule", "has_negation"]

_NAME = "MultiNLI"
_FILES = tuple(f"multinli_1.0_{part}.jsonl" for part in ("train", "dev_matched", "dev_mismatched"))
_FOLDERS = ("multinli_1.0", "data")
_LABELS = {"contradiction": 0, "entailment": 1, "neutral": 2}
_SPLITS = {"train": 0, "val": 1, "test": 2}
_INDEX = ""  # the column without a name that pandas writes
_NEGATIONS = {"nobody", "no", "never", "nothing"}
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class MultiNLIDataModule(GroupTextDataModule):
    """MultiNLI: does a premise entail a hypothesis? Negations go along with contradiction.

    Expected: ``metadata_random.csv`` of group DRO's release (a column of row numbers, gold_label,
    sentence2_has_negation, split), and the official ``multinli_1.0_train.jsonl``,
    ``multinli_1.0_dev_matched.jsonl`` and ``multinli_1.0_dev_mismatched.jsonl``, which are
    tokenized anew. Row numbers count through these files in this order, pairs without a label
    included. They may lie in ``root``, ``root/data`` or ``root/multinli_1.0``.

    Args:
        root: Folder with these files.
        tokenizer: Folder of a pretrained tokenizer.
        metadata: Name of the file with the splits.
        max_length: Longest pair, in tokens.
        kwargs: Arguments of ``GroupTextDataModule``.
    """

    attribute_names = ("no negation", "negation")

    def __init__(
        self,
        *,
        root: str,
        tokenizer: str,
        metadata: str = "metadata_random.csv",
        max_length: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, max_length=max_length, **kwargs)
        self.root = Path(root).expanduser()
        self.metadata = metadata

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""
        return list(_LABELS)

    def load_rows(self, split: Split) -> Rows:
        """Return the pairs of a split."""
        table, texts, labels, lines = self._content
        chosen = table.codes("split", {"0": 0, "1": 1, "2": 2}) == _SPLITS[split]
        negations = table.codes("sentence2_has_negation", {"0": 0, "1": 1})[chosen]
        columns = {"label": labels[lines[chosen]], "attribute": negations}
        return Rows(texts.select(lines[chosen]), columns)

    @cached_property
    def _content(self) -> tuple[Table, Texts, np.ndarray, np.ndarray]:
        """Metadata, all pairs and their labels, and the pair of each row of the metadata."""
        path = find_file(self.root, [self.metadata], _NAME, _FOLDERS)
        columns = [_INDEX, "gold_label", "sentence2_has_negation", "split"]
        table = read_table(path, columns, _NAME)
        files = [find_file(self.root, [name], _NAME, _FOLDERS) for name in _FILES]
        texts, labels = _read_pairs(files)
        numbers = {str(number): number for number in range(len(texts))}
        lines = table.codes(_INDEX, numbers, f"one of the {len(numbers):,} rows of {_FILES[0]} …")
        stated = table.codes("gold_label", {"0": 0, "1": 1, "2": 2})
        differ = labels[lines] != stated
        if differ.any():
            row = int(np.argmax(differ))
            raise InputError(
                f"{_NAME}: {int(differ.sum()):,} of the {len(stated):,} rows of {path} have another"
                f" label than the pair they name, first line {table.lines[row]}. Use the three"
                " official .jsonl files, complete and unchanged"
            )
        hypotheses = texts.second or ()
        negated = np.array([has_negation(hypotheses[line]) for line in lines])
        other = negated != table.codes("sentence2_has_negation", {"0": 0, "1": 1})
        if other.any():
            rank_zero_warn(
                f"{path} and the hypotheses differ about negation in {int(other.sum()):,} rows;"
                " the file counts"
            )
        return table, texts, labels, lines


def has_negation(sentence: str) -> bool:
    """Whether a sentence holds nobody, no, never or nothing, without regard to punctuation.

    Source: the released code of arXiv 1911.08731; the words are those of arXiv 1803.02324.

    Examples:
        >>> has_negation("No, it isn't."), has_negation("Note that it isn't.")
        (True, False)

    Args:
        sentence: words between spaces.
    """
    words = sentence.translate(_WITHOUT_PUNCTUATION).lower().split(" ")
    return not _NEGATIONS.isdisjoint(words)


def _read_pairs(files: Sequence[Path]) -> tuple[Texts, np.ndarray]:
    """The pairs, one file after the other, and their labels; −1: the annotators did not agree."""
    premises: list[str] = []
    hypotheses: list[str] = []
    labels: list[int] = []
    for path in files:
        for number, line in text_lines(path):
            try:
                content = parse_json(line)
                pair = [content[key] for key in ("gold_label", "sentence1", "sentence2")]
                if not all(isinstance(part, str) for part in pair):
                    raise TypeError(f"one of them is no text: {quoted(pair)}")
                label, first, second = pair
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{_NAME}: line {number} of {path} is no pair ({type(error).__name__}:"
                    f" {error}): expected JSON with gold_label, sentence1 and sentence2. Unpack"
                    " the official archive again"
                ) from error
            premises.append(first)
            hypotheses.append(second)
            labels.append(_LABELS.get(label, -1))
    return Texts(premises, hypotheses), np.array(labels, dtype=np.int64)
