"""Masked batches from texts or tokens in a DataLoader's workers, for any training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_ssl.errors import InputError
from lit_ssl.text.masking.caption_words import encoded_words, token_columns
from lit_ssl.text.masking.corruption import (
    check_replacement,
    corrupt,
    prediction_subset,
    replacement_units,
)
from lit_ssl.text.masking.maskers import Masker, checked_mask
from lit_ssl.text.shares import check_rate

__all__ = ["MaskingCollator"]

# What is only needed to choose the mask, with what it is filled up.
_COLUMNS = {"attention_mask": 0, "special_tokens_mask": 1, "word_ids": -1, "unit_ids": -1,
            "candidates": 0, "token_type_ids": 0}  # fmt: skip
_DROPPED = ("labels", "offset_mapping", "overflow_to_sample_mapping", "length")


class MaskingCollator:
    """Makes masked batches, as transformers' collator for language modelling does, by any masker.

    An example is a text, or a dictionary with ``input_ids`` and, where the masker asks for them,
    ``word_ids`` (as ``BatchEncoding.word_ids(i)`` gives them), ``unit_ids`` and ``candidates``;
    with texts these are made here, by the masker's ``vocabulary`` and ``tagger``. Batches have
    ``input_ids``, ``attention_mask``, ``labels`` (−100 where nothing is to be predicted) and
    ``token_type_ids`` where the tokenizer has them; other entries of examples, such as pixels, are
    stacked.

    The random numbers are those of torch in this process: a DataLoader seeds them for each worker
    and epoch. Masks that are the same with any number of workers and after a resume are made in
    the training step instead, with [`step_generator`][lit_ssl.text.step_generator].

    Args:
        tokenizer: Of transformers, with a mask and a padding token.
        masker: Chooses the tokens, see [`Masker`][lit_ssl.text.Masker].
        mask_replace_prob: Share of the chosen tokens that becomes [MASK].
        random_replace_prob: Share that becomes a random token.
        prediction_rate: Share of maskable tokens to predict, at most the masker's rate; None: all
            that are masked.
        replace_per_unit: Whether spans, collocations or words share one draw of what stands in
            their place.
        max_length: Longer texts are cut; None: the tokenizer's own limit.

    Raises:
        InputError: The tokenizer has no [MASK], or a value is out of range; in a call: the
            examples lack what the masker asks for.

    Examples:
        >>> collator = MaskingCollator(tokenizer, WholeWordMasker(0.15))  # doctest: +SKIP
        >>> DataLoader(captions, batch_size=64, collate_fn=collator)  # doctest: +SKIP
    """

    def __init__(
        self,
        tokenizer: Any,
        masker: Masker,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
        prediction_rate: float | None = None,
        replace_per_unit: bool = False,
        max_length: int | None = None,
    ) -> None:
        check_replacement(mask_replace_prob, random_replace_prob)
        for name in ("mask", "pad"):
            if getattr(tokenizer, f"{name}_token_id") is None:
                raise InputError(
                    f"the tokenizer has no {name} token: masked language modelling needs one with"
                    " [MASK] and [PAD], such as BERT's"
                )
        if prediction_rate is not None:
            rate = getattr(masker, "rate", 1.0)
            if check_rate("prediction_rate", prediction_rate) > rate:
                raise InputError(
                    f"prediction_rate {prediction_rate} must be at most the masker's rate {rate}:"
                    " only masked tokens are predicted"
                )
        self.tokenizer, self.masker = tokenizer, masker
        self.mask_replace_prob, self.random_replace_prob = mask_replace_prob, random_replace_prob
        self.prediction_rate, self.replace_per_unit = prediction_rate, replace_per_unit
        self.max_length = max_length

    def __call__(
        self, examples: Sequence[Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            examples: B texts or dictionaries, as above.
            generator: Source of the random numbers; None: torch's own.

        Returns:
            int64 ``[B, L]`` each; L is the length of the longest example.
        """
        rows = self._tokenized(examples, generator)
        batch = self._padded(rows)
        columns = {name: batch.pop(name, None) for name in ("word_ids", "unit_ids", "candidates")}
        words, units, candidates = columns.values()
        ids = batch["input_ids"]
        special = batch.pop("special_tokens_mask")
        maskable = batch["attention_mask"].bool() & ~special.bool()
        mask = self.masker(
            ids,
            maskable,
            words,
            generator=generator,
            unit_ids=units,
            candidates=None if candidates is None else candidates.bool(),
        )
        mask = checked_mask(mask, maskable)
        shared = None
        if self.replace_per_unit:
            shared = replacement_units(self.masker, mask, words, units)
        predicted = None
        if self.prediction_rate is not None:
            rate = getattr(self.masker, "rate", 1.0)
            predicted = prediction_subset(mask, rate, self.prediction_rate, generator)
        batch["input_ids"], batch["labels"] = corrupt(
            ids,
            mask,
            self.tokenizer.mask_token_id,
            len(self.tokenizer),
            self.mask_replace_prob,
            self.random_replace_prob,
            generator,
            predicted=predicted,
            units=shared,
        )
        return batch

    def _tokenized(
        self, examples: Sequence[Any], generator: torch.Generator | None
    ) -> list[dict[str, Any]]:
        """Examples as dictionaries of lists, texts tokenized and their words looked up."""
        if not examples:
            raise InputError("MaskingCollator got no example")
        if all(isinstance(example, Mapping) and "input_ids" in example for example in examples):
            return [self._with_masks(example) for example in examples]
        if not all(isinstance(example, str) for example in examples):
            raise InputError(
                "an example must be a text or a dictionary with input_ids, all of a batch alike;"
                f" got {type(examples[0]).__name__}"
            )
        found = self.tokenizer(
            list(examples),
            truncation=True,
            max_length=self.max_length,
            return_special_tokens_mask=True,
            return_attention_mask=True,
        )
        vocabulary = getattr(self.masker, "vocabulary", None)
        tagger = getattr(self.masker, "tagger", None)
        rows = []
        for index, text in enumerate(examples):
            row = {name: found[name][index] for name in found}
            if found.encodings is not None:
                encoding = found.encodings[index]
                words = encoded_words(self.tokenizer, encoding, text)
                seed = 0
                if vocabulary is not None:
                    seed = int(torch.randint(2**62, (1,), generator=generator))
                row |= token_columns(words, encoding.word_ids, tagger, vocabulary, seed)
            rows.append(row)
        return rows

    def _with_masks(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """An example with the masks that it lacks."""
        row = {name: value for name, value in example.items() if name not in _DROPPED}
        for name in ("input_ids", *_COLUMNS):
            if name in row:
                values = row[name].tolist() if isinstance(row[name], Tensor) else list(row[name])
                row[name] = [-1 if value is None else value for value in values]
        ids = row["input_ids"]
        for name in _COLUMNS:
            if name in row and len(row[name]) != len(ids):
                raise InputError(f"{name} of an example has {len(row[name])} of {len(ids)} values")
        row.setdefault("attention_mask", [1] * len(ids))
        if "special_tokens_mask" not in row:
            row["special_tokens_mask"] = (
                [int(word < 0) for word in row["word_ids"]]
                if "word_ids" in row
                else self.tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
            )
        return row

    def _padded(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Fill up to the longest, on the tokenizer's side; stack what is no token's."""
        names = list(rows[0])
        if any(set(row) != set(names) for row in rows):
            raise InputError("the examples of a batch have different entries")
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id, **_COLUMNS}
        fill["token_type_ids"] = getattr(self.tokenizer, "pad_token_type_id", 0)
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        batch: dict[str, Tensor] = {}
        for name in names:
            values = [row[name] for row in rows]
            if name not in fill:
                batch[name] = default_collate(values)
                continue
            filled = torch.full((len(rows), width), fill[name], dtype=torch.int64)
            for index, row in enumerate(values):
                part = slice(width - len(row), None) if left else slice(len(row))
                filled[index, part] = torch.tensor(row, dtype=torch.int64)
            batch[name] = filled
        return batch
