"""SuNCEt: SimCLR, and supervised noise contrast on the labelled images (arXiv 2006.10803)."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_ssl.contracts.batches import two_stream_batch, view_major
from lit_ssl.errors import InputError, by_name
from lit_ssl.losses.suncet import NTXentLoss, SuNCEtLoss
from lit_ssl.methods.paws import PAWS, Embeddings
from lit_ssl.methods.rates import current_lr
from lit_ssl.trainer.run import is_logged
from lit_ssl.trainer.step_logs import log_loss, log_values

__all__ = ["SuNCEt"]


class SuNCEt(PAWS):
    """SimCLR on all images together with SuNCEt on a few labelled ones, PAWS' predecessor.

    Batches, network, optimiser and weights are those of [`PAWS`][lit_ssl.methods.PAWS]; small crops
    are not used. With ``contrastive_weight: 0`` it trains on the labelled images alone, and the
    network does not see the others: together with ``freeze_batchnorm`` and ``pretrained`` PAWS'
    fine-tuning on CIFAR-10.

    Args:
        backbone: as in [`PAWS`][lit_ssl.methods.PAWS].
        backbone_kwargs: as in [`PAWS`][lit_ssl.methods.PAWS].
        num_classes: as in [`PAWS`][lit_ssl.methods.PAWS].
        proj_hidden_dim: as in [`PAWS`][lit_ssl.methods.PAWS].
        proj_output_dim: as in [`PAWS`][lit_ssl.methods.PAWS].
        activation: as in [`PAWS`][lit_ssl.methods.PAWS].
        temperature: τ of both losses.
        label_smoothing: of the labels in SuNCEt.
        contrastive_weight: weight ≥ 0 of SimCLR's loss.
        supervised_epochs: epochs at the start of the run in which SuNCEt is part of the loss; None:
            all.
        detach_others: SimCLR's loss has no gradient into the views that a view is compared with, as
            in the released code; False is SimCLR's own loss.
        lr: peak learning rate.
        start_lr: learning rate at the start of the warm-up.
        final_lr: learning rate at the end of the cosine.
        warmup_epochs: length of the warm-up in epochs (fractions allowed).
        momentum: of SGD inside LARS.
        weight_decay: of the weights that are not excluded.
        trust_coefficient: of LARS.
        lr_in_momentum: as in [`PAWS`][lit_ssl.methods.PAWS].
        exclude_mode: as in [`PAWS`][lit_ssl.methods.PAWS].
        freeze_batchnorm: BatchNorm layers normalise with the statistics that they have and keep
            them, as in evaluation; their weights are trained.
        gather: use the images of all processes.
        channels_last: as in [`PAWS`][lit_ssl.methods.PAWS].
        optimizer: as in [`PAWS`][lit_ssl.methods.PAWS].
        pretrained: as in [`PAWS`][lit_ssl.methods.PAWS].

    Raises:
        InputError: if an option lies out of its range.

    Source: arXiv 2006.10803; learning rates of its released ImageNet recipe.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        proj_hidden_dim: int | None = None,
        proj_output_dim: int = 2048,
        activation: Literal["relu", "gelu"] = "relu",
        temperature: float = 0.1,
        label_smoothing: float = 0.0,
        contrastive_weight: float = 1.0,
        supervised_epochs: int | None = None,
        detach_others: bool = True,
        lr: float = 4.8,
        start_lr: float = 0.6,
        final_lr: float = 0.048,
        warmup_epochs: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust_coefficient: float = 1e-3,
        lr_in_momentum: bool = True,
        exclude_mode: Literal["ndim", "name"] = "ndim",
        freeze_batchnorm: bool = False,
        gather: bool = True,
        channels_last: bool | None = None,
        optimizer: OptimizerCallable | None = None,
        pretrained: str | None = None,
    ) -> None:
        if contrastive_weight < 0 or (supervised_epochs is not None and supervised_epochs < 0):
            raise InputError(
                "SuNCEt needs contrastive_weight >= 0 and supervised_epochs >= 0, not "
                f"{contrastive_weight} and {supervised_epochs}"
            )
        super().__init__(
            backbone=backbone,
            backbone_kwargs=backbone_kwargs,
            num_classes=num_classes,
            proj_hidden_dim=proj_hidden_dim,
            proj_output_dim=proj_output_dim,
            use_prediction_head=False,
            activation=activation,
            temperature=temperature,
            label_smoothing=label_smoothing,
            lr=lr,
            start_lr=start_lr,
            final_lr=final_lr,
            warmup_epochs=warmup_epochs,
            momentum=momentum,
            weight_decay=weight_decay,
            trust_coefficient=trust_coefficient,
            lr_in_momentum=lr_in_momentum,
            exclude_mode=exclude_mode,
            gather=gather,
            channels_last=channels_last,
            optimizer=optimizer,
            pretrained=pretrained,
        )
        self.contrastive_weight = contrastive_weight
        self.supervised_epochs = supervised_epochs
        self.freeze_batchnorm = freeze_batchnorm
        self.suncet = SuNCEtLoss(temperature, label_smoothing, gather)
        self.contrastive = NTXentLoss(temperature, detach_others, gather)
        self.train()  # frozen layers are in eval mode from the start

    def train(self, mode: bool = True) -> SuNCEt:
        """Switch to training or evaluation; frozen BatchNorm layers stay in eval mode."""
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns the loss, and features of the first large views if it sees them."""
        views, support, labels = two_stream_batch(batch)
        self.look_at_supports(labels, batch_idx)
        if self.contrastive_weight == 0:
            return {"loss": self._supervised_loss(support, labels, batch_idx)}
        size = len(views[0])
        supports, large = self.encode([view_major(support), view_major(views[0])])
        supervised = self._suncet(supports, labels.repeat(support.shape[1]), batch_idx)
        contrastive = self.contrastive(large.predictions.unflatten(0, (2, size)))
        loss = self.contrastive_weight * contrastive
        limit = self.supervised_epochs
        if limit is None or self.trainer.current_epoch < limit:
            loss = loss + supervised
        log_loss(self, loss, size)
        if is_logged(self.trainer):
            parts = {"train/suncet": supervised, "train/contrastive": contrastive}
            log_values(self, {**parts, "train/lr": current_lr(self.trainer)}, size)
        return {"loss": loss, "features": large.features[:size].detach()}

    def _suncet(self, supports: Embeddings, labels: Tensor, batch_idx: int) -> Tensor:
        """SuNCEt's loss; once in an epoch the host waits to see that classes are there twice."""
        return self.suncet(supports.predictions, labels, self.num_classes, look=batch_idx == 0)

    def _supervised_loss(self, support: Tensor, labels: Tensor, batch_idx: int) -> Tensor:
        """SuNCEt's loss of supports ``[M, views, C, H, W]``, logged."""
        supports = self.encode([view_major(support)])[0]
        loss = self._suncet(supports, labels.repeat(support.shape[1]), batch_idx)
        log_loss(self, loss, len(labels))
        log_values(self, {"train/lr": current_lr(self.trainer)}, len(labels))
        return loss
