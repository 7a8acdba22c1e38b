"""Scores of all pairs of some images with all texts, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_ssl.models.vl.output import EmbeddedImages

__all__ = ["TextsByLength"]


class TextsByLength:
    """Texts in the order of their lengths: neighbours need little padding.

    Args:
        inputs: ``input_ids`` and ``attention_mask``, int64 ``[T, L]``; other entries are left out.
        device: Where they are kept.
    """

    def __init__(self, inputs: Mapping[str, Tensor], device: torch.device) -> None:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        lengths, order = (mask * places).amax(dim=1).sort(stable=True)
        self.input_ids = ids[order].to(device)
        self.attention_mask = mask[order].to(device)
        self.order = order.to(device)
        self.lengths: list[int] = lengths.tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    def scores(
        self,
        score: Callable[[Mapping[str, Tensor]], Tensor],
        images: EmbeddedImages,
        chunk_size: int,
        most: int | None = None,
    ) -> Tensor:
        """Scores of each image with each text.

        Args:
            score: Maps a batch of pairs, with ``image_embeds`` and ``image_mask``, to ``[n]``.
            images: b of them.
            chunk_size: Most pairs to score at once.
            most: Score so many of the texts only, the shortest; of the others it is −inf.

        Returns:
            float32 ``[b, T]``, texts in the order in which they were given.
        """
        embeds, mask = images
        found = torch.full((len(embeds), len(self)), -torch.inf, device=embeds.device)
        end = len(self) if most is None else min(most, len(self))
        for row in range(0, len(embeds), chunk_size):
            part = slice(row, min(row + chunk_size, len(embeds)))
            count = part.stop - part.start
            step = chunk_size // count
            for begin in range(0, end, step):
                texts = slice(begin, min(begin + step, end))
                times, width = texts.stop - texts.start, self.lengths[texts.stop - 1]
                pairs = {
                    "image_embeds": embeds[part].repeat(times, 1, 1),
                    "image_mask": mask[part].repeat(times, 1),
                }
                for name in ("input_ids", "attention_mask"):
                    own = getattr(self, name)[texts, :width]
                    pairs[name] = own.repeat_interleave(count, dim=0)
                values = score(pairs).float().view(times, count)
                found[part, self.order[texts]] = values.mT
        return found
