"""What a masked language model sees in place of the chosen tokens, and what it has to say."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.text.masking.unit_sampling import (
    check_batch,
    needed_words,
    rate_column,
    unit_heads,
)
from lit_ssl.text.shares import check_rate

__all__ = [
    "IGNORED",
    "check_replacement",
    "corrupt",
    "masked_runs",
    "prediction_subset",
    "replacement_units",
]

IGNORED = -100  # label of tokens without a loss, as in torch's cross-entropy


def check_replacement(mask_replace_prob: float, random_replace_prob: float) -> None:
    """Refuse shares of masked tokens that are no two parts of one.

    Args:
        mask_replace_prob: Share that becomes [MASK], in [0, 1].
        random_replace_prob: Share that becomes a random token, in [0, 1].

    Raises:
        InputError: A share is out of range, or their sum above 1.
    """
    check_rate("mask_replace_prob", mask_replace_prob)
    check_rate("random_replace_prob", random_replace_prob)
    if mask_replace_prob + random_replace_prob > 1 + 1e-6:
        raise InputError(
            f"mask_replace_prob + random_replace_prob must be at most 1, got {mask_replace_prob} +"
            f" {random_replace_prob}"
        )


def corrupt(
    input_ids: Tensor,
    mask: Tensor,
    mask_id: int | None,
    vocab_size: int,
    mask_replace_prob: float = 0.8,
    random_replace_prob: float = 0.1,
    generator: torch.Generator | None = None,
    *,
    predicted: Tensor | None = None,
    units: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace chosen tokens by [MASK], by random tokens, or not at all.

        labels = ids where predicted, else −100
        ids    = [MASK] with probability mask_replace_prob,
                 uniform in [0, vocab_size) with random_replace_prob, else unchanged

    Random tokens may be special ones. Draws are independent for each token unless there are units.

    Args:
        input_ids: int64 ``[B, L]``.
        mask: bool ``[B, L]``: the chosen tokens.
        mask_id: Id of [MASK].
        vocab_size: Number of ids, added tokens included (``len(tokenizer)``).
        mask_replace_prob: Share of the chosen tokens that becomes [MASK]; 1 with 0 random: mask
            only.
        random_replace_prob: Share that becomes a random token.
        generator: Source of the random numbers, on the device of the ids; None: torch's own.
        predicted: bool ``[B, L]``: part of the mask that is to be predicted, see
            [`prediction_subset`][lit_ssl.text.prediction_subset]; None: all of it.
        units: int64 ``[B, L]``: tokens of one unit share the draw between [MASK], random and
            unchanged; random tokens differ within it. See
            [`replacement_units`][lit_ssl.text.replacement_units].

    Returns:
        The ids ``[B, L]``, and labels int64 ``[B, L]``, −100 where nothing is to be predicted.

    Raises:
        InputError: There is no [MASK], or a share or shape is wrong.

    Source: the collator of dandelin/ViLT; the numbers drawn are those of
    transformers' collator for language modelling.
    """
    check_batch(input_ids, mask, predicted=predicted, units=units)
    check_replacement(mask_replace_prob, random_replace_prob)
    if mask_id is None or not 0 <= mask_id < vocab_size:
        raise InputError(
            f"no [MASK] among the {vocab_size} tokens (mask_id is {mask_id}): masking needs a"
            " vocabulary with a mask token, such as BERT's"
        )
    labels = input_ids.masked_fill(~(mask if predicted is None else predicted & mask), IGNORED)
    heads = None if units is None else unit_heads(units)

    def coin(probability: float) -> Tensor:
        chances = torch.full(input_ids.shape, float(probability), device=input_ids.device)
        shown = torch.bernoulli(chances, generator=generator).bool()
        return shown if heads is None else shown.gather(1, heads)

    hidden = coin(mask_replace_prob) & mask
    ids = input_ids.masked_fill(hidden, mask_id)
    if mask_replace_prob < 1 and random_replace_prob > 0:
        among_rest = min(1.0, random_replace_prob / (1 - mask_replace_prob))
        swapped = coin(among_rest) & mask & ~hidden
        others = torch.randint(
            vocab_size, input_ids.shape, generator=generator, device=input_ids.device
        )
        ids = torch.where(swapped, others.to(ids.dtype), ids)
    return ids, labels


def prediction_subset(
    mask: Tensor,
    rate: float | Tensor,
    prediction_rate: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose which masked tokens are predicted, so that corruption and predictions come apart.

    Each masked token is kept with probability ``prediction_rate / rate``: with uniform masking at
    0.6 and predictions at 0.15 the loss has as many terms as at 0.15, in texts corrupted at 0.6.

    Args:
        mask: bool ``[B, L]``: the masked tokens.
        rate: The rate at which they were masked; a number or ``[B]``.
        prediction_rate: Share of maskable tokens to predict, in [0, 1]. Where a schedule of the
            rate falls below it, all masked tokens are predicted.
        generator: Source of the random numbers; None: torch's own.

    Returns:
        bool ``[B, L]``, a subset of the mask.

    Source: after arXiv 2202.08005, which separates the two; keeping by coins is ours.
    """
    rates = rate_column(rate, mask)
    least = torch.finfo(torch.float32).tiny
    share = (check_rate("prediction_rate", prediction_rate) / rates.clamp_min(least)).clamp_max(1)
    return torch.bernoulli(share * mask, generator=generator).bool()


def masked_runs(mask: Tensor) -> Tensor:
    """Number the runs of neighbouring masked tokens.

    Args:
        mask: bool ``[B, L]``.

    Returns:
        int64 ``[B, L]``: equal within a run and different in the next one; −1 where not masked.
    """
    starts = mask.clone()
    starts[:, 1:] &= ~mask[:, :-1]
    return (starts.cumsum(1) - 1).masked_fill(~mask, -1)


def replacement_units(
    masker: object, mask: Tensor, word_ids: Tensor | None, unit_ids: Tensor | None = None
) -> Tensor:
    """Return the units of a masker within which tokens share one draw in ``corrupt``.

    Spans, collocations, else words; a masker of your own may say it by a method
    ``replacement_units(mask, word_ids, unit_ids) -> int64 [B, L]``.

    Args:
        masker: It.
        mask: bool ``[B, L]`` that it chose.
        word_ids: int64 ``[B, L]``, or None where words are not known.
        unit_ids: int64 ``[B, L]``, or None.

    Raises:
        InputError: The units are words, and these are not known.

    Source: SpanBERT (arXiv 1907.10529) and PMI-Masking (arXiv 2010.01825) draw once per unit.
    """
    own = getattr(masker, "replacement_units", None)
    units = word_ids if own is None else own(mask, word_ids, unit_ids)
    return needed_words(masker, units)
