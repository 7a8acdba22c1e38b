"""The score of visual question answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.errors import InputError
from lit_ssl.text.vqa_answers import score_answer

__all__ = ["VQAScore"]

_MILLION = 1_000_000


class VQAScore(Metric):
    """Mean score of the answers: how many of ten annotators agree, 3 of them being worth 0.9.

    ``update`` takes logits over a vocabulary of answers, the usual way to train: an answer is worth
    the target's entry at the highest one. Or it takes answers in words, which it spells as VQA's
    evaluation does (``lit_ssl.text.vqa_answers``). The official script leaves answers as they are
    where all annotators gave the same one; here they are always spelled alike, so that "two" and
    "2" agree there too.

    Args:
        kwargs: Passed to ``torchmetrics.Metric``.

    Source: arXiv 1505.00468; the score of the answer with the highest logit as in dandelin/ViLT at
    762fd39.

    Examples:
        >>> metric = VQAScore()
        >>> metric.update(["two"], [["2"] * 2 + ["3"] * 8])
        >>> round(metric.compute().item(), 4)
        0.6
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    total: Tensor
    count: Tensor
    lost: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # In millionths: sums are exact in any order, and on devices without float64.
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self, preds: Tensor | Sequence[str], target: Tensor | Sequence[Sequence[str]]
    ) -> None:
        """Add a batch.

        Args:
            preds: logits ``[B, A]`` over the answers of a vocabulary; or B answers in words.
            target: what each answer of the vocabulary is worth, in [0, 1], ``[B, A]``, all 0 where
                none is right, which counts as wrong; or, for words, what the annotators said, B
                lists of at least one answer, usually 10.

        Raises:
            ValueError: Shapes or values do not fit.
        """
        if isinstance(preds, Tensor) and isinstance(target, Tensor):
            worth = _worth(preds, target)
            self.total = self.total + (worth.nan_to_num() * _MILLION).round().long().sum()
            self.count = self.count + len(worth)
            self.lost = self.lost + worth.isnan().sum()
            return
        if isinstance(preds, Tensor | str) or isinstance(target, Tensor | str):
            raise InputError(
                "VQAScore needs logits [B, A] with scores [B, A], or a list of answers with a list"
                f" of lists of answers, got {type(preds).__name__} and {type(target).__name__}"
            )
        if len(preds) != len(target) or not all(target):
            raise InputError(
                "VQAScore needs at least one annotator's answer for each answer, got"
                f" {len(preds)} answers and {len(target)} lists, {sum(not one for one in target)}"
                " of them empty"
            )
        scores = map(score_answer, preds, target)
        self.total = self.total + sum(round(score * _MILLION) for score in scores)
        self.count = self.count + len(preds)

    def compute(self) -> Tensor:
        """The mean over all processes, float64 in [0, 1], on the CPU.

        NaN without answers, and where logits of one are NaN or infinite.
        """
        mean = self.total.cpu().double() / (_MILLION * self.count.cpu())
        return mean.masked_fill(self.lost.cpu() > 0, torch.nan)


def _worth(preds: Tensor, target: Tensor) -> Tensor:
    """What the answers with the highest logits are worth, float32 ``[B]``; NaN without one."""
    if preds.ndim != 2 or preds.shape != target.shape or preds.shape[1] < 1:
        raise InputError(
            f"VQAScore needs logits [B, A] and scores [B, A], got {list(preds.shape)} and"
            f" {list(target.shape)}"
        )
    worth = target.gather(1, preds.argmax(dim=1, keepdim=True))[:, 0].float()
    if worth.device.type == "cpu" and len(worth) and not 0 <= worth.min() <= worth.max() <= 1:
        raise InputError(f"VQAScore needs scores in [0, 1], got {worth.min():g} to {worth.max():g}")
    return worth.masked_fill(best_answer(preds) == NO_ANSWER, torch.nan)
