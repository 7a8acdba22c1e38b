"""Spans of whole words, as in SpanBERT, for a whole batch at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_ssl.errors import InputError, check_choice
from lit_ssl.text.masking.corruption import masked_runs
from lit_ssl.text.masking.unit_sampling import (
    check_batch,
    needed_words,
    target_tokens,
    unit_heads,
)
from lit_ssl.text.shares import check_rate

__all__ = ["SpanMasker", "span_lengths"]


class SpanMasker:
    """Runs of neighbouring words are masked together.

        until k tokens of a text are masked:
            draw a length l of 1 … max_length words, P(l) ∝ (1 - p)^(l - 1)
            draw a token that is not masked yet, each as likely as any other
            mask its word and those after it, until l words or k tokens; the last may be cut

    A span ends at special tokens, so that it does not run from one text of a pair into the other.

    Args:
        rate: r, the share of tokens to mask, in [0, 1].
        p: Parameter of the geometric law of lengths, in (0, 1].
        max_length: Words of the longest span, >= 1.
        sampling: How k is drawn: "budget": floor(r n + u) with u uniform in [0, 1), so that the
            rate holds on average; "ceil": ceil(r n), SpanBERT's, above the rate for short texts;
            "bernoulli": as many as n coins of probability r show.
        min_masked: k is at least this, as far as a text has so many tokens.

    Raises:
        InputError: An option has none of its values, or lies out of its range.

    Source: SpanBERT (arXiv 1907.10529), its code's rule; "budget", "bernoulli" and ``min_masked``
    are ours. A token that is drawn again there is skipped, which is the same law.
    """

    def __init__(
        self,
        rate: float = 0.15,
        p: float = 0.2,
        max_length: int = 10,
        sampling: Literal["budget", "ceil", "bernoulli"] = "budget",
        min_masked: int = 0,
    ) -> None:
        check_choice("sampling", sampling, ("budget", "ceil", "bernoulli"))
        self.rate, self.sampling = check_rate("rate", rate), sampling
        for name, value, least in (("max_length", max_length, 1), ("min_masked", min_masked, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number >= {least}, not {value!r}")
        if not 0 < p <= 1:
            raise InputError(f"p of the span lengths must lie in (0, 1], not {p!r}")
        self.p, self.max_length, self.min_masked = p, max_length, min_masked

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose spans, see [`Masker`][lit_ssl.text.Masker]."""
        word_ids = needed_words(self, word_ids)
        check_batch(input_ids, maskable, word_ids=word_ids)
        rate = self.rate if rate is None else rate
        budget = target_tokens(maskable, rate, self.sampling, generator)
        if self.min_masked:
            most = maskable.sum(1, keepdim=True).float()
            budget = torch.minimum(budget.clamp_min(self.min_masked), most)
        places = torch.arange(maskable.shape[1], device=maskable.device)
        words = (unit_heads(word_ids) == places).cumsum(1)  # numbered from left to right
        parts = (~maskable).cumsum(1)  # equal within a stretch without special tokens
        mask = torch.zeros_like(maskable)
        left = budget
        # Each round masks at least one more token in every text that lacks some.
        while bool((left > 0).any()):
            keys = torch.rand(mask.shape, generator=generator, device=mask.device)
            anchor = keys.masked_fill_(mask | ~maskable, -1.0).argmax(1, keepdim=True)
            length = span_lengths(len(mask), self.p, self.max_length, generator, mask.device)
            from_word = words.gather(1, anchor)
            span = (words >= from_word) & (words < from_word + length.unsqueeze(1))
            span &= maskable & (parts == parts.gather(1, anchor)) & ~mask
            mask |= span & (span.cumsum(1) <= left)
            left = budget - mask.sum(1, keepdim=True)
        return mask

    def replacement_units(
        self, mask: Tensor, word_ids: Tensor | None, unit_ids: Tensor | None = None
    ) -> Tensor:
        """Units that share one draw of what stands in their place: spans, joined if they touch.

        Args:
            mask: bool ``[B, L]``, the masked tokens.
            word_ids: not used.
            unit_ids: not used.

        Returns:
            int64 ``[B, L]``, −1 where not masked.
        """
        return masked_runs(mask)


def span_lengths(
    count: int,
    p: float,
    max_length: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw lengths of spans: P(l) ∝ (1 - p)^(l - 1) for l = 1 … ``max_length``.

    Args:
        count: How many.
        p: Parameter of the geometric law, in (0, 1].
        max_length: The longest, >= 1.
        generator: Source of the random numbers; None: torch's own.
        device: Where.

    Returns:
        int64 ``[count]``.
    """
    weights = (1 - p) ** torch.arange(max_length, dtype=torch.float64)
    steps = (weights.cumsum(0) / weights.sum()).float().to(device)
    draws = torch.rand(count, generator=generator, device=device)
    return (torch.searchsorted(steps, draws, right=True) + 1).clamp_max(max_length)
