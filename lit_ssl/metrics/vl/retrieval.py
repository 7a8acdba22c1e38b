"""Recall of retrieval between images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_ssl.errors import InputError, listed
from lit_ssl.metrics.vl.gathered import RowsMetric

__all__ = ["RetrievalRecall"]


class RetrievalRecall(RowsMetric):
    """Share of queries with a right answer among the K best, for images and for texts.

    An image has one text or several, a text one image. Text retrieval (``tr_r1``, …) asks with
    every image: one of its texts has to be among the K best. Image retrieval (``ir_r1``, …) asks
    with every text for its image. Equal scores count against the right answer, so that a model
    which says the same of everything finds nothing.

    A process adds all texts for some of the images; images may be shared out in any way, each to
    one process. All scores are kept, and compared on the CPU: 4 bytes each, 500 MB for the 5,000
    images and 25,000 texts of COCO's test.

    Args:
        k: How many answers count; ascending or not, from 1.
        kwargs: Passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: No k is given, or one is below 1.

    Source: the protocol of dandelin/ViLT at 762fd39; what equal scores count is ours.

    Examples:
        >>> metric = RetrievalRecall(k=(1,))
        >>> scores = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.3, 0.5]])
        >>> metric.update(scores, torch.tensor([5, 6]), torch.tensor([5, 5, 6]))
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
        {'tr_r1': 1.0, 'ir_r1': 0.6667}
    """

    scores: list[Tensor]
    images: list[Tensor]
    text_images: list[Tensor]

    def __init__(self, k: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(
            {"scores": torch.float32, "images": torch.int64, "text_images": torch.int64}, **kwargs
        )
        if not len(k) or min(k) < 1:
            raise InputError(f"RetrievalRecall needs numbers k from 1, got {list(k)}")
        self.k = tuple(k)

    def update(self, scores: Tensor, images: Tensor, text_images: Tensor) -> None:
        """Add some images with all texts.

        Args:
            scores: ``[b, T]``, higher is better.
            images: numbers of the images, integers ``[b]``; none comes twice.
            text_images: the image of each text, integers ``[T]``; the same at each call, on all
                processes.

        Raises:
            ValueError: Shapes do not fit, or the texts are not those of the calls before.
        """
        if scores.shape != (*images.shape, *text_images.shape) or scores.ndim != 2:
            raise InputError(
                "RetrievalRecall needs scores [b, T], images [b] and the image of each text [T],"
                f" got {list(scores.shape)}, {list(images.shape)} and {list(text_images.shape)}"
            )
        texts = self.text_images[-1]
        if texts.numel() and not torch.equal(texts, text_images.to(texts)):
            raise InputError(
                "RetrievalRecall got other texts than before: compare each image with all texts"
            )
        self.add_rows(scores=scores, images=images)
        if not texts.numel():
            self.add_rows(text_images=text_images)

    def compute(self) -> dict[str, Tensor]:
        """Recalls over all processes, float64 in [0, 1]: ``tr_r{k}`` and ``ir_r{k}``.

        All are NaN without images, and where a score is NaN or infinite.

        Raises:
            ValueError: An image came twice, images and texts are not of each other, or processes
                had different texts.
        """
        images, text_images = self.all_rows("images"), self.all_rows("text_images")
        if not len(images):
            return self._nothing()
        scores = self.all_rows("scores").view(len(images), -1)
        text_images = self._texts(text_images, scores.shape[1])
        self._check(images, text_images)
        if not bool(scores.isfinite().all()):
            return self._nothing()
        is_own = images[:, None] == text_images
        own = scores.masked_fill(~is_own, -torch.inf)
        foreign = scores.masked_fill(is_own, -torch.inf)
        recalls = {}
        # how many wrong answers are not behind the best right one
        for way, dim in (("tr", 1), ("ir", 0)):
            best = own.amax(dim=dim, keepdim=True)
            wrong = ((foreign >= best) & ~is_own).sum(dim=dim)
            for k in self.k:
                recalls[f"{way}_r{k}"] = (wrong < k).double().mean()
        return recalls

    def _nothing(self) -> dict[str, Tensor]:
        return {f"{way}_r{k}": torch.tensor(torch.nan) for way in ("tr", "ir") for k in self.k}

    @staticmethod
    def _texts(text_images: Tensor, count: int) -> Tensor:
        """The texts of one process, where all have the same."""
        if (
            count == 0
            or len(text_images) % count
            or not bool((text_images.view(-1, count) == text_images[:count]).all())
        ):
            raise InputError(
                "RetrievalRecall got no texts, or others on each process: compare each image with"
                " all texts"
            )
        return text_images[:count]

    @staticmethod
    def _check(images: Tensor, text_images: Tensor) -> None:
        numbers, times = images.unique(return_counts=True)
        if twice := numbers[times > 1].tolist():
            raise InputError(
                f"RetrievalRecall got the images {listed(twice)} more than once: share them out"
                " without repeating any"
            )
        own = text_images.unique()
        lost = [*own[~torch.isin(own, numbers)].tolist()]
        if lost:
            raise InputError(
                f"RetrievalRecall got texts of the images {listed(lost)}, but not these images"
                f" ({len(lost):,} in all): their texts could never be found"
            )
        mute = numbers[~torch.isin(numbers, own)].tolist()
        if mute:
            raise InputError(
                f"RetrievalRecall got the images {listed(mute)} without any text ({len(mute):,} in"
                " all): leave them out, for nothing could be found for them"
            )
