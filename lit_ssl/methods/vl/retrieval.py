"""Retrieval between images and texts by a network that looks at both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from lit_ssl.answers import count_right
from lit_ssl.checkpoints.vision_language import VLWeights
from lit_ssl.contracts.batches import inputs_of
from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.retrieval import (
    RetrievalData,
    RetrievalTexts,
    image_batch,
    texts_with_negatives,
    to_be_searched,
)
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.methods.rates import current_lr
from lit_ssl.methods.vl.base import VLModule
from lit_ssl.methods.vl.pairs import with_images
from lit_ssl.methods.vl.scoring import TextsByLength
from lit_ssl.metrics.vl.retrieval import RetrievalRecall
from lit_ssl.models.vl.heads import RetrievalHead
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.run import is_fast_dev_run
from lit_ssl.trainer.step_logs import log_loss, log_values

__all__ = ["ImageTextRetrieval"]

_MATCHING = "itm_head"
_DIRECTIONS = {"tr": "text", "ir": "image"}  # of the metric → in logs


class ImageTextRetrieval(VLModule):
    """Finds texts for an image, and images for a text, by the score of each pair.

    Training compares each image with its own text and K texts of other images:

        v = embed_images(image)                        # once per image
        s_0, s_k = head(pooled(v, text)), head(pooled(v, text_k))    # k = 1 … K
        loss = -log softmax([s_0, s_1, …, s_K])[0]

    Evaluation scores every image with every text, ``chunk_size`` pairs at a time: I · T pairs,
    shared out over processes by image. It logs the recall among the k = 1, 5, 10 best of texts for
    an image (``val/text_r1``, …; any of its texts counts) and of images for a text
    (``val/image_r1``, …).

    The head starts as the row of a match of the matching head, where ``pretrained`` has that and no
    retrieval head; so a pretrained network can be tested without any training.

    Args:
        backbone: see ``VLModule``.
        chunk_size: most pairs to score at once in evaluation, ≥ 1.
        kwargs: Arguments of ``VLModule``.

    Raises:
        InputError: for values outside their ranges.

    Source: arXiv 2102.03334, dandelin/ViLT.
    """

    heads: tuple[str, ...] = ("retrieval_head",)

    def __init__(self, backbone: nn.Module, chunk_size: int = 256, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, not {chunk_size}")
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)
        self.chunk_size = chunk_size
        self.retrieval_head = self.new_head(RetrievalHead(self.backbone.pooled_size))
        self.recall = RetrievalRecall()
        self._found: dict[str, RetrievalTexts] = {}  # by split
        self._texts: TextsByLength | None = None  # while evaluating

    def score(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """How well texts and images go together: float32 ``[B]``, any real number.

        Args:
            inputs: A batch of pairs; see the backbone.
        """
        pooled = self.backbone(inputs).pooled
        weight, bias = self.retrieval_head.weight, self.retrieval_head.bias
        # in half precision many scores would be equal
        with torch.autocast(pooled.device.type, enabled=False):
            return F.linear(pooled.float(), weight.float(), bias.float()).squeeze(1)

    # weights and data

    @by_name
    def setup(self, stage: str) -> None:
        """Load the weights to start from, and say how many pairs an evaluation scores."""
        super().setup(stage)
        self._found = {}
        split = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
        source = data_source(self.trainer)
        if split is None or (source is self and not isinstance(source, RetrievalData)):
            return  # loaders without a data module, maybe to train only: batches will tell
        texts = self._found[split] = to_be_searched(self.trainer, split)
        count, images = len(texts.image_numbers), len(texts.image_numbers.unique())
        if count:
            rank_zero_info(
                f"{split}: {images:,} images × {count:,} texts = {images * count:,} pairs to score"
            )

    def load_head(self, name: str, weights: VLWeights) -> bool:
        """Load the retrieval head, or make one of the matching head; returns whether there was one.

        Args:
            name: of a head that the module has.
            weights: what ``pretrained`` holds.

        Raises:
            InputError: if there is neither, and no training to come.
        """
        if super().load_head(name, weights):
            return True
        matching = weights.heads.get(_MATCHING, {})
        if {"weight", "bias"} <= matching.keys():
            self.retrieval_head.start_from_(matching["weight"], matching["bias"])
            rank_zero_info(f"{name} starts as the row of a match of {_MATCHING}")
            return True
        if self.trainer.state.fn != "fit":
            raise InputError(
                f"{self.pretrained} has neither {name} nor {_MATCHING} to score pairs with: train "
                "first, or take a checkpoint of image-text matching or of retrieval"
            )
        return False

    # training

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and scores ``[B, K + 1]``, those of the own texts first."""
        inputs = texts_with_negatives(batch)
        ids, mask = (_own_first(inputs, name) for name in ("input_ids", "attention_mask"))
        rows, count, _ = ids.shape
        images = self.backbone.embed_images(inputs["images"], inputs.get("pixel_mask"))
        texts = {"input_ids": ids.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
        sources = torch.arange(rows, device=ids.device).repeat_interleave(count)
        pairs = with_images(texts, images, sources, rows)
        scores = self.score(pairs).view(rows, count)
        target = torch.zeros(rows, dtype=torch.int64, device=scores.device)
        loss = F.cross_entropy(scores, target)
        log_loss(self, loss, rows)
        hits = count_right(scores, target) / rows
        log_values(self, {"train/acc1": hits, "train/lr": current_lr(self.trainer)}, rows)
        return {"loss": loss, "scores": scores.detach()}

    # evaluation

    def on_validation_start(self) -> None:
        """Bring all texts to the device."""
        self._begin("val", self.trainer.num_val_batches, self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Bring all texts to the device."""
        self._begin("test", self.trainer.num_test_batches, self.trainer.test_dataloaders)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Score images with all texts; returns scores ``[b, T]`` and the numbers of the images."""
        return self._compare("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Score images with all texts; returns scores ``[b, T]`` and the numbers of the images."""
        return self._compare("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the recalls."""
        self._log_recalls("val")

    def on_test_epoch_end(self) -> None:
        """Log the recalls."""
        self._log_recalls("test")

    def on_validation_end(self) -> None:
        """Let the texts go."""
        self._end()

    def on_test_end(self) -> None:
        """Let the texts go."""
        self._end()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Scores ``[B]`` of pairs of a text with an image: batches of images with captions."""
        return self.score(inputs_of(batch))

    @property
    def _is_a_trial(self) -> bool:
        """Whether only some images come, to see that all goes well, and nothing is logged."""
        return bool(self.trainer.sanity_checking or is_fast_dev_run(self.trainer))

    @by_name
    def _begin(self, split: str, batches: Any, loaders: Any) -> None:
        if isinstance(loaders, list | tuple) and len(loaders) != 1:
            raise InputError(f"needs one loader of images to evaluate on, got {len(loaders)}")
        loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
        count = sized_len(loader)
        if count is not None and sum(batches) < count and not self._is_a_trial:
            fewer = ", and give the data max_images" if split == "val" else ""
            raise InputError(
                f"needs all {count} batches of images for a recall, not {sum(batches)}: leave"
                f" out limit_{split}_batches{fewer}"
            )
        if split not in self._found:
            self._found[split] = to_be_searched(self.trainer, split)
        self._texts = TextsByLength(self._found[split].inputs, self.device)
        self.recall.to(self.device).reset()

    @by_name
    def _compare(self, split: str, batch: Any) -> dict[str, Tensor]:
        inputs, numbers = image_batch(batch)
        assert self._texts is not None
        images = self.backbone.embed_images(inputs["images"], inputs.get("pixel_mask"))
        most = self.chunk_size if self._is_a_trial else None
        scores = self._texts.scores(self.score, images, self.chunk_size, most)
        if not self._is_a_trial:
            self.recall.update(scores, numbers, self._found[split].image_numbers.to(numbers))
        return {"scores": scores, "image_numbers": numbers}

    @by_name
    def _log_recalls(self, split: str) -> None:
        if self._is_a_trial:
            return
        for name, value in self.recall.compute().items():
            way, _, k = name.partition("_")
            self.log(
                f"{split}/{_DIRECTIONS[way]}_{k}",
                value.to(self.device, torch.float32),
                prog_bar=k == "r1",
                sync_dist=True,
            )

    def _end(self) -> None:
        self.recall.reset()
        self._texts = None


def _own_first(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """Own and other texts together, ``[B, K + 1, L]``, the shorter filled up with 0."""
    own, others = inputs[name][:, None], inputs[f"negative_{name}"]
    width = max(own.shape[2], others.shape[2])
    parts = [F.pad(part, (0, width - part.shape[2])) for part in (own, others)]
    return torch.cat(parts, dim=1)
