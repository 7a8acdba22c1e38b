"""Another image for each text of a stream of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OtherImages", "nearest_earlier_others"]

_EMBEDS, _MASK = "image_embeds", "image_mask"


def nearest_earlier_others(numbers: Sequence[int]) -> list[int]:
    """Place of the nearest earlier row that has another number; −1 where there is none.

    Args:
        numbers: Of the images of rows.
    """
    found: list[int] = []
    for place, number in enumerate(numbers):
        # the row before is another image, or has the same others before it
        is_new = place > 0 and numbers[place - 1] != number
        found.append(place - 1 if is_new else (found[-1] if found else -1))
    return found


class OtherImages:
    """Gives each row of a stream of batches the image of another row.

    It is that of the nearest earlier row with another image number; for rows before which there is
    none, the first other one that comes. So it is never an image of the row itself, and does not
    depend on how rows are cut into batches.
    """

    def __init__(self) -> None:
        self._images: dict[str, Tensor] | None = None  # of one or two rows: the last of each number
        self._numbers: list[int] = []  # of these
        self._waiting: list[dict[str, Tensor]] = []

    @property
    def num_waiting(self) -> int:
        """Rows that have no other image yet; at the end of the stream, all rows or none."""
        return sum(len(next(iter(rows.values()))) for rows in self._waiting)

    def add(
        self, rows: dict[str, Tensor], images: Mapping[str, Tensor], numbers: Tensor
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Take a batch; give back what has another image now: this batch, and those that waited.

        Args:
            rows: What goes with each row, ``[B, …]`` each, without images.
            images: ``image_embeds`` ``[B, N, D]`` and ``image_mask`` ``[B, N]``.
            numbers: int64 ``[B]``, equal for rows of one image.

        Yields:
            Rows, and the images of others for them.
        """
        known = self._numbers + numbers.tolist()
        pool = _joined(self._images, images)
        others = nearest_earlier_others(known)
        first = next((i for i, number in enumerate(known) if number != known[0]), -1)
        start = len(self._numbers)
        kept = [others[-1], len(known) - 1] if others[-1] >= 0 else [len(known) - 1]
        self._images, self._numbers = _taken(pool, kept), [known[i] for i in kept]
        self._waiting.append(rows)
        if first < 0:
            return
        released, self._waiting = self._waiting, []
        for waited in released[:-1]:
            yield waited, _taken(pool, [first] * len(next(iter(waited.values()))))
        yield rows, _taken(pool, [first if i < 0 else i for i in others[start:]])


def _joined(kept: dict[str, Tensor] | None, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Images one after the other, filled up to one number of tokens."""
    parts = [images] if kept is None else [kept, images]
    longest = max(part[_MASK].shape[1] for part in parts)
    embeds = [F.pad(p[_EMBEDS], (0, 0, 0, longest - p[_EMBEDS].shape[1])) for p in parts]
    masks = [F.pad(p[_MASK].bool(), (0, longest - p[_MASK].shape[1])) for p in parts]
    return {_EMBEDS: torch.cat(embeds), _MASK: torch.cat(masks)}


def _taken(images: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    index = torch.tensor(places, device=images[_MASK].device)
    return {name: value[index] for name, value in images.items()}
