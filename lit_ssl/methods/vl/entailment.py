"""Visual entailment: does an image show what a sentence says?"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from lit_ssl.errors import check_numbers
from lit_ssl.methods.vl.classifier import VLClassifier
from lit_ssl.metrics.accuracy import KnownAccuracy
from lit_ssl.trainer.hparams import not_plain

__all__ = ["VisualEntailmentClassifier"]

_CLASSES = 3  # contradiction, neutral, entailment


class VisualEntailmentClassifier(VLClassifier):
    """Fine-tuning on SNLI-VE: the image contradicts a sentence, leaves it open, or entails it.

    Batches are ``(inputs, labels)``: ``images`` ``[B, C, H, W]``, ``input_ids`` and
    ``attention_mask`` ``[B, L]``; labels int64 ``[B]``, 0 contradiction, 1 neutral, 2 entailment,
    −1 unknown, which does not count. The loss is cross-entropy. Logged are ``val/acc1`` and
    ``test/acc1``. METER fine-tunes with ``lr: 2.0e-6``, ``lr_mult_head: 10`` and
    ``lr_mult_cross_modal: 5``, 5 epochs of batches of 64, and tests the epoch that is best on dev.

    Args:
        backbone: see ``lit_ssl.methods.vl.base.VLModule``.
        kwargs: arguments of ``lit_ssl.methods.vl.base.VLModule``.

    Raises:
        InputError: for values outside their ranges.

    Source: arXiv 1901.06706 (task), zdou0830/METER (head, order of the labels).
    """

    heads: tuple[str, ...] = ("entailment_head",)

    def __init__(self, backbone: nn.Module, **kwargs: Any) -> None:
        pooled_size: Any = backbone.pooled_size
        super().__init__(backbone, _CLASSES, pooled_size, **kwargs)
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)

    def new_metric(self) -> Metric:
        """Return the accuracy."""
        return KnownAccuracy(_CLASSES)

    def results(self, metric: Any) -> dict[str, Tensor]:
        """Return the accuracy."""
        return {"acc1": metric.compute()}
