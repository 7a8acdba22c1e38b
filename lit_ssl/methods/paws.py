"""PAWS: predicting view assignments with support samples (arXiv 2104.13963)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lit_ssl.checkpoints.encoders import fit_weights
from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.contracts.batches import two_stream_batch, view_major
from lit_ssl.contracts.modules import features_and_labels, features_of_inputs
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.losses.paws import PAWSLoss, PAWSLossOutput, class_columns
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.rates import current_lr, mark_scheduled, set_rates
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.heads import PredictionHead, ProjectionHead
from lit_ssl.optim import Schedule, decay_groups, is_bias_or_norm, make_lars
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import epochs_to_steps, total_steps
from lit_ssl.trainer.lone_batches import explains_lone_images
from lit_ssl.trainer.run import is_logged
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["PAWS", "Embeddings"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Embeddings(NamedTuple):
    """What the network makes of images, one row each.

    Attributes:
        features: of the backbone, ``[N, embed_dim]``.
        projections: of the projection head, ``[N, D]``: the target branch.
        predictions: of the prediction head, ``[N, D]``: the anchor branch; the projections where
            there is no such head.
    """

    features: Tensor
    projections: Tensor
    predictions: Tensor


class PAWS(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """PAWS: two views of an image must get the same label from a few labelled images.

    Batches are dictionaries: ``unlabelled`` is ``(views, labels)`` or ``views``, a list with one
    tensor ``[B, count, C, H, W]`` per crop size, two large crops first; ``support`` is ``(views,
    labels)`` with one such tensor (or ``[M, C, H, W]``), the same number of views for every class.
    [`SemiSupervisedDataModule`][lit_ssl.datamodules.SemiSupervisedDataModule] serves them. Labels
    of the unlabelled images, if any, are not used.

    ``forward(images)`` gives the backbone's features, [`embed`][lit_ssl.methods.PAWS.embed] what
    PAWS compares.

    Args:
        backbone: timm name of any model; ``resnet50w2``, ``resnet50w4`` or ``wide_resnet28_2``; or
            a module with ``forward(images) -> [B, D]`` and D as ``embed_dim`` or ``num_features``.
        backbone_kwargs: arguments of a backbone given by name, e.g. ``in_chans``.
        num_classes: number of classes, which ``lit-ssl`` takes from the data module; without it a
            GPU is waited for in each step, to find out which classes the supports have.
        proj_hidden_dim: hidden width of the projection head; None: that of the features.
        proj_output_dim: width D of projections and predictions.
        use_prediction_head: predict in the anchor branch; the CIFAR-10 recipe does without.
        pred_hidden_dim: hidden width of the prediction head; None: a quarter of D.
        activation: of both heads, ``relu`` or ``gelu``.
        temperature: τ of the soft nearest neighbours.
        sharpen_temperature: T of the targets; 1 switches sharpening off (and collapses).
        label_smoothing: of the supports' labels, in [0, 1).
        me_max_weight: weight of mean-entropy maximisation; it expects equally frequent classes
            among the unlabelled images, so set it to 0 where they are not.
        target_threshold: entries of a target below it become 0.
        lr: peak learning rate.
        start_lr: learning rate at the start of the warm-up.
        final_lr: learning rate at the end of the cosine.
        warmup_epochs: length of the warm-up in epochs (fractions allowed).
        momentum: of SGD inside LARS.
        weight_decay: of the weights that are not excluded; at the start, if it has a final value.
        final_weight_decay: ≥ 0, reached by a half cosine over the whole training, as for the ViT of
            the authors (facebookresearch/suncet#26); None: ``weight_decay`` throughout.
        trust_coefficient: of LARS.
        lr_in_momentum: the learning rate multiplies gradients before they enter the momentum, as in
            the reference.
        exclude_mode: which parameters have neither weight decay nor LARS: ``ndim``, all biases and
            norms; ``name``, those with "bias" or "bn" in their name, as in the reference (which
            misses the BatchNorms of a ResNet's shortcuts).
        gather: use the supports of all processes; False leaves the training step free of
            communication.
        channels_last: only for configurations and checkpoints of earlier versions: True lets the
            [`Execution`][lit_ssl.callbacks.Execution] of the run do what its own ``channels_last``
            does.
        optimizer: replaces LARS, e.g. ``AdamW``; learning rate and weight decay still follow the
            arguments above.
        pretrained: file with weights to start from, of any origin that
            ``lit_ssl.checkpoints.origins.read_weights`` knows. Heads are taken from files of
            PAWS and its relatives; on other backbones they start afresh.

    Raises:
        InputError: if an option has none of its values, or lies out of its range.

    Differs from the paper: entries of targets below 1e-4 are dropped, as in the released code.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        proj_hidden_dim: int | None = None,
        proj_output_dim: int = 2048,
        use_prediction_head: bool = True,
        pred_hidden_dim: int | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        temperature: float = 0.1,
        sharpen_temperature: float = 0.25,
        label_smoothing: float = 0.1,
        me_max_weight: float = 1.0,
        target_threshold: float = 1e-4,
        lr: float = 6.4,
        start_lr: float = 0.3,
        final_lr: float = 0.064,
        warmup_epochs: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        final_weight_decay: float | None = None,
        trust_coefficient: float = 1e-3,
        lr_in_momentum: bool = True,
        exclude_mode: Literal["ndim", "name"] = "ndim",
        gather: bool = True,
        channels_last: bool | None = None,
        optimizer: OptimizerCallable | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS or exclude_mode not in ("ndim", "name"):
            raise InputError(
                "PAWS needs activation 'relu' or 'gelu' and exclude_mode 'ndim' or 'name', not "
                f"{activation!r} and {exclude_mode!r}"
            )
        if final_weight_decay is not None and final_weight_decay < 0:
            raise InputError(f"final_weight_decay must not be negative, not {final_weight_decay}")
        left_out = not_plain(backbone=backbone, optimizer=optimizer)
        self.save_hyperparameters(ignore=[*left_out, "channels_last"])
        check_numbers(self.hparams)
        self.num_classes = num_classes
        self.lr = lr
        self.start_lr = start_lr
        self.final_lr = final_lr
        self.warmup_epochs = warmup_epochs
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.final_weight_decay = final_weight_decay
        self.trust_coefficient = trust_coefficient
        self.lr_in_momentum = lr_in_momentum
        self.exclude_mode = exclude_mode
        self.channels_last = channels_last
        self.optimizer_factory = optimizer
        self.pretrained = pretrained

        with weights_follow(bool(pretrained)):
            self.backbone, self.embed_dim = create_backbone(backbone, backbone_kwargs)
        kind = _ACTIVATIONS[activation]
        hidden = proj_hidden_dim or self.embed_dim
        self.projection_head = ProjectionHead(
            self.embed_dim, hidden, proj_output_dim, activation=kind, init_std=None
        )
        self.prediction_head = (
            PredictionHead(proj_output_dim, pred_hidden_dim, kind) if use_prediction_head else None
        )
        self.loss_options: dict[str, Any] = {
            "temperature": temperature,
            "sharpen_temperature": sharpen_temperature,
            "label_smoothing": label_smoothing,
            "me_max_weight": me_max_weight,
            "target_threshold": target_threshold,
            "gather": gather,
        }
        self.loss = PAWSLoss(**self.loss_options)

    # ---------------------------------------------------------------- features

    @property
    def encoder(self) -> nn.Module:
        """The network to keep, with timm's (or torchvision's) parameter names."""
        return self.backbone

    def forward(self, images: Tensor) -> Tensor:
        """Features of the backbone: ``[B, C, H, W]`` → ``[B, embed_dim]``.

        Args:
            images: normalised, of a size that the backbone takes.
        """
        return self.backbone(images)

    def embed(self, images: Tensor) -> Tensor:
        """What soft nearest neighbours compare: ``[B, C, H, W]`` → ``[B, D]``, heads included.

        Args:
            images: as of ``forward``.
        """
        return self._embeddings(images).predictions

    def _embeddings(self, images: Tensor) -> Embeddings:
        features = self(images)
        projections = self.projection_head(features)
        head = self.prediction_head
        return Embeddings(features, projections, projections if head is None else head(projections))

    def encode(self, batches: Sequence[Tensor]) -> list[Embeddings]:
        """Embed several batches; consecutive ones of one image size are one for BatchNorm.

        Args:
            batches: images ``[N, C, H, W]`` each.

        Returns:
            One for each batch.
        """
        encoded: list[Embeddings] = []
        for _, same_size in groupby(batches, key=lambda images: images.shape[1:]):
            group = list(same_size)
            sizes = [len(images) for images in group]
            with explains_lone_images("a single image of one size in a training batch"):
                joined = self._embeddings(torch.cat(group) if len(group) > 1 else group[0])
            parts = zip(*(rows.split(sizes) for rows in joined), strict=True)
            encoded += [Embeddings(*part) for part in parts]
        return encoded

    # ---------------------------------------------------------------- training

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns the loss, and features and targets of the first large views."""
        views, support, labels = two_stream_batch(batch)
        self.look_at_supports(labels, batch_idx)
        size = len(views[0])
        flat = [view_major(v) for v in (support, *views)]
        supports, large, *small = self.encode(flat)
        out = self.compute_loss(supports, large, small, labels.repeat(support.shape[1]), size)
        self._log_step(out, size)
        step = {"loss": out.loss, "features": large.features[:size].detach()}
        if self.num_classes is not None:  # else the columns are other classes in each step
            step["targets"] = out.targets[0]
        return step

    def look_at_supports(self, labels: Tensor, batch_idx: int) -> None:
        """Check the supports' labels once in an epoch, though the host waits for it.

        Args:
            labels: int64, classes of the supports.
            batch_idx: number of the batch; those after the first are not looked at.
        """
        if batch_idx == 0:
            class_columns(labels.cpu(), self.num_classes)

    def compute_loss(
        self,
        supports: Embeddings,
        large: Embeddings,
        small: Sequence[Embeddings],
        labels: Tensor,
        batch_size: int,
    ) -> PAWSLossOutput:
        """The loss of embedded views, all view-major.

        Args:
            supports: of all views of the supports, M rows.
            large: of both large views, 2B rows.
            small: of the small views, one for each of their sizes.
            labels: classes of the supports, int64 ``[M]``.
            batch_size: B.
        """
        anchors = torch.cat([part.predictions for part in (large, *small)])
        targets: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.prediction_head is not None:
            projections = large.projections.detach().unflatten(0, (-1, batch_size))
            targets = projections, supports.projections
        return self.loss(
            anchors.unflatten(0, (-1, batch_size)),
            supports.predictions,
            labels,
            *targets,
            num_classes=self.num_classes,
        )

    def _log_step(self, out: PAWSLossOutput, size: int) -> None:
        log_loss(self, out.loss, size)
        if not is_logged(self.trainer):
            return
        group = self.trainer.optimizers[0].param_groups[0]
        entropy = -(out.probs * out.probs.clamp_min(1e-30).log()).sum(dim=2).mean()
        log_values(
            self,
            {
                "train/consistency": out.consistency,
                "train/me_max": out.me_max,
                "train/max_target_prob": out.targets.amax(dim=2).mean(),
                "train/entropy": entropy,
                "train/lr": current_lr(self.trainer),
                "train/weight_decay": group.get("weight_decay", 0.0),
            },
            size,
        )

    def on_train_start(self) -> None:
        """Warn where BatchNorm would see each process' images alone."""
        kinds = [type(m) for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if self.trainer.world_size > 1 and any(k is not nn.SyncBatchNorm for k in kinds):
            rank_zero_warn(
                f"{type(self).__name__} on {self.trainer.world_size} processes needs BatchNorm over"
                " all of them, because supports and views are compared across processes: set"
                " Trainer(sync_batchnorm=True) (on GPUs), or use a backbone without BatchNorm"
            )

    # ------------------------------------------------------------ optimisation

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """LARS (or ``optimizer``) on decayed and undecayed groups."""
        self._rates_at(0)  # a run of unknown length is refused now
        exclude = is_bias_or_norm if self.exclude_mode == "ndim" else _named_bias_or_bn
        groups = decay_groups(self.named_parameters(), self.weight_decay, exclude)
        if self.optimizer_factory is not None:
            return mark_scheduled(self.optimizer_factory(groups))
        return make_lars(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            trust_coefficient=self.trust_coefficient,
            lr_in_momentum=self.lr_in_momentum,
        )

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate and weight decay, then step."""
        set_rates(self.trainer, optimizer, *self._rates_at(self.trainer.global_step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def _rates_at(self, step: int) -> tuple[float, float]:
        """Learning rate and weight decay in optimiser step ``step`` (from 0)."""
        total = total_steps(self.trainer)
        warmup = epochs_to_steps(self.trainer, self.warmup_epochs, "warmup_epochs")
        lr = Schedule(self.start_lr, self.lr, self.final_lr, total, warmup)(step)
        if self.final_weight_decay is None:
            return lr, self.weight_decay
        return lr, Schedule(0.0, self.weight_decay, self.final_weight_decay, total)(step)

    # --------------------------------------------------------------- evaluation

    validation_step = test_step = features_and_labels
    predict_step = features_of_inputs

    # -------------------------------------------------------------- checkpoints

    def load_start(self) -> None:
        """Load the ``pretrained`` weights."""
        if self.pretrained:
            self.load_weights(self.pretrained)

    def load_weights(self, path: str) -> None:
        """Load weights of another run or origin; see the argument ``pretrained``.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, its weights do not fit, or the prediction head is in
                only one of file and module.
        """
        weights = read_weights(path, self.backbone)
        fit_weights(self.backbone, weights.encoder, path)
        # MSN's are trained for its prototypes
        has_heads = weights.projection_head is not None and weights.target_head is None
        if has_heads and (weights.prediction_head is None) != (self.prediction_head is None):
            has, needs = ("a", "True") if weights.prediction_head else ("no", "False")
            raise InputError(f"{path} has {has} prediction head: set use_prediction_head={needs}")
        parts = {"backbone": True}
        for name in ("projection_head", "prediction_head"):
            head, what = getattr(self, name), name.replace("_", " ")
            if head is not None:
                parts[what] = has_heads
            if head is not None and has_heads:
                mend = "give the proj_… and pred_… arguments of that run"
                fit_weights(head, getattr(weights, name), path, what, mend)
        say_start(self, weights.source, parts)


def _named_bias_or_bn(name: str, parameter: nn.Parameter) -> bool:
    return "bias" in name or "bn" in name
