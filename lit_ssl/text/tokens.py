"""Texts to token ids, held in a few arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.text.wordpiece import wordpiece_tokenizer

__all__ = ["Tokens", "load_tokenizer", "mask_token_id", "tokenize", "tokenize_words"]

_CHUNK = 4096


class Tokens(NamedTuple):
    """Tokens of texts, one after the other: a worker shares the arrays, lists would be copied.

    Attributes:
        ids: Integers ``[T]``, in as few bytes as they need.
        types: int8 ``[T]``: which text of a pair; None where the tokenizer does not tell.
        starts: int64 ``[N + 1]``: text ``i`` is ``ids[starts[i]:starts[i + 1]]``.
        padding: The id to fill up with.
        extra: What else is known of each token, ``[T]`` each, such as ``word_ids``; in a batch
            integers are filled up with −1, bool with False.
    """

    ids: np.ndarray
    types: np.ndarray | None
    starts: np.ndarray
    padding: int
    extra: Mapping[str, np.ndarray] = {}

    def batch(self, rows: np.ndarray, width: int | None = None) -> dict[str, Tensor]:
        """Return the tokens of some texts, filled up on the right.

        Args:
            rows: int64 ``[B]``.
            width: Length of the result; None takes that of the longest of these texts.

        Returns:
            ``[B, width]`` each: ``input_ids``, ``attention_mask`` and, where there are types,
            ``token_type_ids``, int64; and what is in ``extra``, int64 or bool.
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
        for name, column in self.extra.items():
            is_flag = column.dtype == bool
            batch[name] = np.full(mask.shape, *((False, bool) if is_flag else (-1, np.int64)))
            batch[name][mask] = column[taken]
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


def mask_token_id(tokenizer: Any, name: str) -> int:
    """Return the id of [MASK].

    Args:
        tokenizer: Of transformers.
        name: What the message calls it, such as its path.

    Raises:
        InputError: It has none.
    """
    if tokenizer.mask_token_id is None:
        raise InputError(
            f"The tokenizer {name} has no [MASK], which masked language modelling needs: take one"
            " that has it, such as that of bert-base-uncased, or add the line [MASK] at the end of"
            " its vocab.txt before any network is trained on it"
        )
    return int(tokenizer.mask_token_id)


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


def tokenize_words(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    is_candidate: Callable[[Sequence[str]], Sequence[bool]] | None = None,
) -> Tokens:
    """Tokenize texts, and say which word each token is of, as maskers need it.

    Args:
        tokenizer: Of transformers, a fast one.
        texts: N texts.
        max_length: Longer ones are cut.
        is_candidate: Says of the words of a text, in order, which ones a masker prefers; asked once
            per text, with all of its words that were not cut off.

    Returns:
        Tokens with ``word_ids`` (the tokenizer's own number of the word in its text; −1 for special
        tokens) and, with ``is_candidate``, ``candidates`` (bool).

    Raises:
        InputError: The tokenizer cannot tell words, or ``is_candidate`` says too little.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} cannot tell which word a token is of: use the fast"
            " tokenizer (tokenizer.json) of the same model"
        )
    ids: list[np.ndarray] = []
    words: list[np.ndarray] = []
    chosen: list[np.ndarray] = []
    for begin in range(0, len(texts), _CHUNK):
        part = list(texts[begin : begin + _CHUNK])
        for text, found in zip(
            part, tokenizer(part, truncation=True, max_length=max_length).encodings, strict=True
        ):
            ids.append(np.array(found.ids, dtype=np.int32))
            word_ids = np.array(
                [-1 if word is None else word for word in found.word_ids], dtype=np.int16
            )
            words.append(word_ids)
            if is_candidate is not None:
                chosen.append(_candidates(text, found.offsets, word_ids, is_candidate))
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    extra = {"word_ids": np.concatenate([np.empty(0, np.int16), *words])}
    if is_candidate is not None:
        extra["candidates"] = np.concatenate([np.empty(0, bool), *chosen])
    flat = np.concatenate([np.empty(0, np.int32), *ids])
    return Tokens(flat, None, starts, tokenizer.pad_token_id, extra)


def _candidates(
    text: str,
    offsets: Sequence[tuple[int, int]],
    word_ids: np.ndarray,
    is_candidate: Callable[[Sequence[str]], Sequence[bool]],
) -> np.ndarray:
    """Which tokens of a text are of a preferred word, bool ``[T]``."""
    numbers, first, of_token = np.unique(word_ids, return_index=True, return_inverse=True)
    last = len(word_ids) - 1 - np.unique(word_ids[::-1], return_index=True)[1]
    real = numbers >= 0
    ends = zip(first[real], last[real], strict=True)
    words = [text[offsets[a][0] : offsets[b][1]] for a, b in ends]
    flags = list(is_candidate(words)) if words else []
    if len(flags) != len(words):
        raise InputError(
            f"The tags of {text[:60]!r} are {len(flags)} for its {len(words)} words: give one each"
        )
    of_word = np.zeros(len(numbers), dtype=bool)
    of_word[real] = flags
    return of_word[of_token]
