"""ListOps, the benchmark of nested operations on lists of digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.sequences.packed import PackedSequences
from lit_ssl.datamodules.sequences.sequence_module import SequenceModule
from lit_ssl.errors import InputError
from lit_ssl.text.listops import SYMBOLS, ListOpsRules, distinct_expressions, evaluate
from lit_ssl.text.listops_files import file_name, read_expressions, write_expressions

__all__ = ["ListOpsDataModule"]

_NAME = "ListOps"
_FOLDERS = ("listops-1000", "lra_release/listops-1000")
_WORTH_A_LINE = 10_000


class ListOpsDataModule(SequenceModule):
    """ListOps of Long Range Arena: the value of an expression such as [MAX 2 [SM 9 4 ] 3 ].

    With ``root``, the benchmark's files ``basic_train.tsv``, ``basic_val.tsv`` and
    ``basic_test.tsv`` are read, in it, in ``listops-1000`` or in ``lra_release/listops-1000``; all
    values are worked out again. Without it, expressions are drawn by the benchmark's rules
    (``lit_ssl.text.listops``), about half a minute for the 96,000 of the benchmark. They depend on
    ``expression_seed`` alone, not on the seed of the run; none comes twice, in any split.

    The ids are 0 for padding, 1 to 10 for the digits 0 to 9, 11 to 14 for [MIN, [MAX, [MED and [SM,
    and 15 for the closing bracket; parentheses are no symbols. Classes are the values 0 to 9.
    Source: arXiv 2011.04006 and its published generator.

    Args:
        root: Folder with the files; None draws the expressions.
        cache_dir: Folder in which drawn expressions are kept, as files of the benchmark's form in a
            folder named for all that they depend on (650 MB for those of the benchmark). None
            draws them anew in each process.
        sizes: Expressions of train, val and test, if they are drawn.
        min_length: Drawn expressions have more symbols than this; brackets count.
        max_length: Drawn expressions have fewer symbols than this. Files may hold expressions of up
            to so many; longer ones are refused, since a part of an expression has another value.
        max_depth: Deepest level of drawn expressions, from 1.
        max_args: Most arguments of an operator in them.
        expression_seed: Seed of what is drawn.
        kwargs: Arguments of ``SequenceModule``.

    Raises:
        InputError: ``root`` and ``cache_dir`` are both given, or a size lies out of its range.
    """

    inputs = "expressions"
    tokens = "symbols"
    vocab_size = len(SYMBOLS)
    pad_id = 0
    class_names = tuple("0123456789")

    def __init__(
        self,
        *,
        root: str | None = None,
        cache_dir: str | None = None,
        sizes: Sequence[int] = (96_000, 2000, 2000),
        min_length: int = 500,
        max_length: int = 2000,
        max_depth: int = 10,
        max_args: int = 10,
        expression_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_length=max_length, **kwargs)
        if root is not None and cache_dir is not None:
            raise InputError("root has the expressions: leave out cache_dir, where drawn ones go")
        if len(sizes) != 3 or min(sizes) < 0 or sizes[0] < 1:
            raise InputError(
                "sizes are those of train (at least 1), val and test (at least 0), such as [96000,"
                f" 2000, 2000], not {list(sizes)}"
            )
        self.root = None if root is None else Path(root).expanduser()
        self.sizes = dict(zip(("train", "val", "test"), sizes, strict=True))
        self.expression_seed = expression_seed
        self.cache_folder = None
        if root is None:
            self.rules = ListOpsRules(min_length, max_length, max_depth, max_args)
            if cache_dir is not None:
                self.cache_folder = Path(cache_dir).expanduser() / self._cache_name()

    def prepare_data(self) -> None:
        """Draw the expressions that ``cache_dir`` is to keep and does not have."""
        if self.cache_folder is None:
            return
        for split, size in self.sizes.items():
            path = self.cache_folder / file_name(split)
            if size and not path.is_file():
                rank_zero_info(f"Drawing {size:,} ListOps expressions for {path}")
                try:
                    write_expressions(path, self._drawn(split))
                except OSError as error:
                    raise InputError(
                        f"cannot write {path} ({error.strerror or error}): set cache_dir to a"
                        " folder where files can be written and that has room for them, or leave it"
                        " out"
                    ) from error

    def load_rows(self, split: Split) -> Rows | None:
        """Return the expressions of a split; None for an empty one."""
        if self.root is not None:
            return self._read(find_file(self.root, [file_name(split)], _NAME, _FOLDERS))
        size = self.sizes[split]
        if not size:
            return None
        if self.cache_folder is not None:
            self.prepare_data()
            rows = self._read(self.cache_folder / file_name(split))
            if len(rows) != size:
                raise InputError(
                    f"{self.cache_folder / file_name(split)} holds {len(rows):,} expressions"
                    f" instead of {size:,}: delete it, so that they are drawn again"
                )
            return rows
        if size >= _WORTH_A_LINE:
            rank_zero_info(f"Drawing {size:,} ListOps expressions; cache_dir would keep them")
        expressions = list(self._drawn(split))
        return self._rows(expressions, [evaluate(symbols) for symbols in expressions])

    def shortened(self, source: PackedSequences, split: Split, longer: int) -> PackedSequences:
        """Refuse expressions that are too long: their beginnings have no value."""
        raise InputError(
            f"{longer:,} of {len(source):,} {split} expressions have more than max_length ="
            f" {self.max_length:,} symbols, and a part of an expression has another value: set"
            f" max_length to at least {int(source.lengths.max()):,}"
        )

    def _drawn(self, split: str) -> Any:
        return distinct_expressions(self.rules, split, self.sizes, self.expression_seed)

    def _read(self, path: Path) -> Rows:
        expressions, values = read_expressions(path)
        return self._rows(expressions, values, path.parent)

    def _rows(
        self, expressions: list[bytes], values: list[int], folder: Path | None = None
    ) -> Rows:
        source = PackedSequences.of_bytes(expressions, self.pad_id, folder=folder)
        return Rows(source, {"label": np.array(values, dtype=np.int64)})

    def _cache_name(self) -> str:
        rules, sizes = self.rules, "-".join(map(str, self.sizes.values()))
        return (
            f"listops_{sizes}_length{rules.min_length}-{rules.max_length}_depth{rules.max_depth}"
            f"_args{rules.max_args}_seed{self.expression_seed}"
        )
