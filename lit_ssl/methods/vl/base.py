"""What modules over images and texts share: weights to start from, rates, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_ssl.checkpoints.vision_language import (
    VLWeights,
    fit_vl_backbone,
    fit_vl_head,
    read_vl_weights,
)
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.rates import set_rates
from lit_ssl.models.vl.initial import draw_small_network_
from lit_ssl.models.vl.output import VLOutput
from lit_ssl.optim import LinearDecay, decay_groups, is_bias_or_norm, set_schedules
from lit_ssl.optim.adamw import adamw
from lit_ssl.text.tokens import vocabulary_fingerprint
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.length import total_steps
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["VLModule"]

_Head = TypeVar("_Head", bound=nn.Module)
_VOCABULARY = "vocabulary"  # key in checkpoints
_COMPILED = "_orig_mod"  # where torch.compile keeps a network, and what its names begin with
_ANOTHER = (
    "{source} was trained with another vocabulary than that of the data (their fingerprints differ)"
    ": its weights mean other words. Give the data the tokenizer of that training"
)


class VLModule(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """A backbone over images and texts, the weights that it starts from, and its optimizer.

    Parameters are in up to three parts with rates of their own: ``lr`` for the backbone, ``lr ·
    lr_mult_cross_modal`` for what only joins both streams, ``lr · lr_mult_head`` for the heads.
    The rates rise linearly in the warm-up and fall linearly to 0.

    A checkpoint keeps a fingerprint of the vocabulary: ids of another one are refused wherever
    weights are loaded.

    Args:
        backbone: [`ViltBackbone`][lit_ssl.models.ViltBackbone],
            [`CoAttentionBackbone`][lit_ssl.models.CoAttentionBackbone], or a network with their
            attributes.
        pretrained: file or folder with weights to start from: a checkpoint of another run, of
            ViLT, or a ViLT of transformers, with the heads that it has.
        lr: peak learning rate.
        weight_decay: of all parameters but norms and biases, Swin's of relative positions, too.
        betas: of AdamW.
        warmup_ratio: part of the run in which the rates rise, in [0, 1].
        warmup_steps: number of such steps, in place of the part.
        lr_mult_head: factor of the rate of the heads.
        lr_mult_cross_modal: factor of the rate of what joins the streams of a two-stream backbone.

    Raises:
        InputError: for values outside their ranges.

    Source: optimizer and rates of dandelin/ViLT and zdou0830/METER.
    """

    heads: tuple[str, ...] = ()  # attributes that a file of weights may have, too

    def __init__(
        self,
        backbone: nn.Module,
        pretrained: str | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup_ratio: float = 0.1,
        warmup_steps: int | None = None,
        lr_mult_head: float = 1.0,
        lr_mult_cross_modal: float = 1.0,
    ) -> None:
        super().__init__()
        numbers = {"lr": lr, "weight_decay": weight_decay, "lr_mult_head": lr_mult_head}
        numbers |= {"lr_mult_cross_modal": lr_mult_cross_modal, "warmup_steps": warmup_steps or 0}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise InputError(f"{type(self).__name__} needs a finite {name} >= 0, not {value}")
        if not 0 <= warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must lie in [0, 1], not {warmup_ratio}")
        if not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas must lie in [0, 1), not {tuple(betas)}")
        self.backbone: Any = backbone
        self.pretrained = pretrained
        self.lr = lr
        self.weight_decay = weight_decay
        self.betas = (betas[0], betas[1])
        self.warmup_ratio = warmup_ratio
        self.warmup_steps = warmup_steps
        self.lr_mult_head = lr_mult_head
        self.lr_mult_cross_modal = lr_mult_cross_modal
        self.vocabulary: str | None = None  # fingerprint; None: not known

    def forward(self, inputs: Mapping[str, Tensor]) -> VLOutput:
        """Final states and pooled vectors of pairs; see the backbone.

        Args:
            inputs: images and ``input_ids``, ``attention_mask`` ``[B, L]``.
        """
        return self.backbone(inputs)

    def new_head(self, head: _Head) -> _Head:
        """Draw the weights of a head as those of the backbone were drawn; returns the head.

        Args:
            head: changed in place; where the backbone was drawn as BERT, it is so already.
        """
        if getattr(self.backbone, "initialization", "bert") == "fan_in":
            head.apply(draw_small_network_)
        return head

    # weights

    def setup(self, stage: str) -> None:
        """Compare vocabulary and texts of the data with the backbone; load the starting weights."""
        self._meet_vocabulary()
        self._meet_texts()
        super().setup(stage)

    def load_start(self) -> None:
        """Load the ``pretrained`` weights: the backbone, and the heads that are there.

        Raises:
            InputError: if they are of another vocabulary than the data.
        """
        if not self.pretrained:
            rank_zero_info(f"{type(self).__name__} starts from {self.backbone.start}")
            return
        weights = read_vl_weights(self.pretrained)
        if self.vocabulary and weights.vocabulary and weights.vocabulary != self.vocabulary:
            raise InputError(_ANOTHER.format(source=self.pretrained))
        self.load_backbone(weights)
        own = [name for name in self.heads if hasattr(self, name)]
        found = {name: self.load_head(name, weights) for name in own}
        say_start(self, weights.source, {"backbone": True, **found})

    def load_backbone(self, weights: VLWeights) -> None:
        """Load the backbone.

        Args:
            weights: what ``pretrained`` holds.
        """
        plain = getattr(self.backbone, _COMPILED, self.backbone)
        fit_vl_backbone(plain, weights, self.pretrained or "")

    def load_head(self, name: str, weights: VLWeights) -> bool:
        """Load one of the ``heads``, where the file has it; returns whether it has.

        Args:
            name: of a head that the module has.
            weights: what ``pretrained`` holds.
        """
        return fit_vl_head(getattr(self, name), name, weights, self.pretrained or "")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the fingerprint of the vocabulary."""
        checkpoint[_VOCABULARY] = self.vocabulary

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another vocabulary than that of the data."""
        super().on_load_checkpoint(checkpoint)
        theirs = checkpoint.get(_VOCABULARY)
        if self.vocabulary and theirs and theirs != self.vocabulary:
            raise InputError(_ANOTHER.format(source="The checkpoint"))
        self.vocabulary = self.vocabulary or theirs

    def _meet_vocabulary(self) -> None:
        tokenizer = getattr(data_source(self.trainer), "text_tokenizer", None)
        if tokenizer is None:  # data of a user's own
            return
        here, there = len(tokenizer), self.backbone.vocab_size
        if here > there:
            raise InputError(
                f"the data's tokenizer has {here} tokens, but the backbone has embeddings of "
                f"{there}: give the backbone vocab_size: {here}, or the data another tokenizer"
            )
        if here < there:
            rank_zero_warn(
                f"The data's tokenizer has {here} tokens, the backbone embeddings of {there}; "
                f"{there - here} are never used. Is it the tokenizer that belongs to it?"
            )
        found = vocabulary_fingerprint(tokenizer)
        if self.vocabulary and self.vocabulary != found:
            raise InputError(_ANOTHER.format(source="This module"))
        self.vocabulary = found

    def _meet_texts(self) -> None:
        """A long text may come late in the training: it is refused at the start."""
        longest = getattr(data_source(self.trainer), "longest_text", 0)
        positions = getattr(self.backbone, "max_text_len", longest)
        if longest > positions:
            raise InputError(
                f"the data's texts have up to {longest} tokens, but the backbone has positions for "
                f"{positions}: give the data max_length: {positions}, which cuts longer ones, or "
                "the backbone more positions (max_position_embeddings)"
            )

    # optimization

    @property
    def schedule(self) -> LinearDecay:
        """Learning rate as a function of the optimiser step (from 0).

        Raises:
            InputError: if the run has no known length.
        """
        total = total_steps(self.trainer)
        steps = self.warmup_steps
        return LinearDecay(self.lr, total, total * self.warmup_ratio if steps is None else steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the parts of the network, each decayed and not."""
        self.schedule(0)  # a run of unknown length is refused now
        groups = []
        for part, factor, named in self._parts():
            for group in decay_groups(named, self.weight_decay, _is_undecayed):
                groups.append({**group, "name": f"{part}_{group['name']}", "lr_scale": factor})
        optimizer = adamw(
            groups,
            may_fuse(self),
            lr=self.lr,
            betas=self.betas,
            eps=1e-8,
            weight_decay=self.weight_decay,
        )
        set_schedules(optimizer, self.lr, self.weight_decay)
        return optimizer

    def _parts(self) -> Iterator[tuple[str, float, list[tuple[str, nn.Parameter]]]]:
        """Name, factor of the rate, and parameters of each part."""
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
        joining = tuple(f"backbone.{prefix}" for prefix in self.backbone.cross_modal_prefixes)
        for full_name, parameter in self.named_parameters():
            name = full_name.replace(f"{_COMPILED}.", "")
            if name.startswith(joining):
                part = "cross_modal"
            else:
                part = "backbone" if name.startswith("backbone.") else "heads"
            parts.setdefault(part, []).append((name, parameter))
        factors = {"heads": self.lr_mult_head, "cross_modal": self.lr_mult_cross_modal}
        for part, named in parts.items():
            yield part, factors.get(part, 1.0), named

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate, then step."""
        rate = self.schedule(self.trainer.global_step)
        set_rates(self.trainer, optimizer, rate, self.weight_decay)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


def _is_undecayed(name: str, parameter: nn.Parameter) -> bool:
    # the released codes go by this word, so that Swin's tables are biases, too
    return is_bias_or_norm(name, parameter) or "bias" in name
