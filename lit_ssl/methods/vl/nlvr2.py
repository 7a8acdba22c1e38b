"""NLVR2: is a statement true of two images?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torchmetrics import Metric

from lit_ssl.checkpoints.vision_language import VLWeights
from lit_ssl.errors import InputError, check_numbers
from lit_ssl.methods.vl.classifier import TaskBatch, VLClassifier
from lit_ssl.metrics import NLVR2Accuracy
from lit_ssl.trainer.hparams import not_plain

__all__ = ["NLVR2Classifier"]

_PER_IMAGE = ("images", "pixel_mask")  # inputs with one entry for each image of a pair


class NLVR2Classifier(VLClassifier):
    """Fine-tuning on NLVR2, or on other statements about a left and a right image.

    The statement passes the network with each image, whose modality says which it is:

        left = net(text, images[:, 0], image_type=1).pooled
        right = net(text, images[:, 1], image_type=2).pooled
        loss = CE(nlvr2_head(concat(left, right)), labels)

    Batches are ``(inputs, labels)`` or ``(inputs, labels, statements)``: ``images``
    ``[B, 2, C, H, W]``, the left one first, maybe ``pixel_mask`` ``[B, 2, H, W]``, ``input_ids``
    and ``attention_mask`` ``[B, L]``; labels int64 ``[B]``, 1 true, 0 false, −1 unknown, which does
    not count; statements int64 ``[B]``, equal for rows with the same one. Logged are ``val/acc1``
    and, with statements, ``val/consistency``, the share of statements all of whose rows are right;
    likewise ``test/…``.

    ``pretrained`` weights of another task know no second image: its modality then starts as that of
    the first. Weights of an NLVR2 run keep theirs. So does a backbone that was built with weights;
    of one with weights of your own call ``second_image_from_first_()``.

    ViLT fine-tunes with the defaults here, 10 epochs of batches of 128; METER with ``lr: 1.0e-5``,
    ``lr_mult_head: 10``, ``lr_mult_cross_modal: 5`` and batches of 256, and tests the epoch that is
    best on dev.

    Args:
        backbone: see ``lit_ssl.methods.vl.base.VLModule``; with ``num_modalities`` 3.
        kwargs: arguments of ``lit_ssl.methods.vl.base.VLModule``.

    Raises:
        InputError: for values outside their ranges, or a backbone without a second image.

    Source: arXiv 1811.00491 (task, metrics), 2102.03334 (the pair scheme; dandelin/ViLT).
    """

    heads: tuple[str, ...] = ("nlvr2_head",)

    def __init__(self, backbone: nn.Module, **kwargs: Any) -> None:
        size: Any = backbone.pooled_size
        modalities: Any = backbone.num_modalities
        if modalities < 3:
            raise InputError(
                "NLVR2Classifier tells the second image from the first by its modality: give the "
                f"backbone num_modalities: 3, not {modalities}"
            )
        super().__init__(backbone, 2, 2 * size, **kwargs)
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)
        self._said_no_statements = False

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Scores of false and true, ``[B, 2]``.

        Args:
            inputs: ``images`` ``[B, 2, C, H, W]`` and a text for each pair.

        Raises:
            InputError: if there are not two images for each text.
        """
        images = inputs.get("images")
        if images is None or images.ndim != 5 or images.shape[1] != 2:
            found = sorted(inputs) if images is None else list(images.shape)
            raise InputError(
                "needs two images for each text, images [B, 2, C, H, W], such as those of "
                f"NLVR2DataModule, got {found}"
            )
        left, right = (
            {name: x[:, side] if name in _PER_IMAGE else x for name, x in inputs.items()}
            for side in (0, 1)
        )
        pooled = [self.backbone(left, 1).pooled, self.backbone(right, 2).pooled]
        return self.head(torch.cat(pooled, dim=1))

    # weights

    def load_backbone(self, weights: VLWeights) -> None:
        """Load the backbone; a second image that the file does not know starts as the first."""
        super().load_backbone(weights)
        if not weights.knows_second_image:
            self.backbone.second_image_from_first_()
            rank_zero_info("NLVR2Classifier: the second image starts with the first one's modality")

    # evaluation

    def new_metric(self) -> Metric:
        """Return accuracy and consistency."""
        return NLVR2Accuracy()

    def count_answers(self, metric: Any, logits: Tensor, batch: TaskBatch) -> None:
        """Add the answers of a batch."""
        metric.consistency = batch.extra is not None
        metric.update(logits, batch.targets, batch.extra)

    def results(self, metric: Any) -> dict[str, Tensor]:
        """Return accuracy and, where batches say the statements, consistency."""
        found = metric.compute()
        if metric.consistency:
            return {"acc1": found.accuracy, "consistency": found.consistency}
        if not self._said_no_statements:
            self._said_no_statements = True
            rank_zero_info(
                "NLVR2Classifier: batches do not say which rows have the same statement, so that "
                "consistency is not measured; give (inputs, labels, statements)"
            )
        return {"acc1": found.accuracy}
