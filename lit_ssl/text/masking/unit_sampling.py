"""Which units of texts are masked: words, phrases or tokens, drawn for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.text.shares import check_rate

__all__ = [
    "check_batch",
    "fill_up",
    "needed_words",
    "rate_column",
    "sample_units",
    "target_tokens",
    "unit_heads",
]


def check_batch(input_ids: Tensor, maskable: Tensor, **columns: Tensor | None) -> None:
    """Refuse tensors of a batch that do not fit together.

    Args:
        input_ids: int64 ``[B, L]``.
        maskable: bool ``[B, L]``.
        columns: More tensors of that shape, or None, by name.

    Raises:
        InputError: A shape or type is another.
    """
    if input_ids.ndim != 2:
        raise InputError(f"input_ids must be [B, L], got {list(input_ids.shape)}")
    if maskable.dtype != torch.bool:
        raise InputError(f"maskable must be bool, not {maskable.dtype}: True for words' tokens")
    for name, column in {"maskable": maskable, **columns}.items():
        if column is not None and column.shape != input_ids.shape:
            raise InputError(
                f"{name} must have the shape of input_ids, {list(input_ids.shape)}, got"
                f" {list(column.shape)}"
            )


def needed_words(masker: object, word_ids: Tensor | None) -> Tensor:
    """Return the words of tokens, or say that the masker needs them.

    Args:
        masker: Who asks.
        word_ids: int64 ``[B, L]``, or None.

    Raises:
        InputError: They are not known.
    """
    if word_ids is None:
        raise InputError(
            f"{type(masker).__name__} needs word_ids, the word of each token, in the batch: keep"
            " what the tokenizer's word_ids() says, or hand over texts"
        )
    return word_ids


def rate_column(rate: float | Tensor, maskable: Tensor) -> Tensor:
    """Return rates as a float32 column ``[B, 1]``.

    Args:
        rate: One for all texts, in [0, 1]; or ``[B]``, one for each text.
        maskable: bool ``[B, L]``; gives size and device.

    Raises:
        InputError: The rate is none, or there are not B of them.
    """
    rows = maskable.shape[0]
    if not isinstance(rate, Tensor):
        return torch.full((rows, 1), check_rate("rate", rate), device=maskable.device)
    if rate.shape not in ((), (rows,)):
        raise InputError(f"rate must be a number or [{rows}], got {list(rate.shape)}")
    # Elsewhere to look at it would make the host wait.
    if rate.device.type == "cpu" and not bool(((rate >= 0) & (rate <= 1)).all()):
        raise InputError(f"rates must be numbers from 0 to 1, got {rate.tolist()}")
    return rate.to(maskable.device, torch.float32).expand(rows).unsqueeze(1)


def unit_heads(ids: Tensor) -> Tensor:
    """Return the place of the first token of each token's unit.

    A unit is a run of equal numbers, so that the words of a second text, which tokenizers number
    from 0 again, are units of their own. A token without a number (−1) is a unit by itself.

    Args:
        ids: int64 ``[B, L]``: the word, or other unit, of each token.

    Returns:
        int64 ``[B, L]``, below L, never falling along a text.
    """
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = (ids[:, 1:] != ids[:, :-1]) | (ids[:, 1:] < 0)
    places = torch.arange(ids.shape[1], device=ids.device)
    return (places * starts).cummax(1).values if ids.shape[1] else ids.clone()


def target_tokens(
    maskable: Tensor, rate: float | Tensor, sampling: str, generator: torch.Generator | None
) -> Tensor:
    """Draw how many tokens of each text are to be masked; r · n on average.

    Args:
        maskable: bool ``[B, L]``, n of them in a text.
        rate: r, in [0, 1]; a number or ``[B]``.
        sampling: "budget": floor(r n + u) with u uniform in [0, 1); "bernoulli": as many as n coins
            of probability r show; "ceil": ceil(r n), above r on average.
        generator: Source of the random numbers; None: torch's own.

    Returns:
        Whole numbers as float32 ``[B, 1]``, from 0 to n.
    """
    rates = rate_column(rate, maskable)
    if sampling == "bernoulli":
        coins = torch.bernoulli(rates.expand(maskable.shape).contiguous(), generator=generator)
        return (coins.bool() & maskable).sum(1, keepdim=True).float()
    count = maskable.sum(1, keepdim=True).float()
    exact = rates * count
    if sampling == "ceil":
        return (exact * (1 - 1e-6)).ceil()  # 0.15 · 20, in float32 a little above 3, stays 3
    noise = torch.rand(exact.shape, generator=generator, device=exact.device)
    return torch.minimum((exact + noise).floor(), count)


def sample_units(
    units: Tensor,
    maskable: Tensor,
    rate: float | Tensor,
    sampling: str,
    generator: torch.Generator | None,
    *,
    first: Tensor | None = None,
    fallback: bool = True,
    min_masked: int = 0,
) -> Tensor:
    """Mask units as a whole, so that on average the share r of a text's n tokens is masked.

        bernoulli   each unit with probability r
        budget      units in random order up to t = r · n tokens: a unit of length l that crosses
                    t, after s < t tokens, is taken with probability (t - s) / l
        first       units that are preferred come first in the order; under bernoulli t is the
                    number of tokens of units drawn with probability r

    With units of one token the budget is floor(r n + u), u uniform in [0, 1). The probability at
    the crossing makes the mean exact for longer units too, and a text's number is within one unit.

    Args:
        units: int64 ``[B, L]``: the unit of each token, as in ``unit_heads``.
        maskable: bool ``[B, L]``.
        rate: r, in [0, 1]; a number or ``[B]``.
        sampling: "bernoulli" or "budget".
        generator: Source of the random numbers; None: torch's own.
        first: bool ``[B, L]``: tokens whose units are preferred; None: no preference.
        fallback: Whether the other units follow when the preferred ones are used up.
        min_masked: Mask at least so many tokens of a text, as far as it has them.

    Returns:
        bool ``[B, L]``.
    """
    heads = unit_heads(units)
    # Whole numbers, since torch adds up others on a GPU in an order that is not fixed.
    lengths = torch.zeros_like(heads)
    lengths.scatter_add_(1, heads, maskable.long())
    rates = rate_column(rate, maskable)
    coins = None
    if sampling == "bernoulli":
        coins = torch.bernoulli(rates.expand(units.shape).contiguous(), generator=generator)
    rank = torch.zeros_like(lengths)
    if first is None and coins is not None:
        taken = coins.bool()
    else:
        if coins is None:
            target = rates * lengths.sum(1, keepdim=True)
        else:
            target = (coins.long() * lengths).sum(1, keepdim=True)
        if first is not None:
            preferred = torch.zeros_like(lengths)
            preferred.scatter_add_(1, heads, (first & maskable).long())
            rank = (preferred == 0).long()
            if not fallback:
                lengths = lengths * (preferred > 0)
        taken = _up_to(target, lengths, rank, generator)
    if min_masked:
        taken = _at_least(min_masked, taken, lengths, rank, generator)
    return taken.gather(1, heads) & (lengths > 0).gather(1, heads) & maskable


def fill_up(
    mask: Tensor, maskable: Tensor, least: int, generator: torch.Generator | None
) -> Tensor:
    """Mask random further tokens where a text has fewer than ``least`` masked ones.

    Args:
        mask: bool ``[B, L]``.
        maskable: bool ``[B, L]``.
        least: >= 1.
        generator: Source of the random numbers; None: torch's own.

    Returns:
        bool ``[B, L]``.
    """
    lengths = maskable.long()
    return _at_least(least, mask, lengths, torch.zeros_like(lengths), generator) & maskable


def _order(rank: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random order of the units of each text, lower ranks first."""
    keys = torch.rand(rank.shape, generator=generator, device=rank.device)
    by_key = keys.argsort(1)
    return by_key.gather(1, rank.gather(1, by_key).argsort(dim=1, stable=True))


def _up_to(
    target: Tensor, lengths: Tensor, rank: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Take units in random order up to a number of tokens, exact on average."""
    order = _order(rank, generator)
    ordered = lengths.gather(1, order)
    after = ordered.cumsum(1)
    before = after - ordered
    share = torch.rand(target.shape, generator=generator, device=target.device)
    # The first half is what the second says without rounding.
    chosen = (after <= target) | (before + share * ordered < target)
    return torch.zeros_like(chosen).scatter(1, order, chosen)


def _at_least(
    least: int, taken: Tensor, lengths: Tensor, rank: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Take more units in random order where those taken have fewer tokens than ``least``."""
    order = _order(rank.masked_fill(taken, -1), generator)
    ordered = lengths.gather(1, order)
    short = ordered.cumsum(1) - ordered < least
    return taken | torch.zeros_like(taken).scatter(1, order, short)
