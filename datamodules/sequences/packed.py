"""Sequences of token ids in memory, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_ssl.text.tokens import Tokens

__all__ = ["PackedSequences"]


@dataclass(frozen=True, eq=False)
class PackedSequences:
    """Sequences of bytes or symbols: a source of rows, in one byte per token where ids allow it.

    Args:
        tokens: The ids of N sequences; some may be empty.
        names: Their names, such as paths below ``folder``; None: they have none.
        folder: Where they were read, for messages; None: nowhere.
        width: Length of batches; None: that of the longest sequence of each.
    """

    tokens: Tokens
    names: Sequence[str] | None = None
    folder: Path | None = None
    width: int | None = None

    @classmethod
    def of_bytes(
        cls,
        sequences: Iterable[bytes],
        padding: int,
        names: Sequence[str] | None = None,
        folder: Path | None = None,
    ) -> PackedSequences:
        """Pack sequences whose ids are bytes.

        Args:
            sequences: Iterated once.
            padding: The id to fill up with; it may be larger than a byte.
            names: Their names.
            folder: Where they were read.
        """
        packed = bytearray()
        starts = [0]
        for sequence in sequences:
            packed += sequence
            starts.append(len(packed))
        ids = np.frombuffer(packed, dtype=np.uint8)
        return cls(Tokens(ids, None, np.array(starts, dtype=np.int64), padding), names, folder)

    def __len__(self) -> int:
        return len(self.tokens.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64 ``[N]``."""
        return np.diff(self.tokens.starts)

    def name(self, row: int) -> str | None:
        """Return the name of a sequence, None if it has none.

        Args:
            row: number of the sequence.
        """
        return None if self.names is None else self.names[row]

    def select(self, rows: np.ndarray) -> PackedSequences:
        """Return the sequences at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """
        names = None if self.names is None else [self.names[row] for row in rows]
        starts = self.tokens.starts
        return replace(self, tokens=self._parts(starts[rows], starts[rows + 1]), names=names)

    def cut(self, length: int) -> PackedSequences:
        """Return the beginnings of the sequences, at most ``length`` tokens of each.

        Args:
            length: in tokens.
        """
        starts = self.tokens.starts[:-1]
        return replace(self, tokens=self._parts(starts, starts + self.lengths.clip(max=length)))

    def read_batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return some sequences, filled up on the right.

        An empty one shows one token, the padding: attention over none would be undefined.

        Args:
            rows: int64 ``[B]``.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``[B, L]`` each, L >= 1.
        """
        lengths = self.tokens.starts[rows + 1] - self.tokens.starts[rows]
        width = self.width or max(int(lengths.max(initial=0)), 1)
        batch = self.tokens.batch(rows, width)
        batch["attention_mask"][torch.from_numpy(lengths == 0), 0] = 1
        return batch

    def _parts(self, starts: np.ndarray, ends: np.ndarray) -> Tokens:
        ids = self.tokens.ids
        parts = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
        flat = np.concatenate(parts) if parts else ids[:0]
        bounds = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        return self.tokens._replace(ids=flat, starts=bounds)
