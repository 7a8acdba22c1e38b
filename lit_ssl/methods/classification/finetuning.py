"""Fine-tuning of a pre-trained backbone, whole."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.checkpoints.encoders import first_projection, fit_weights, load_encoder
from lit_ssl.contracts.batches import labelled_batch
from lit_ssl.errors import InputError, by_name
from lit_ssl.methods.classification.image_classifier import ImageClassifier
from lit_ssl.methods.rates import mark_scheduled
from lit_ssl.optim.param_groups import layer_decay_groups
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import say_start
from lit_ssl.transforms.erasing import RandomErasing
from lit_ssl.transforms.mixing import BatchMixing

__all__ = ["FineTuning"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class FineTuning(ImageClassifier):
    """Trains a pre-trained backbone and a new classifier on labelled images.

    An [`ImageClassifier`][lit_ssl.methods.ImageClassifier] with what fine-tuning adds: a classifier
    that starts at zero, the first layer of the projection head kept below it, learning rates that
    fall with the depth of a layer, mixup and CutMix. The defaults are PAWS' recipe; the one of
    vision transformers is ``optimizer: AdamW`` with ``layer_decay``, ``mixup``, ``cutmix``,
    ``random_erasing``, ``label_smoothing`` and ``drop_path_rate`` among ``backbone_kwargs``.

    Args:
        backbone: as in [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
        backbone_kwargs: as in [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
        num_classes: as in [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
        pretrained: as in [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
        layer_decay: factor in (0, 1] of the learning rate for each layer below the classifier; 1:
            the same for all.
        mixup: α of mixup; 0 switches it off.
        cutmix: α of CutMix; 0 switches it off. With both on, each batch gets one of them.
        random_erasing: probability that a rectangle of a training image becomes noise
            ([`RandomErasing`][lit_ssl.transforms.RandomErasing]), before mixing; for normalised
            images.
        head_std: standard deviation of the classifier's initial weights.
        proj_hidden_dim: width of the projection head's first layer (linear, BatchNorm, activation),
            to keep it between backbone and classifier, as PAWS does; None: the classifier takes the
            backbone's features.
        activation: of that layer, ``relu`` (PAWS) or ``gelu`` (MSN).
        lr: peak learning rate, of the classifier where ``layer_decay`` is below 1.
        start_lr: learning rate of the first step, with a warm-up.
        warmup_epochs: length of the linear warm-up in epochs (fractions allowed).
        weight_decay: of all weights but biases, norms and what timm's model excludes.
        kwargs: further arguments of [`ImageClassifier`][lit_ssl.methods.ImageClassifier].

    Raises:
        ValueError: for values outside their ranges, or a ``layer_decay`` for a backbone that does
            not tell its layers.

    Source: PAWS, arXiv 2104.13963, released code; MAE, arXiv 2111.06377, table 9, which MSN follows
    (arXiv 2204.07141, appendix A.4).
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        pretrained: str | None = None,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        random_erasing: float = 0.0,
        head_std: float = 0.0,
        proj_hidden_dim: int | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        lr: float = 0.02,
        start_lr: float = 0.0,
        warmup_epochs: float = 0.0,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            backbone_kwargs,
            num_classes,
            pretrained=pretrained,
            lr=lr,
            start_lr=start_lr,
            warmup_epochs=warmup_epochs,
            weight_decay=weight_decay,
            **kwargs,
        )
        if not 0 < layer_decay <= 1 or head_std < 0 or activation not in _ACTIVATIONS:
            raise InputError(
                "FineTuning needs layer_decay in (0, 1], head_std >= 0 and activation 'relu' or "
                f"'gelu', not {layer_decay}, {head_std} and {activation!r}"
            )
        self.layer_decay = layer_decay
        self.erasing = RandomErasing(random_erasing) if random_erasing else None
        self.mixing = BatchMixing(mixup, cutmix) if mixup or cutmix else None
        self.proj_hidden_dim = proj_hidden_dim
        self.classifier: nn.Module = _make_classifier(  # type: ignore[assignment]
            self.embed_dim, proj_hidden_dim, self.num_classes, _ACTIVATIONS[activation], head_std
        )
        if layer_decay < 1:
            self._layer_groups()  # an unfit backbone is told now, not after reading the data

    # training

    @by_name
    @minds_lone_batches("classifier")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features."""
        images, labels = labelled_batch(batch, self.num_classes, look=batch_idx == 0)
        if self.erasing is not None:
            images = self.erasing(images)
        if self.mixing is None:
            return super().training_step((images, labels), batch_idx)
        images, targets = self.mixing(images, self._soft_targets(labels))
        features = self(images)
        log_probs = self.classifier(features).float().log_softmax(dim=1)
        loss = -(targets * log_probs).sum() / targets.sum().clamp(min=1e-6)
        log_loss(self, loss, len(labels))
        log_values(self, {"train/lr": self._lr()}, len(labels))
        return {"loss": loss, "features": features.detach()}

    def _soft_targets(self, labels: Tensor) -> Tensor:
        """Smoothed targets ``[B, num_classes]``, all 0 where the label is not known."""
        one_hot = F.one_hot(labels.clamp(min=0), self.num_classes).float()
        smooth = (1 - self.label_smoothing) * one_hot + self.label_smoothing / self.num_classes
        return smooth * (labels != -1)[:, None]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum, or ``optimizer``, on one or more groups for each layer."""
        if self.layer_decay == 1:
            return super().configure_optimizers()
        groups = self._layer_groups()
        if self.optimizer_factory is not None:
            optimizer = mark_scheduled(self.optimizer_factory(groups))
        else:
            optimizer = self._sgd(groups)
        return self._at_peak(optimizer)

    def _layer_groups(self) -> list[dict[str, Any]]:
        head = self.classifier.named_parameters(prefix="classifier")
        return layer_decay_groups(
            self.backbone, head, self.weight_decay, self.layer_decay, self._is_undecayed
        )

    # weights

    def load_backbone(self, path: str) -> None:
        """Load weights into the backbone, and into the projection layer where one is kept.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, its weights do not fit, or it has no such layer.
        """
        weights = load_encoder(self.backbone, path, prefix=self.prefix)
        parts = {"backbone": True}
        if self.proj_hidden_dim is not None:
            first = first_projection(weights, path)
            layers = {name: self.classifier.get_submodule(name) for name in ("fc1", "bn1")}
            mend = f"set proj_hidden_dim to {len(first['fc1.weight'])}"
            fit_weights(nn.ModuleDict(layers), first, path, "projection layer", mend)
            parts["projection layer"] = True
        say_start(self, weights.source, {**parts, "classifier": False})


def _make_classifier(
    embed_dim: int,
    hidden_dim: int | None,
    num_classes: int,
    activation: type[nn.Module],
    std: float,
) -> nn.Module:
    """Linear layer, with ``fc1, bn1, act1`` below it where a projection layer is kept."""
    linear = nn.Linear(hidden_dim or embed_dim, num_classes)
    nn.init.normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    if hidden_dim is None:
        return linear
    layers = {
        "fc1": nn.Linear(embed_dim, hidden_dim),
        "bn1": nn.BatchNorm1d(hidden_dim),
        "act1": activation(),
        "linear": linear,
    }
    return nn.Sequential(OrderedDict(layers))
