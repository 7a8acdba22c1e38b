"""Texts to token ids, held in a few arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.text.wordpiece import wordpiece_tokenizer

__all__ = [
    "Tokens",
    "WordColumn",
    "load_tokenizer",
    "mask_token_id",
    "tokenize",
    "tokenize_words",
    "vocabulary_fingerprint",
]

_CHUNK = 4096
WordColumn = Callable[[Sequence[str]], Sequence[bool | int]]


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
            or the file of a vocabulary of BERT's, as in ``wordpiece_tokenizer``.

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
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        if os.path.exists(path):
            reason = f"transformers says: {' '.join(str(error).split())[:200]}"
        else:  # it would say that there is no connection, though none was tried
            reason = "There is no such path, and nothing is downloaded"
        raise InputError(
            f"No tokenizer at {path!r}: expected the file of a vocabulary (vocab.txt), or a folder"
            " with the files of a pretrained tokenizer (such as tokenizer.json, or vocab.txt, with"
            f" config.json), for example that of bert-base-uncased. {reason}"
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


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """Return a hash of which token has which id, to tell vocabularies of one size apart.

    Args:
        tokenizer: Of transformers.
    """
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    text = json.dumps(entries, ensure_ascii=False)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


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
    word_columns: Mapping[str, WordColumn] | None = None,
) -> Tokens:
    """Tokenize texts, and say which word each token is of, as maskers need it.

    Args:
        tokenizer: Of transformers, a fast one.
        texts: N texts.
        max_length: Longer ones are cut.
        word_columns: What else to know of each word: name → function from the words of a text,
            normalised as the tokenizer does and without those that were cut off, to a bool or an
            integer from 0 for each. For maskers: ``candidates`` (bool), the words that some prefer,
            and ``unit_ids``, the collocation of each.

    Returns:
        Tokens with ``word_ids`` (the tokenizer's own number of the word in its text; −1 for special
        tokens) and these columns (special tokens: False or −1).

    Raises:
        InputError: The tokenizer cannot tell words, or a function says too little.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} cannot tell which word a token is of: use the fast"
            " tokenizer (tokenizer.json) of the same model"
        )
    normalizer = tokenizer.backend_tokenizer.normalizer
    normalize = normalizer.normalize_str if normalizer is not None else str
    functions = dict(word_columns or {})
    ids: list[np.ndarray] = [np.empty(0, np.int32)]
    lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
    columns = {name: _Column() for name in ("word_ids", *functions)}
    for begin in range(0, len(texts), _CHUNK):
        part = list(texts[begin : begin + _CHUNK])
        found = tokenizer(part, truncation=True, max_length=max_length).encodings
        values: dict[str, list[Any]] = {name: [] for name in columns}
        for text, encoding in zip(part, found, strict=True):
            numbers = encoding.word_ids
            values["word_ids"] += numbers
            if not functions:
                continue
            known, words = _words(text, encoding.offsets, numbers)
            words = [normalize(word) for word in words]
            for name, function in functions.items():
                told = list(function(words))
                if len(told) != len(words):
                    raise InputError(
                        f"{name} of {text[:60]!r}: {len(told)} values for {len(words)} words;"
                        " give one for each"
                    )
                of_word = dict(zip(known, told, strict=True))
                values[name] += [of_word.get(number) for number in numbers]
        # Arrays at once: lists of all tokens would need several times their memory.
        ids.append(np.array([id for encoding in found for id in encoding.ids], dtype=np.int32))
        lengths.append(np.array([len(encoding.ids) for encoding in found], dtype=np.int64))
        for name, column in columns.items():
            column.add(values[name])
    starts = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    extra = {name: column.array() for name, column in columns.items()}
    return Tokens(np.concatenate(ids), None, starts, tokenizer.pad_token_id, extra)


class _Column:
    """Values of tokens, bool or int16 ``[T]``, with False or −1 in place of None."""

    def __init__(self) -> None:
        self._parts = [np.empty(0, dtype=np.int16)]
        self._are_flags: bool | None = None  # None: no value is known so far

    def add(self, values: Sequence[bool | int | None]) -> None:
        """Take the values of further tokens."""
        known = [value for value in values if value is not None]
        if known:
            flags = all(isinstance(value, bool | np.bool_) for value in known)
            self._are_flags = flags and self._are_flags is not False
        self._parts.append(np.array([-1 if v is None else v for v in values], dtype=np.int16))

    def array(self) -> np.ndarray:
        """Return all values."""
        values = np.concatenate(self._parts)
        return values == 1 if self._are_flags else values


def _words(
    text: str, offsets: Sequence[tuple[int, int]], numbers: Sequence[int | None]
) -> tuple[list[int], list[str]]:
    """Numbers and texts of the words that tokens are of, in order."""
    spans: dict[int, tuple[int, int]] = {}
    for number, (begin, end) in zip(numbers, offsets, strict=True):
        if number is not None:
            spans[number] = (spans.get(number, (begin, end))[0], end)
    return list(spans), [text[begin:end].strip() for begin, end in spans.values()]
