"""Supervised image classification: a baseline and a probe for the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.answers import count_right
from lit_ssl.checkpoints.encoders import load_encoder
from lit_ssl.contracts.batches import inputs_of, labelled_batch
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.rates import current_lr, mark_scheduled, set_rates
from lit_ssl.metrics.accuracy import KnownAccuracy
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.optim import MultiStep, Schedule, decay_groups, set_schedules
from lit_ssl.optim.adamw import sgd
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import epochs_to_steps, total_steps
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["ImageClassifier"]


class ImageClassifier(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """Supervised classifier: a backbone and a linear layer, cross-entropy.

    Batches are ``(images, labels)``; labels of −1 do not count. The learning rate rises linearly,
    then falls at milestones, or along a cosine where there are none. ``forward(images)`` gives the
    backbone's features, [`logits`][lit_ssl.methods.ImageClassifier.logits] the scores of the
    classes.

    With ``freeze_backbone`` it is a linear probe: only the classifier is trained, and the backbone
    stays in eval mode, so that BatchNorm and dropout do not move its features.

    Args:
        backbone: timm name of any model; ``resnet50w2``, ``resnet50w4``, ``wide_resnet`` or
            ``wide_resnet28_2``; or a module with ``forward(images) -> [B, D]`` and D as
            ``embed_dim`` or ``num_features``.
        backbone_kwargs: arguments of a backbone given by name, e.g. ``in_chans``, ``img_size``,
            ``drop_path_rate``, ``pretrained: true`` for timm's own weights.
        num_classes: number of classes, ≥ 2; ``lit-ssl`` takes it from the data module.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        lr: peak learning rate.
        start_lr: learning rate of the first step.
        final_lr: where the cosine ends.
        warmup_epochs: length of the linear warm-up in epochs (fractions allowed).
        milestones: epochs at which the learning rate is multiplied by ``milestone_factor``; None: a
            cosine over the whole run.
        milestone_factor: > 0.
        weight_decay: of all weights but biases, norms and what timm's model excludes.
        momentum: of SGD (Nesterov), in (0, 1).
        optimizer: replaces SGD, e.g. ``AdamW``; learning rate and weight decay stay those above.
        freeze_backbone: train the classifier only.
        pretrained: file with weights of the backbone: any of
            ``lit_ssl.checkpoints.origins.read_weights``, such as a checkpoint of another run,
            the output of ``lit-ssl export`` or an official checkpoint.
        prefix: of the backbone's names in that file, as in
            [`FrozenEncoder`][lit_ssl.methods.FrozenEncoder].

    Raises:
        ValueError: for values outside their ranges, or a backbone whose width is not known.

    Source: learning-rate schedule, SGD with Nesterov momentum and initial weights as in arXiv
    1706.02677, sections 2.2 and 5.1.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        lr: float = 0.1,
        start_lr: float = 0.01,
        final_lr: float = 0.0,
        warmup_epochs: float = 5.0,
        milestones: Sequence[float] | None = None,
        milestone_factor: float = 0.1,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        optimizer: OptimizerCallable | None = None,
        freeze_backbone: bool = False,
        pretrained: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        _check(who, num_classes, label_smoothing, momentum, milestones, milestone_factor)
        assert num_classes is not None
        self.save_hyperparameters(ignore=not_plain(backbone=backbone, optimizer=optimizer))
        check_numbers(self.hparams)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.lr = lr
        self.start_lr = start_lr
        self.final_lr = final_lr
        self.warmup_epochs = warmup_epochs
        self.milestones = milestones
        self.milestone_factor = milestone_factor
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.optimizer_factory = optimizer
        self.freeze_backbone = freeze_backbone
        self.pretrained = pretrained
        self.prefix = prefix

        with weights_follow(bool(pretrained)):
            self.backbone, self.embed_dim = _make_backbone(backbone, backbone_kwargs or {})
        self.classifier = nn.Linear(self.embed_dim, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.val_acc1 = KnownAccuracy(num_classes)
        self.test_acc1 = KnownAccuracy(num_classes)
        self.train()  # a frozen backbone is in eval mode from the start

    # features and scores

    @property
    def encoder(self) -> nn.Module:
        """The network to keep, with timm's parameter names."""
        return self.backbone

    def forward(self, images: Tensor) -> Tensor:
        """Features: ``[B, C, H, W]`` → ``[B, embed_dim]``.

        Args:
            images: normalised, of a size that the backbone takes.

        Raises:
            InputError: if the backbone gives anything but ``[B, embed_dim]``.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            features = self.backbone(images)
        if features.ndim != 2:
            raise InputError(
                f"the backbone gives {list(features.shape)} for images {list(images.shape)}; "
                f"{type(self).__name__} needs pooled features [B, embed_dim]"
            )
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Scores of the classes: ``[B, C, H, W]`` → ``[B, num_classes]``.

        Args:
            images: as of ``forward``.
        """
        return self.classifier(self(images))

    def train(self, mode: bool = True) -> ImageClassifier:
        """Switch to training or evaluation; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def labelled(self, batch: Any, look: bool = False) -> tuple[Tensor, Tensor]:
        """Inputs and labels ``[B]`` of a batch; see ``labelled_batch``.

        Args:
            batch: what a loader gave.
            look: whether the host may wait to see the labels' values.
        """
        return labelled_batch(batch, self.num_classes, look)

    # training

    @by_name
    @minds_lone_batches("classifier")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features."""
        images, labels = self.labelled(batch, look=batch_idx == 0)
        features = self(images)
        logits = self.classifier(features)
        loss = self._loss(logits, labels)
        log_loss(self, loss, len(labels))
        # A plain mean: a metric object would make the host wait for the device.
        share = count_right(logits, labels) / (labels != -1).sum().clamp(min=1)
        log_values(self, {"train/acc1": share, "train/lr": self._lr()}, len(labels))
        return {"loss": loss, "features": features.detach()}

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits.float(),
            labels,
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / (labels != -1).sum().clamp(min=1)

    def _lr(self) -> float:
        return current_lr(self.trainer)

    @property
    def schedule(self) -> Schedule | MultiStep:
        """Learning rate as a function of the optimiser step (from 0).

        Raises:
            ValueError: if the run or its epochs have no known length.
        """
        total = total_steps(self.trainer)
        warmup = epochs_to_steps(self.trainer, self.warmup_epochs, "warmup_epochs")
        if self.milestones is None:
            return Schedule(self.start_lr, self.lr, self.final_lr, total, warmup)
        steps = tuple(epochs_to_steps(self.trainer, m, "milestones") for m in self.milestones)
        return MultiStep(self.start_lr, self.lr, steps, self.milestone_factor, warmup)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum (or ``optimizer``) on decayed and undecayed groups."""
        named = ((name, p) for name, p in self.named_parameters() if p.requires_grad)
        groups = decay_groups(named, self.weight_decay, exclude=self._is_undecayed)
        if self.optimizer_factory is not None:
            optimizer = mark_scheduled(self.optimizer_factory(groups))
        else:
            optimizer = self._sgd(groups)
        return self._at_peak(optimizer)

    def _sgd(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum; parameters that a callback adds are decayed, too."""
        return sgd(
            groups,
            may_fuse(self),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
        )

    def _at_peak(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Give an optimizer the values that a scheduler of a subclass starts from."""
        self.schedule(0)  # a run of unknown length is refused now
        set_schedules(optimizer, self.lr, self.weight_decay)
        return optimizer

    def _is_undecayed(self, name: str, parameter: nn.Parameter) -> bool:
        excluded: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return parameter.ndim <= 1 or name.removeprefix("backbone.") in excluded

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate, then step."""
        rate = self.schedule(self.trainer.global_step)
        set_rates(self.trainer, optimizer, rate, self.weight_decay)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    # evaluation

    def evaluated(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Features ``[B, embed_dim]`` and labels ``[B]`` of an evaluation batch.

        Args:
            batch: what a loader gave.
        """
        images, labels = self.labelled(batch)
        return self(images), labels

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Log loss and accuracy; returns features and labels."""
        return self._evaluate(batch, "val", self.val_acc1)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Log loss and accuracy; returns features and labels."""
        return self._evaluate(batch, "test", self.test_acc1)

    @by_name
    def _evaluate(self, batch: Any, split: str, accuracy: KnownAccuracy) -> dict[str, Tensor]:
        features, labels = self.evaluated(batch)
        logits = self.classifier(features)
        accuracy.update(logits, labels)
        # How many the loss is the mean of. A float, since Lightning takes the mean of these numbers
        # over the processes, and would cut that of integers off; the host does not wait.
        known: Any = (labels != -1).sum().float()
        self.log(f"{split}/acc1", accuracy, prog_bar=True, batch_size=known)
        self.log(f"{split}/loss", self._loss(logits, labels), batch_size=known, sync_dist=True)
        return {"features": features, "labels": labels}

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[B, num_classes]`` of ``images`` or ``(images, labels)``."""
        images = inputs_of(batch)
        return self.logits(images).float().softmax(dim=1)

    # weights

    def load_start(self) -> None:
        """Load the ``pretrained`` weights."""
        if self.pretrained:
            self.load_backbone(self.pretrained)

    def load_backbone(self, path: str) -> None:
        """Load weights into the backbone; see the argument ``pretrained``.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, or its weights do not fit.
        """
        weights = load_encoder(self.backbone, path, prefix=self.prefix)
        say_start(self, weights.source, {"backbone": True, "classifier": False})


def _check(
    who: str,
    num_classes: int | None,
    label_smoothing: float,
    momentum: float,
    milestones: Sequence[float] | None,
    factor: float,
) -> None:
    if num_classes is None:
        raise InputError(
            f"{who} needs num_classes: give it (lit-ssl takes it from data modules that know it)"
        )
    if num_classes < 2:
        raise InputError(
            f"{who} needs at least 2 classes, not num_classes={num_classes}: it learns from labels"
            " (of a folder of images or videos: one folder for each class)"
        )
    if not 0 <= label_smoothing < 1 or not 0 < momentum < 1:
        raise InputError(
            "label_smoothing must lie in [0, 1) and momentum in (0, 1), not "
            f"{label_smoothing} and {momentum}"
        )
    if milestones is not None and list(milestones) != sorted(set(milestones)):
        raise InputError(f"milestones must be increasing epochs, not {list(milestones)}")
    if factor <= 0:
        raise InputError(f"milestone_factor must be positive, not {factor}")


def _make_backbone(backbone: str | nn.Module, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    """Network and its width; residual branches start switched off, as in arXiv 1706.02677."""
    if isinstance(backbone, str) and timm.models.is_model_in_modules(backbone, ["resnet"]):
        kwargs = {"zero_init_last": True, **kwargs}
    network, width = create_backbone(backbone, kwargs)
    if getattr(network, "num_classes", 0):
        raise InputError(
            f"{type(network).__name__} has a classifier of its own: build it with num_classes=0, "
            "or give its timm name"
        )
    return network, width
