"""Masked Siamese Networks (arXiv 2204.07141)."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_ssl.checkpoints.encoders import fit_weights
from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.contracts.batches import parts_of, refuse_clips
from lit_ssl.contracts.modules import features_and_labels, features_of_inputs
from lit_ssl.errors import InputError, by_name, check_choice, check_numbers
from lit_ssl.losses.msn import MSNLoss, MSNLossOutput
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.rates import current_lr, mark_scheduled, set_rates
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.backbones.vit import (
    ClassTokenViT,
    checkpoint_activations,
    draw_kept_patches,
)
from lit_ssl.models.ema import ema_update_, target_copy
from lit_ssl.models.heads import ProjectionHead
from lit_ssl.optim import Schedule, decay_groups, linear
from lit_ssl.optim.adamw import adamw
from lit_ssl.optim.clipping import clip_grad_norm_
from lit_ssl.precision import autocast_to_inputs, kept_wide
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import epochs_to_steps, total_steps
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.private import leftover_scale
from lit_ssl.trainer.run import is_logged
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["MSN"]


class MSN(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """Masked Siamese Networks: masked views must find the prototypes of a full view.

    Batches are ``(views, labels)`` or ``views``: a list with one tensor ``[B, count, C, H, W]`` per
    crop size. Of the first (large) crops, number 0 is the target and the others are masked anchors;
    all crops of the other sizes are unmasked ("focal") anchors. Labels, if any, are not used.

    ``forward(images)`` gives the class token of the target (EMA) backbone after its final norm;
    [`features`][lit_ssl.methods.MSN.features] gives the one before the norm, which the paper's
    evaluation protocols use.

    Args:
        backbone: timm name of a ViT with class token (``vitc_4gf`` and ``deit_small_convstem``, the
            reference's with a convolutional stem, are names too); a timm ``VisionTransformer``; or
            any module with ``forward(images, keep=None) -> [B, D]``, ``embed_dim`` and
            ``patch_size``.
        backbone_kwargs: passed to ``timm.create_model`` with a name, e.g. ``img_size``, ``depth``.
        initialization: of a backbone given by name: ``reference`` (as in MSN's code) or ``sincos``
            (Xavier weights and sine-cosine positions; much better for narrow networks).
        mask_ratio: share of patches dropped from the large anchors, in [0, 1).
        mask_mode: draw the patches for each image (``image``) or once per batch and process
            (``batch``, as the reference code does).
        num_prototypes: number K of prototypes; 2–10 times the expected number of classes.
        proj_hidden_dim: hidden width of the projection head.
        proj_output_dim: width D of projections and prototypes.
        proj_use_bn: BatchNorm in the projection head.
        temperature: τ of the predictions.
        sharpen_temperature: T of the targets at the start.
        final_sharpen_temperature: T at the end.
        sinkhorn_iterations: Sinkhorn iterations on the targets.
        me_max_weight: weight λ of mean-entropy maximisation (5 suits ``sinkhorn_iterations=0``).
        entropy_weight: weight of the predictions' mean entropy.
        ema_decay: momentum of the target network at the start.
        final_ema_decay: momentum that the (stretched) schedule runs towards.
        schedule_stretch: all schedules are laid out over this multiple of the run and cut off at
            its end, as in the reference code.
        lr: peak learning rate.
        start_lr: learning rate at the start of the warm-up.
        final_lr: learning rate that the cosine runs towards.
        warmup_epochs: length of the warm-up in epochs (fractions allowed).
        weight_decay: at the start.
        final_weight_decay: towards the end, by a cosine.
        decay_pos_and_cls: decay the class token and the position table too (as the reference code
            does).
        clip_grad_norm: clip backbone and head, but not the prototypes, to this total norm; None:
            never. ``Trainer(gradient_clip_val=...)`` replaces it and clips everything.
        freeze_prototypes_steps: keep the prototypes fixed for the first n steps; −1: always.
        gather: use all processes in the loss; False leaves the training step free of communication.
        queue_size: for small batches (or with gradient accumulation): Sinkhorn and the mean
            prediction see the assignments of so many images of the latest steps too, of all
            processes together; 0: those of the batch alone, as in the paper.
        optimizer: replaces AdamW; learning rate and weight decay still follow the schedules.
        pretrained: file with weights to start from, of any origin that
            ``lit_ssl.checkpoints.origins.read_weights`` knows. Heads and prototypes are taken
            from files of MSN and PMSN; beside other backbones they start afresh.
        activation_checkpointing: keep only the inputs of the backbone's blocks for the gradient and
            compute the rest again: the same gradients in less memory, for about a third more time.

    Raises:
        InputError: if an option lies out of its range, or has none of its values.

    Differs from the paper: the projection head has BatchNorm in its hidden layers only, and
    schedules are stretched by 1.25 (both as in the released code); masks are drawn per image.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "vit_small_patch16_224",
        backbone_kwargs: dict[str, Any] | None = None,
        initialization: Literal["reference", "sincos"] = "reference",
        mask_ratio: float = 0.15,
        mask_mode: Literal["image", "batch"] = "image",
        num_prototypes: int = 1024,
        proj_hidden_dim: int = 2048,
        proj_output_dim: int = 256,
        proj_use_bn: bool = True,
        temperature: float = 0.1,
        sharpen_temperature: float = 0.25,
        final_sharpen_temperature: float = 0.25,
        sinkhorn_iterations: int = 3,
        me_max_weight: float = 1.0,
        entropy_weight: float = 0.0,
        ema_decay: float = 0.996,
        final_ema_decay: float = 1.0,
        schedule_stretch: float = 1.25,
        lr: float = 1e-3,
        start_lr: float = 2e-4,
        final_lr: float = 1e-6,
        warmup_epochs: float = 15.0,
        weight_decay: float = 0.04,
        final_weight_decay: float = 0.4,
        decay_pos_and_cls: bool = True,
        clip_grad_norm: float | None = 3.0,
        freeze_prototypes_steps: int = 0,
        gather: bool = True,
        queue_size: int = 0,
        optimizer: OptimizerCallable | None = None,
        pretrained: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise InputError(f"mask_ratio must lie in [0, 1), not {mask_ratio}")
        if num_prototypes < 2 or warmup_epochs < 0:
            raise InputError(
                "MSN needs num_prototypes >= 2 and warmup_epochs >= 0, not "
                f"{num_prototypes} and {warmup_epochs}"
            )
        check_choice("mask_mode", mask_mode, ("image", "batch"))
        self.save_hyperparameters(ignore=not_plain(backbone=backbone, optimizer=optimizer))
        check_numbers(self.hparams)
        self.mask_ratio = mask_ratio
        self.mask_mode = mask_mode
        self.sharpen_temperature = sharpen_temperature
        self.final_sharpen_temperature = final_sharpen_temperature
        self.ema_decay = ema_decay
        self.final_ema_decay = final_ema_decay
        self.schedule_stretch = schedule_stretch
        self.lr = lr
        self.start_lr = start_lr
        self.final_lr = final_lr
        self.warmup_epochs = warmup_epochs
        self.weight_decay = weight_decay
        self.final_weight_decay = final_weight_decay
        self.decay_pos_and_cls = decay_pos_and_cls
        self.clip_grad_norm = clip_grad_norm
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self.optimizer_factory = optimizer
        self.pretrained = pretrained

        with weights_follow(bool(pretrained)):
            network = _make_backbone(backbone, initialization, backbone_kwargs or {})
        if activation_checkpointing:
            checkpoint_activations(network)
        self.backbone = network
        self.embed_dim: int = network.embed_dim
        self.patch_size: tuple[int, int] = tuple(network.patch_size)
        self.projection_head = ProjectionHead(
            self.embed_dim, proj_hidden_dim, proj_output_dim, use_bn=proj_use_bn
        )
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, proj_output_dim))
        nn.init.uniform_(self.prototypes, -(proj_output_dim**-0.5), proj_output_dim**-0.5)
        self.prototypes.requires_grad_(freeze_prototypes_steps != -1)
        self.target_backbone = target_copy(self.backbone)
        self.target_head = target_copy(self.projection_head)
        self.loss_options: dict[str, Any] = {
            "temperature": temperature,
            "sinkhorn_iterations": sinkhorn_iterations,
            "me_max_weight": me_max_weight,
            "entropy_weight": entropy_weight,
            "gather": gather,
            "queue_size": queue_size,
        }
        self.loss = MSNLoss(**self.loss_options, num_prototypes=num_prototypes)

    # ---------------------------------------------------------------- features

    @property
    def encoder(self) -> nn.Module:
        """The network to keep: the target backbone, with timm's parameter names."""
        return getattr(self.target_backbone, "vit", self.target_backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Class token of the target backbone, normed: ``[B, C, H, W]`` → ``[B, embed_dim]``.

        Args:
            images: normalised; H and W are multiples of the patch size.
        """
        with autocast_to_inputs(images):
            return self.target_backbone(images)

    def features(self, images: Tensor, blocks: int = 1, mask_ratio: float = 0.0) -> Tensor:
        """Class tokens of the last blocks before the final norm, as MSN's evaluation uses them.

        Args:
            images: ``[B, C, H, W]``.
            blocks: number of last blocks to concatenate.
            mask_ratio: share of patches to drop, drawn for each image.

        Returns:
            ``[B, embed_dim * blocks]``.
        """
        keep = self.draw_mask(images, mask_ratio)
        with autocast_to_inputs(images):
            return self.target_backbone(images, keep, norm=False, blocks=blocks)

    def project(self, images: Tensor) -> Tensor:
        """What the target network compares with the prototypes.

        Args:
            images: ``[B, C, H, W]``.

        Returns:
            ``[B, proj_output_dim]``; the prototype of an image is the one with the largest cosine.
        """
        return self.encode_target(images)[1]

    # ---------------------------------------------------------------- training

    @by_name
    @minds_lone_batches("projection_head")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss, features and assignments of the target, and the kept patches."""
        large, focal = self._split(batch)
        features, targets = self.encode_target(large[:, 0])
        anchors = large[:, 1:].transpose(0, 1).flatten(0, 1)  # [B, R, …] -> view-major [R * B, …]
        keep = self.draw_mask(anchors, self.mask_ratio)
        projections = [self.encode_anchor(anchors, keep)] if len(anchors) else []
        projections += [self.encode_anchor(view.transpose(0, 1).flatten(0, 1)) for view in focal]

        out = self.loss(
            torch.cat(projections),
            targets,
            self.prototypes,
            self.sharpen_temperature_at(self.trainer.global_step),
        )
        self._log_step(out)
        step = {"loss": out.loss, "features": features, "targets": out.target_probs}
        if keep is not None:
            step["kept_patches"] = keep
        return step

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, D]`` and projections of the target views, without gradient.

        Args:
            images: ``[B, C, H, W]``.
        """
        with autocast_to_inputs(images):
            features = self.target_backbone(images)
            return features, self.target_head(features)

    def encode_anchor(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Projections of anchor views of one size, view-major.

        Args:
            images: ``[V * B, C, H, W]``.
            keep: indices of the patches that are seen, ``[V * B, n]`` or ``[n]``; None: all.

        Returns:
            ``[V * B, proj_output_dim]``.
        """
        return self.projection_head(self.backbone(images, keep))

    def draw_mask(self, images: Tensor, mask_ratio: float) -> Tensor | None:
        """Patches to keep, ``[B, n]`` or ``[n]``; None: all.

        Args:
            images: ``[B, C, H, W]``, for their number and size.
            mask_ratio: share of the patches that is dropped, in [0, 1).
        """
        if mask_ratio == 0 or len(images) == 0:
            return None
        height, width = images.shape[-2:]
        patches = (height // self.patch_size[0]) * (width // self.patch_size[1])
        return draw_kept_patches(
            len(images), patches, mask_ratio, self.mask_mode, device=images.device
        )

    # ------------------------------------------------------------ optimisation

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (or ``optimizer``), decayed and undecayed groups; prototypes are never decayed."""
        self._rates_at(0)  # a run of unknown length is refused now
        groups = decay_groups(
            ((name, p) for name, p in self.named_parameters() if p.requires_grad),
            self.weight_decay,
            exclude=self._is_undecayed,
        )
        if self.optimizer_factory is not None:
            return mark_scheduled(self.optimizer_factory(groups))
        # also the weight decay of parameters that a callback adds
        return adamw(groups, may_fuse(self), lr=self.lr, weight_decay=self.weight_decay)

    def _is_undecayed(self, name: str, parameter: nn.Parameter) -> bool:
        if parameter.ndim <= 1 or name == "prototypes":
            return True
        table = name.rsplit(".", 1)[-1] in ("cls_token", "pos_embed", "reg_token")
        return table and not self.decay_pos_and_cls

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate and weight decay, step, then move the target network.

        The target moves here and not at the end of the batch, where checkpoints of this step would
        already be written without its update.
        """
        step = self.trainer.global_step
        set_rates(self.trainer, optimizer, *self._rates_at(step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        momentum = self.ema_decay_at(step)
        ema_update_(self.target_backbone, self.backbone, momentum)
        ema_update_(self.target_head, self.projection_head, momentum)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the prototypes still while they are frozen."""
        if self.trainer.global_step < self.freeze_prototypes_steps:
            self.prototypes.grad = None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip backbone and head only, unless the Trainer asks for its own clipping."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        clipped = [*self.backbone.parameters(), *self.projection_head.parameters()]
        limit = math.inf if self.clip_grad_norm is None else self.clip_grad_norm
        norm = clip_grad_norm_(clipped, limit, leftover_scale(self.trainer, optimizer))
        if is_logged(self.trainer):
            self.log("train/grad_norm", norm)

    # ---------------------------------------------------------------- schedules

    def _rates_at(self, step: int) -> tuple[float, float]:
        """Learning rate and weight decay in optimiser step ``step`` (from 0)."""
        # As in the reference: whole steps, counted from 1 in these two schedules.
        total = int(self.schedule_stretch * total_steps(self.trainer))
        warmup = int(epochs_to_steps(self.trainer, self.warmup_epochs, "warmup_epochs"))
        lr = Schedule(self.start_lr, self.lr, self.final_lr, total, warmup)
        decay = Schedule(0.0, self.weight_decay, self.final_weight_decay, total)
        return lr(step + 1), decay(step + 1)

    def _stretched(self, start: float, final: float, step: int) -> float:
        return linear(step, self.schedule_stretch * total_steps(self.trainer), start, final)

    def ema_decay_at(self, step: int) -> float:
        """Momentum of the target network in optimiser step ``step`` (from 0).

        Args:
            step: of the whole training.
        """
        return self._stretched(self.ema_decay, self.final_ema_decay, step)

    def sharpen_temperature_at(self, step: int) -> float:
        """Sharpening temperature T in optimiser step ``step`` (from 0).

        Args:
            step: of the whole training.
        """
        return self._stretched(self.sharpen_temperature, self.final_sharpen_temperature, step)

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

        A file without an online network initialises it from the target.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, or its weights do not fit.
        """
        weights = read_weights(path, self.encoder)
        fit_weights(self.encoder, weights.encoder, path)
        online = getattr(self.backbone, "vit", self.backbone)
        fit_weights(online, weights.network(online=True), path)
        parts = {"backbone": True, "projection head": False, "prototypes": False}
        if weights.target_head:
            how = "projection head", "give the proj_… arguments of that run"
            fit_weights(self.target_head, weights.target_head, path, *how)
            trained = weights.projection_head or weights.target_head
            fit_weights(self.projection_head, trained, path, *how)
            parts["projection head"] = True
        if weights.target_head and weights.prototypes is not None:
            how = "prototypes", "give num_prototypes and proj_output_dim of that run"
            own = nn.ParameterDict({"prototypes": self.prototypes})
            fit_weights(own, {"prototypes": weights.prototypes}, path, *how)
            parts["prototypes"] = True
        say_start(self, weights.source, parts)

    # ------------------------------------------------------------------ helpers

    def _apply(self, fn: Any, recurse: bool = True) -> MSN:
        """Convert or move; half precision does not reach the target network."""
        with kept_wide(self.target_backbone, self.target_head):
            super()._apply(fn, recurse)
        return self

    def _split(self, batch: Any) -> tuple[Tensor, list[Tensor]]:
        views = parts_of(batch).inputs
        refuse_clips(views, type(self).__name__)
        if not isinstance(views, list) or any(v.ndim != 5 for v in views):
            raise InputError(
                "MSN trains on multi-view batches: a list of tensors [B, count, C, H, W], one per "
                "crop size, or (views, labels); give the data module a MultiCrop as train_transform"
            )
        anchors = views[0].shape[1] - 1 + sum(v.shape[1] for v in views[1:])
        if anchors < 1:
            raise InputError(
                "MSN needs the target view and at least one anchor view: set "
                "count: 2 for the first crop"
            )
        return views[0], views[1:]

    def _log_step(self, out: MSNLossOutput) -> None:
        size = len(out.target_probs)
        log_loss(self, out.loss, size)
        if not is_logged(self.trainer):
            return
        step = self.trainer.global_step
        group = self.trainer.optimizers[0].param_groups[0]
        log_values(
            self,
            {
                "train/cross_entropy": out.cross_entropy,
                "train/me_max": out.me_max,
                "train/entropy": out.entropy,
                "train/max_target_prob": out.target_probs.amax(dim=1).mean(),
                "train/lr": current_lr(self.trainer),
                "train/weight_decay": group.get("weight_decay", 0.0),
                "train/ema_decay": self.ema_decay_at(step),
            },
            size,
        )


def _make_backbone(backbone: Any, initialization: Any, kwargs: dict[str, Any]) -> Any:
    if isinstance(backbone, str):
        return ClassTokenViT.create(backbone, initialization, **kwargs)
    if kwargs:
        raise InputError("backbone_kwargs belong to a backbone given by name; this one is a module")
    if hasattr(backbone, "embed_dim") and hasattr(backbone, "patch_size"):
        return backbone
    return ClassTokenViT(backbone)
