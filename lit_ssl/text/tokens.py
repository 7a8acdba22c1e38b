"""Texts to token ids, held in a few arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.text.wordpiece import wordpiece_tokenizer

__all__ = ["Tokens", "load_tokenizer", "tokenize"]

_CHUNK = 4096


class Tokens(NamedTuple):
    """Tokens of texts, one after the other: a worker shares the arrays, lists would be copied.

    Attributes:
        ids: Integers ``[T]``, in as few bytes as they need.
        types: int8 ``[T]``: which text of a pair; None where the tokenizer does not tell.
        starts: int64 ``[N + 1]``: text ``i`` is ``ids[starts[i]:starts[i + 1]]``.
        padding: The id to fill up with.
    """

    ids: np.ndarray
    types: np.ndarray | None
    starts: np.ndarray
    padding: int

    def batch(self, rows: np.ndarray, width: int | None = None) -> dict[str, Tensor]:
        """Return the tokens of some texts, filled up on the right.

        Args:
            rows: int64 ``[B]``.
            width: Length of the result; None takes that of the longest of these texts.

        Returns:
            int64 ``[B, width]`` each: ``input_ids``, ``attention_mask`` and, where there are types,
            ``token_type_ids``.
        """
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        places = np.arange(int(lengths.max(initial=0)) if width is None else width)
        mask = places < lengths[:, None]
        taken = (starts[:, None] + places)[mask]
        ids = np.full(mask.shape, self.padding, dtype=np.int64)
        ids[mask] = self.ids[taken]
        batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.types is not None:
            batch["token_type_ids"] = np.zeros(mask.shape, dtype=np.int64)
            batch["token_type_ids"][mask] = self.types[taken]
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def load_tokenizer(path: str) -> Any:
    """Load a tokenizer of transformers from this machine; nothing is downloaded.

    Args:
        path: Folder with the files of a tokenizer, or the name of one in transformers' own cache;
            or the file of a vocabulary of BERT's, as in :func:`wordpiece_tokenizer`.

    Raises:
        ImportError: transformers is not installed.
        InputError: There is no such tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise InputImportError(
            "Text needs the package transformers: pip install 'lit-ssl[hf]'"
        ) from error
    if os.path.isfile(path):
        return wordpiece_tokenizer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"No tokenizer at {path!r}: expected a folder with the files of a pretrained one (such"
            " as tokenizer.json, or vocab.txt, with config.json), for example that of"
            f" bert-base-uncased. transformers says: {reason}"
        ) from error
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer at {path!r} has no padding token, so that texts of different lengths"
            " cannot make a batch. Use that of an encoder such as bert-base-uncased"
        )
    return tokenizer


def tokenize(
    tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, max_length: int
) -> Tokens:
    """Tokenize texts, or pairs of texts, once.

    Args:
        tokenizer: Of transformers.
        first: N texts.
        second: N texts that go with them, or None.
        max_length: Longer ones are cut; of a pair the longer text loses its end first.
    """
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    for begin in range(0, len(first), _CHUNK):
        texts = [list(part[begin : begin + _CHUNK]) for part in (first, second) if part is not None]
        found = tokenizer(
            *texts, truncation=True, max_length=max_length, return_attention_mask=False
        )
        lengths += map(len, found["input_ids"])
        ids += [np.array(row, dtype=np.int32) for row in found["input_ids"]]
        types += [np.array(row, dtype=np.int8) for row in found.get("token_type_ids", [])]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    flat = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
    return Tokens(flat, np.concatenate(types) if types else None, starts, tokenizer.pad_token_id)
