"""Visual question answering over a list of answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.checkpoints.vision_language import VLWeights
from lit_ssl.contracts.batches import inputs_of, scored_inputs
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError, NonFiniteError, by_name, check_numbers
from lit_ssl.losses import vqa_loss
from lit_ssl.methods.vl.classifier import TaskBatch, VLClassifier
from lit_ssl.metrics import VQAScore
from lit_ssl.trainer.hparams import not_plain

__all__ = ["VQAClassifier"]

_ANSWERS = "answers"  # key in checkpoints


class VQAClassifier(VLClassifier):
    """Fine-tuning on VQA: which of the known answers is right, and how much is it worth?

    Batches are ``(inputs, scores)``: ``images`` ``[B, C, H, W]``, ``input_ids`` and
    ``attention_mask`` ``[B, L]``; scores ``[B, num_classes]``, what each answer is worth, in
    [0, 1], all 0 where no known answer is right. The loss is binary cross-entropy, a mean over
    questions and a sum over answers. Logged are ``val/vqa_score`` and ``test/vqa_score``, the mean
    worth of the best answers. ``predict`` gives the number of each answer.

    Checkpoints keep a fingerprint of the answers, where the data module knows them
    (``class_names``): data with others, or in another order, are refused. A head of ``pretrained``
    weights that was trained for other answers is not loaded.

    ViLT fine-tunes with ``lr_mult_head: 10``, 10 epochs of batches of 256; METER with
    ``lr: 5.0e-6``, ``lr_mult_head: 50``, ``lr_mult_cross_modal: 5`` and batches of 512.

    Args:
        backbone: see ``lit_ssl.methods.vl.base.VLModule``.
        num_classes: number of answers, 3,129 in VQAv2; ``lit-ssl`` takes it from the data module.
        kwargs: arguments of ``lit_ssl.methods.vl.base.VLModule``.

    Raises:
        InputError: for values outside their ranges.

    Source: arXiv 1505.00468 (score), 2102.03334 (dandelin/ViLT).
    """

    heads: tuple[str, ...] = ("vqa_head",)
    training_score: ClassVar[str] = "vqa_score"

    def __init__(self, backbone: nn.Module, num_classes: int | None = None, **kwargs: Any) -> None:
        if num_classes is None:
            raise InputError(
                "VQAClassifier needs num_classes, the number of answers: give it (lit-ssl takes it "
                "from data modules that know it)"
            )
        pooled_size: Any = backbone.pooled_size
        super().__init__(backbone, num_classes, pooled_size, **kwargs)
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)
        self.answers: str | None = None  # fingerprint; None: not known

    def read(self, batch: Any, look: bool = False) -> TaskBatch:
        """Inputs and scores of a batch."""
        inputs, scores = scored_inputs(batch, self.num_classes, look)
        return TaskBatch(inputs, _exact(scores))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, mean over questions and summed over answers."""
        return vqa_loss(logits, targets)

    def num_known(self, targets: Tensor) -> Tensor:
        """How many questions there are: without a known answer they count, too."""
        return torch.tensor(len(targets), device=targets.device)

    def share_right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean worth of the best answers."""
        best = best_answer(logits)
        worth = targets.gather(1, best.clamp(min=0)[:, None])[:, 0]
        return worth.masked_fill(best == NO_ANSWER, torch.nan).mean()

    def new_metric(self) -> Metric:
        """Return the score."""
        return VQAScore()

    def results(self, metric: Any) -> dict[str, Tensor]:
        """Return the score."""
        return {"vqa_score": metric.compute()}

    @by_name
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Numbers of the best answers, int64 ``[B]``, of ``inputs`` or ``(inputs, …)``.

        Raises:
            NonFiniteError: if logits are NaN or infinite, so that there is no best answer.
        """
        answers = best_answer(self.logits(inputs_of(batch)))
        if lost := int((answers == NO_ANSWER).sum()):
            raise NonFiniteError(
                f"logits of {lost} of {len(answers)} questions are NaN or infinite"
            )
        return answers

    # answers

    def setup(self, stage: str) -> None:
        """Compare the answers of data and checkpoint; load the weights to start from."""
        names = getattr(data_source(self.trainer), "class_names", None)
        found = _fingerprint(names) if names else None
        if found and self.answers and found != self.answers:
            raise InputError(_others("This module"))
        self.answers = found or self.answers
        super().setup(stage)

    def load_head(self, name: str, weights: VLWeights) -> bool:
        """Load the head, unless its answers are known to be others."""
        state = weights.heads.get(name)
        if not state:
            return False
        count = len(state["3.bias"]) if "3.bias" in state else self.num_classes
        if count != self.num_classes or self._differ(weights.answers):
            what = f"{count:,} answers" if count != self.num_classes else "other answers"
            rank_zero_warn(
                f"The {name} of {self.pretrained} was trained for {what} than the data's "
                f"{self.num_classes:,}: it is not loaded"
            )
            return False
        if not (weights.answers and self.answers):
            rank_zero_warn(
                f"It is not known whether the {name} of {self.pretrained} was trained for the "
                "answers of the data: make sure that they are the same ones in the same order"
            )
        return super().load_head(name, weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the fingerprint of the answers."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_ANSWERS] = self.answers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other answers than those of the data."""
        super().on_load_checkpoint(checkpoint)
        theirs = checkpoint.get(_ANSWERS)
        if self._differ(theirs):
            raise InputError(_others("The checkpoint"))
        self.answers = self.answers or theirs

    def _differ(self, theirs: str | None) -> bool:
        return bool(self.answers and theirs and self.answers != theirs)


def _fingerprint(names: Sequence[str]) -> str:
    text = json.dumps(list(names), ensure_ascii=False)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _others(source: str) -> str:
    return (
        f"{source} was trained for other answers than those of the data, or in another order (their"
        " fingerprints differ): give the data the list of answers of that training"
    )


def _exact(scores: Tensor) -> Tensor:
    """Scores as they were before Lightning made a whole batch half precision (``bf16-true``).

    VQA's are tenths; 0.3 in bfloat16 is 0.3008, which the metric would count.
    """
    if scores.dtype in (torch.bfloat16, torch.float16):
        return (scores.float() * 100).round() / 100
    return scores
