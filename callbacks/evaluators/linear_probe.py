"""A linear classifier that trains beside the representation without touching it."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.answers import count_right
from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.contracts.batches import check_labels, describe, first_view, split_batch
from lit_ssl.contracts.data import num_classes_of
from lit_ssl.contracts.modules import embed_dim_of, feature_function
from lit_ssl.distributed import all_reduce_mean, is_distributed
from lit_ssl.errors import InputError, by_name
from lit_ssl.trainer.passes import evaluation_mode, on_rank_zero
from lit_ssl.trainer.run import logging_interval


class LinearProbeEvaluator(RepresentationEvaluator):
    """Online linear probe: its accuracy follows the quality of the features during training.

    After each training step a classifier on the detached features of that step (``features`` of
    the step's outputs, or else a forward pass of the first view) takes one AdamW step. Features are
    standardised with running statistics (as by BatchNorm without parameters), so neither their
    scale nor a large common part matters. No gradient reaches the module. Labels of −1 are ignored.
    Classifier and optimiser are saved in the checkpoint, so that a resumed run continues exactly.

    On several processes all take the step of their joined batch. With local steps
    (``lit_ssl.strategies.LocalSGDStrategy``) each trains a classifier of its own, which is
    averaged when the strategy synchronises, so that nothing is communicated in between; the average
    is evaluated, and a checkpoint holds rank zero's.

    Logs ``train/linear_loss``, ``val/linear_acc1`` and ``test/linear_acc1`` (in [0, 1]). The probe
    lags behind moving features: report numbers of a probe fitted afterwards
    ([`RepresentationReport`][lit_ssl.callbacks.RepresentationReport]).

    Args:
        lr: Learning rate of AdamW, > 0.
        weight_decay: Weight decay of AdamW, >= 0.
        every_n_epochs: During fit, evaluate after every n-th epoch and at its end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``, D =
            ``embed_dim``; must give the same kind of features as the training step's outputs.
        num_classes: Number of classes; None takes the data module's.

    Raises:
        ValueError: If a value lies outside its range.
    """

    needs_bank: ClassVar[bool] = False
    family: ClassVar[str] = "linear"
    on_progress_bar: ClassVar[tuple[str, ...]] = ("linear_acc1",)

    def __init__(
        self,
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        every_n_epochs: int = 1,
        feature_method: str = "forward",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, feature_method, num_classes)
        if lr <= 0 or weight_decay < 0:
            raise InputError(
                f"LinearProbeEvaluator needs lr > 0 and weight_decay >= 0, got lr={lr}, "
                f"weight_decay={weight_decay}"
            )
        self.lr = lr
        self.weight_decay = weight_decay
        self.head: ProbeClassifier | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Classifier and optimiser, for the checkpoint."""
        if self.head is None or self.optimizer is None:
            return self._restored or {}
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the device is known."""
        self._restored = state_dict or None
        self.head = self.optimizer = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the contracts before the run."""
        super().setup(trainer, pl_module, stage)
        embed_dim_of(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the classifier, or take it from the checkpoint."""
        if self.head is None and not self.is_off:
            self._build(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Use the state of a checkpoint that a strategy restored only after the fit began."""
        super().on_train_start(trainer, pl_module)
        if self.head is None and not self.is_off:
            self._build(trainer, pl_module)

    @by_name
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Train the classifier on the features of this step."""
        if self.is_off:
            return
        features, labels = self._training_pair(pl_module, outputs, batch, look=batch_idx == 0)
        loss = self._train(features, labels, joined=is_distributed() and not _is_local(trainer))
        if trainer.global_step % logging_interval(trainer) == 0:
            pl_module.log("train/linear_loss", loss, batch_size=len(labels))

    def on_after_sync(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by strategies with local steps: average classifier and optimiser.

        Args:
            trainer: not used.
            pl_module: not used.
        """
        if self.head is None or self.optimizer is None or not is_distributed():
            return
        states = self.optimizer.state.values()
        moments = [v for state in states for v in state.values() if v.ndim > 0]
        _average_(self.head, moments)

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """Accuracy of the classifier as it stands; nothing if it was never trained."""
        if self.head is None:
            if self._restored is None:
                rank_zero_warn(
                    "LinearProbeEvaluator logs nothing: its classifier has not been trained. Give "
                    "ckpt_path of a run that had this callback, or use RepresentationReport"
                )
                return {}
            self._build(trainer, pl_module)
        head = self.head
        assert head is not None
        if _is_local(trainer) and is_distributed():
            head = copy.deepcopy(head)
            _average_(head, [])
        queries = self.sharded(trainer, pl_module, split)
        rows = queries.on_rank_zero()

        def compute() -> dict[str, float]:
            assert rows is not None
            with torch.no_grad():
                scores = head(rows.to(pl_module.device)).cpu()
            right = count_right(scores, queries.labels)
            return {"linear_acc1": (right / len(queries.labels)).item()}

        return on_rank_zero(trainer, compute)

    @torch.inference_mode(False)  # else a later fit could not train what a test built
    def _build(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        classes = num_classes_of(trainer, self.num_classes)
        # Own generator: equal weights on all processes, and the training's randomness is untouched.
        generator = torch.Generator().manual_seed(0)
        head = ProbeClassifier(embed_dim_of(pl_module), classes, generator)
        self.head = head.to(pl_module.device)
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        if self._restored is not None:
            self.head.load_state_dict(self._restored["head"])
            self.optimizer.load_state_dict(self._restored["optimizer"])
            self._restored = None

    def _training_pair(
        self, pl_module: pl.LightningModule, outputs: Any, batch: Any, look: bool
    ) -> tuple[Tensor, Tensor]:
        inputs, labels = split_batch(batch)
        if labels is None:
            raise InputError(
                "needs labels, but the training batch is "
                f"{describe(batch)}: serve (images or views, labels) or remove the callback"
            )
        features = outputs.get("features") if isinstance(outputs, dict) else None
        if features is None:
            function = feature_function(pl_module, self.feature_method)
            precision = pl_module.trainer.precision_plugin.forward_context()
            with torch.no_grad(), evaluation_mode(pl_module), precision:
                features = function(first_view(inputs))
        assert self.head is not None
        check_labels(labels, self.head.linear.out_features, look)
        width = self.head.linear.in_features
        if features.shape != (len(labels), width):
            raise InputError(
                f"expected features of the training step of shape [{len(labels)}, {width}] "
                f"(batch, embed_dim), got {list(features.shape)}"
            )
        return features.detach(), labels

    def _train(self, features: Tensor, labels: Tensor, joined: bool) -> Tensor:
        """One step; returns the mean loss of this process's labelled samples."""
        assert self.head is not None
        assert self.optimizer is not None
        parameters = list(self.head.parameters())
        self.head.follow(features, joined)
        with torch.enable_grad():
            loss = F.cross_entropy(self.head(features), labels, ignore_index=-1, reduction="sum")
            gradients = torch.autograd.grad(loss, parameters)
        count = (labels != -1).sum().to(loss.dtype)
        # Sum of gradients over sum of counts: exact also when processes see unequally many labels.
        total = torch.cat([*(g.flatten() for g in gradients), count.reshape(1)])
        if joined:
            torch.distributed.all_reduce(total)
        mean = total[:-1] / total[-1].clamp(min=1)
        sizes = [p.numel() for p in parameters]
        for parameter, gradient in zip(parameters, mean.split(sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.optimizer.step()
        return loss.detach() / count.clamp(min=1)


class ProbeClassifier(nn.Module):
    """Standardisation with running statistics, then a linear layer; always float32.

    Args:
        embed_dim: Width of the features.
        num_classes: Number of classes.
        generator: Draws the initial weights.
    """

    def __init__(self, embed_dim: int, num_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.utils.skip_init(nn.Linear, embed_dim, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self.mean: Tensor
        self.variance: Tensor
        self.steps: Tensor
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("variance", torch.ones(embed_dim))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, D]`` to logits ``[B, C]``.

        Args:
            features: ``[B, D]``; standardised here, in float32, with the running statistics.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.linear((features.float() - self.mean) * (self.variance + 1e-6).rsqrt())

    @torch.no_grad()
    def follow(self, features: Tensor, joined: bool = False) -> None:
        """Move the statistics towards those of a batch, with ``joined`` over all processes.

        Args:
            features: ``[B, D]`` of this process.
            joined: take the statistics of all processes' batches together; then it is a collective.
        """
        # Differences from the running mean: their squares do not cancel when the mean is large.
        rows = features.float() - self.mean
        sums = torch.cat(
            [rows.sum(dim=0), rows.square().sum(dim=0), rows.new_full((1,), len(rows))]
        )
        if joined:
            torch.distributed.all_reduce(sums)
        shift, square = (sums[:-1] / sums[-1]).chunk(2)
        self.steps += 1
        rate = (1 / self.steps).clamp(min=0.05)  # a plain average at first
        self.variance.lerp_((square - shift.square()).clamp(min=0), rate)
        self.mean.lerp_(self.mean + shift, rate)


def _is_local(trainer: pl.Trainer) -> bool:
    """Whether processes train by themselves at the moment."""
    return getattr(trainer.strategy, "is_local", False)


@torch.no_grad()
def _average_(head: ProbeClassifier, moments: list[Tensor]) -> None:
    """Average a classifier, and moments of its optimiser, over processes; variances are pooled."""
    own_mean = head.mean.clone()
    for value in (head.mean, *head.parameters(), *moments):
        value.copy_(all_reduce_mean(value))
    pooled = head.variance + (own_mean - head.mean).square()
    head.variance.copy_(all_reduce_mean(pooled))
