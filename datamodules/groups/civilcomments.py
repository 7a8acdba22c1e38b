"""CivilComments in the layout of WILDS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules.groups.text import GroupTextDataModule, Texts
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.tables import Table, read_table

__all__ = ["CivilCommentsDataModule"]

_NAME = "CivilComments"
_FILE = "all_data_with_identities.csv"
_SPLITS = {"train": 0, "val": 1, "test": 2}
_IDENTITIES = (
    "male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white",
)  # fmt: skip


class CivilCommentsDataModule(GroupTextDataModule):
    """CivilComments: is a comment toxic? Comments that mention an identity are so more often.

    Expected: ``all_data_with_identities.csv`` of WILDS. A comment is toxic, and mentions an
    identity, from a value of 0.5. Training groups are whether any identity is mentioned × class, 4
    in all. Evaluation is, by custom, on 16 groups that overlap: each of the eight identities ×
    class; validation and test batches carry them as bool ``[B, 16]``, identity i and class y at 2 i
    + y.

    Args:
        root: Folder with that file.
        tokenizer: Folder of a pretrained tokenizer.
        attribute: Column that makes the training groups: ``identity_any`` or one of the identities.
        max_length: Longest comment, in tokens.
        kwargs: Arguments of ``GroupTextDataModule``.

    Raises:
        InputError: The attribute is none of the identities.
    """

    class_names = ("non-toxic", "toxic")

    def __init__(
        self,
        *,
        root: str,
        tokenizer: str,
        attribute: str = "identity_any",
        max_length: int = 220,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, max_length=max_length, **kwargs)
        known = ["identity_any", *_IDENTITIES]
        if attribute not in known:
            raise InputError(
                f"attribute {attribute!r} is no identity.{did_you_mean(attribute, known)}"
            )
        self.root = Path(root).expanduser()
        self.attribute = attribute
        self.eval_group_names = [
            f"{identity}, {label}" for identity in _IDENTITIES for label in self.class_names
        ]

    @property
    def attribute_names(self) -> Sequence[str]:
        """Without and with a mention of an identity."""
        if self.attribute == "identity_any":
            return ["no identity", "identity"]
        return [f"not {self.attribute}", self.attribute]

    def load_rows(self, split: Split) -> Rows:
        """Return the comments of a split."""
        table = self._table
        columns = {
            "label": (table.numbers("toxicity") >= 0.5).astype(np.int64),
            "attribute": (table.numbers(self.attribute) >= 0.5).astype(np.int64),
            "identity": np.stack([table.numbers(name) >= 0.5 for name in _IDENTITIES], axis=1),
        }
        splits = table.codes("split", _SPLITS, "train, val or test")
        comments = Rows(Texts(table.columns["comment_text"]), columns)
        return comments.select(np.flatnonzero(splits == _SPLITS[split]))

    def identity_array(self, split: Split) -> np.ndarray:
        """Return which of the eight identities the comments of a split mention: bool ``[N, 8]``.

        Args:
            split: which split.
        """
        return self.column("identity", split)

    def eval_group_array(self, split: Split) -> np.ndarray:
        """Return which of the 16 evaluation groups the comments are in: bool ``[N, 16]``."""
        classes = self.labels(split)[:, None, None] == np.arange(2)
        return (self.identity_array(split)[:, :, None] & classes).reshape(-1, 16)

    @cached_property
    def _table(self) -> Table:
        columns = ["comment_text", "split", "toxicity", "identity_any", *_IDENTITIES]
        return read_table(self.root / _FILE, columns, _NAME)
