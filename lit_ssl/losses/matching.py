"""Image–text matching: which pairs keep their image, which get another, and the loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.losses.mlm import IGNORED

__all__ = ["Matching", "draw_in_batch", "draw_matching", "matching_loss"]


class Matching(NamedTuple):
    """Which texts keep their image.

    Attributes:
        labels: int64 ``[B]``: 1 with the own image, 0 with another; −100 where there is no other.
        sources: int64 ``[B]``: row of the image that each text gets.
    """

    labels: Tensor
    sources: Tensor


def draw_matching(
    batch_size: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Matching:
    """Draw which texts keep their image; the others get one of a second batch of images.

    Args:
        batch_size: B, ≥ 1.
        generator: of any device; None takes torch's.
        device: of the result; None takes that of the generator.

    Returns:
        Exactly ``B // 2`` labels 1 in random order; sources are rows of the two batches of images,
        one after the other: i for the own image, B + i for that of the second batch.

    Source: dandelin/ViLT, where the second images are drawn uniformly from the whole data set.
    """
    labels = _labels(batch_size, generator)
    sources = torch.arange(batch_size, device=labels.device) + batch_size * (labels == 0)
    return Matching(labels.to(device), sources.to(device))


def draw_in_batch(image_numbers: Tensor, generator: torch.Generator | None = None) -> Matching:
    """Draw which texts keep their image; the others exchange theirs among them.

    No text gets an image of the same number as its own: captions of one image are no negatives of
    each other. Where no exchange can do that (too many captions of one image), each text gets a
    random image of the batch with another number; where there is none, its label is −100.

    Args:
        image_numbers: int64 ``[B]``, equal for captions of one image.
        generator: of any device; None takes torch's.

    Returns:
        Exactly ``B // 2`` labels 1 in random order; sources are rows of the batch.

    Source: ours.
    """
    labels = _labels(len(image_numbers), generator)
    place = labels.device
    numbers = image_numbers.to(place)
    sources = torch.arange(len(numbers), device=place)
    rows = (labels == 0).nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=generator, device=place)]
    _, group, counts = numbers[rows].unique(return_inverse=True, return_counts=True)
    count, largest = len(rows), int(counts.max())
    if 2 * largest <= count:
        # captions of one image stand side by side: a shift by at least the largest group leaves it
        order = torch.randperm(len(counts), generator=generator, device=place)
        rows = rows[order[group].argsort(stable=True)]
        span = (largest, count - largest + 1)
        shift = int(torch.randint(*span, (1,), generator=generator, device=place))
        sources[rows] = rows.roll(shift)
    else:
        others = (numbers[rows, None] != numbers[None, :]).float()
        alone = others.sum(dim=1) == 0
        labels[rows[alone]] = IGNORED
        rows, others = rows[~alone], others[~alone]
        if len(rows):
            sources[rows] = others.multinomial(1, generator=generator).flatten()
    return Matching(labels.to(image_numbers.device), sources.to(image_numbers.device))


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of matching, in float32 (float64 for float64 logits).

    Args:
        logits: ``[B, 2]``; class 1 is a match.
        labels: int64 ``[B]``; −100 does not count, and 0 · logits is the loss where nothing does.

    Returns:
        A scalar.

    Raises:
        ValueError: if the shapes do not go together.
    """
    if logits.shape != (len(labels), 2):
        raise InputError(f"matching needs logits [{len(labels)}, 2], got {list(logits.shape)}")
    with torch.autocast(device_type=logits.device.type, enabled=False):
        wide = logits if logits.dtype == torch.float64 else logits.float()
        total = F.cross_entropy(wide, labels, ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)


def _labels(batch_size: int, generator: torch.Generator | None) -> Tensor:
    if batch_size < 1:
        raise InputError(f"matching needs at least one pair, not {batch_size}")
    place = torch.device("cpu") if generator is None else generator.device
    labels = (torch.arange(batch_size, device=place) < batch_size // 2).long()
    return labels[torch.randperm(batch_size, generator=generator, device=place)]
