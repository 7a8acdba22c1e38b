"""Classification that is robust over groups: ERM, group DRO and what lies between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.contracts.batches import check_labels, grouped_batch
from lit_ssl.contracts.data import group_data, row_seed
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.groups.cells import group_counts
from lit_ssl.groups.weights import balanced_weights, drawn_groups, subsample_weights
from lit_ssl.losses.group_dro import GroupDROLoss
from lit_ssl.methods.groups.evaluation import GroupEvaluation
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.optim.adamw import sgd
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import total_steps
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.private import trainer_of
from lit_ssl.trainer.sharding import refuse_sharding
from lit_ssl.trainer.step_logs import log_loss, log_values

__all__ = ["GroupRobustClassifier"]


class GroupRobustClassifier(GroupEvaluation):
    """A backbone and a linear layer, trained for the worst group.

    Batches are ``(inputs, labels, groups)`` with groups ``y * A + a`` of a class y and an attribute
    a; −1 where the attribute is unknown; or shares of each row in each group. ``forward(inputs)``
    gives the backbone's features, ``logits`` the scores of the classes. The known baselines are
    combinations of three options:

    =================== ========= ========= =============
    method              objective sampling  labelled_only
    =================== ========= ========= =============
    ERM                 erm       uniform   false
    group DRO           group_dro balanced  false
    Subset-GDRO         group_dro balanced  true
    RWG                 erm       balanced  false
    SUBG                erm       subsample false
    =================== ========= ========= =============

    It logs, at the end of a validation or test, ``acc_worst`` (the lowest accuracy of a group: the
    value to select by, for every method), ``acc_avg``, ``acc_adj`` (weighted as the training set is
    made up, where the data say it) and ``acc_group_G``; and in training the group weights
    ``train/q_G``.

    Args:
        backbone: timm name of any model, a name of [`OWN_BACKBONES`][lit_ssl.models.OWN_BACKBONES],
            or a module with ``forward(inputs) -> [B, D]`` and D as ``embed_dim`` or
            ``num_features``, such as [`TextBackbone`][lit_ssl.models.TextBackbone].
        backbone_kwargs: arguments of a backbone given by name, e.g. ``pretrained: true``.
        num_classes: number of classes C, >= 2; ``lit-ssl`` takes it from the data module.
        num_attributes: number of attribute values A; None takes the data module's.
        objective: ``erm``, the mean loss, or ``group_dro``,
            [`GroupDROLoss`][lit_ssl.losses.GroupDROLoss].
        sampling: ``uniform``: shuffled rows. ``balanced``: rows are drawn so that all groups are
            equally frequent. ``subsample``: from a random subset with equally many rows of each
            group. None: balanced for group DRO, else uniform. An epoch always has as many rows as
            the training set, drawn with replacement unless it is uniform.
        labelled_only: use only the rows whose attribute is known.
        step_size: η of group DRO.
        adjustment: C of group DRO's generalisation adjustment ``C / √n_g``; one number, or one per
            group.
        absent: what group DRO makes of groups that a batch lacks.
        gather: form group DRO's means over all processes; False leaves the training step free of
            communication, and the group weights to the strategy, which averages buffers (local
            SGD).
        lr: learning rate.
        weight_decay: of all parameters, as in the released code.
        momentum: of SGD, in [0, 1).
        lr_schedule: ``constant``, or ``linear``: falling to 0 over the training.
        optimizer: replaces SGD, e.g. ``AdamW``; learning rate and weight decay stay those above.

    Raises:
        ValueError: for values outside their ranges.
        InputError: when training starts, if rows lack the group labels that the options need.

    Source: arXiv 1911.08731 and its released code; RWG and SUBG as in arXiv 2110.14503.
    """

    loss: GroupDROLoss | None
    fixed_options: ClassVar[tuple[str, ...]] = ()  # that a subclass sets itself and does not take

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        num_attributes: int | None = None,
        objective: Literal["erm", "group_dro"] = "group_dro",
        sampling: Literal["uniform", "balanced", "subsample"] | None = None,
        labelled_only: bool = False,
        step_size: float = 0.01,
        adjustment: float | list[float] = 0.0,
        absent: Literal["zero", "hold"] = "zero",
        gather: bool = True,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        lr_schedule: Literal["constant", "linear"] = "constant",
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if num_classes is None or num_classes < 2:
            raise InputError(f"{who} needs num_classes >= 2, got {num_classes}")
        if not 0 <= momentum < 1:
            raise InputError(f"{who} needs momentum in [0, 1), got {momentum}")
        check_choice("objective", objective, ("erm", "group_dro"))
        check_choice("sampling", sampling, ("uniform", "balanced", "subsample", None))
        check_choice("lr_schedule", lr_schedule, ("constant", "linear"))
        unsaved = not_plain(backbone=backbone, optimizer=optimizer)
        self.save_hyperparameters(ignore=[*unsaved, *self.fixed_options])
        check_numbers(self.hparams)
        self.num_classes = num_classes
        self.num_attributes = num_attributes
        self.objective = objective
        self.sampling = sampling or ("balanced" if objective == "group_dro" else "uniform")
        self.labelled_only = labelled_only
        self.loss_options = {
            "step_size": step_size, "adjustment": adjustment, "absent": absent, "gather": gather,
        }  # fmt: skip
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.lr_schedule = lr_schedule
        self.optimizer_factory = optimizer

        self.backbone, self.embed_dim = create_backbone(backbone, backbone_kwargs or {})
        self.classifier = nn.Linear(self.embed_dim, num_classes)
        self.loss = None
        if num_attributes is not None:
            self.set_num_attributes(num_attributes)
        self._stage: str | None = None  # what the data module was prepared for

    # groups

    @property
    def num_groups(self) -> int:
        """Number of groups G = C · A."""
        assert self.num_attributes is not None
        return self.num_classes * self.num_attributes

    def set_num_attributes(self, num_attributes: int) -> None:
        """Make what depends on the number of attributes; ``setup`` does it where it is open.

        Args:
            num_attributes: A, of each class.
        """
        self.num_attributes = num_attributes
        self.hparams["num_attributes"] = num_attributes
        if self.objective == "group_dro":
            self.loss = GroupDROLoss(self.num_groups, **self.loss_options)  # type: ignore[arg-type]

    @by_name
    def setup(self, stage: str) -> None:
        """Fit the module to the groups of the data, and check that they are what it needs.

        Raises:
            ValueError: if there are no groups, or their number differs.
            InputError: if rows lack the group labels that the options need.
        """
        data = group_data(self.trainer)
        if self.num_attributes is None:
            self.set_num_attributes(data.num_attributes)
        if (self.num_classes, self.num_attributes) != (data.num_classes, data.num_attributes):
            raise InputError(
                f"{type(self).__name__} was made for {self.num_classes} classes and "
                f"{self.num_attributes} attributes, but {type(data).__name__} has "
                f"{data.num_classes} and {data.num_attributes}"
            )
        self.set_metrics(data)
        refuse_sharding(self, stage)
        if stage == "fit":
            self._stage = None
            self.check_data(data)

    def check_data(self, data: Any) -> None:
        """Check before a fit that rows have the group labels that the options need.

        Args:
            data: the data module with groups.

        Raises:
            InputError: with what to do.
        """
        groups = data.group_array("train")
        unknown = int((groups < 0).sum())
        if self.uses_groups and unknown == len(groups):
            raise InputError(f"no training row has a known {self._attribute(data)}: label some")
        if self.uses_groups and unknown and not self.labelled_only:
            raise InputError(
                f"{unknown:,} of {len(groups):,} training rows have no known "
                f"{self._attribute(data)}, and {type(self).__name__} needs it for all: use BARACK, "
                "which predicts it, or --model.labelled_only true, or --data.group_labels with a "
                "file of predicted groups"
            )
        self.check_validation(data)

    @staticmethod
    def check_validation(data: Any) -> None:
        """Warn if the worst group cannot be found on the validation rows.

        Args:
            data: the data module with groups.
        """
        if not (data.group_array("val") >= 0).any():
            rank_zero_warn(
                "no validation row has a known group: val/acc_worst is undefined, and a checkpoint "
                "chosen by it is that of the first epoch; select by val/acc_avg, and do not expect "
                "a robust choice"
            )

    @property
    def uses_groups(self) -> bool:
        """Whether training looks at the attributes of training rows."""
        return self.objective == "group_dro" or self.sampling != "uniform" or self.labelled_only

    @staticmethod
    def _attribute(data: Any) -> str:
        return f"attribute ({', '.join(map(str, data.attribute_names))})"

    # training

    def on_train_start(self) -> None:
        """Prepare the data also where a fit resumes in the middle of an epoch."""
        self.prepare()

    def on_train_epoch_start(self) -> None:
        """Prepare the data at the start of an epoch."""
        self.prepare()

    def prepare(self) -> None:
        """Tell the data module how to draw, once for each stage of the training."""
        self.prepare_classifier()

    def prepare_classifier(self) -> None:
        """Hand the sizes of the groups to the loss and the sampling weights to the data module."""
        if self._stage == "classifier":
            return
        self._stage = "classifier"
        data = group_data(self.trainer)
        groups, shares = self.training_groups(data)
        counts = group_counts(groups, self.num_groups)
        empty = [data.group_names[g] for g in np.flatnonzero(counts == 0)]
        if self.uses_groups and empty:
            lies = "is" if (groups >= 0).all() else "is known to be"
            rank_zero_warn(
                f"no training row {lies} in the group {' or '.join(empty)}: nothing makes the "
                "classifier robust there"
            )
        weights = self.sampling_weights(data, groups)
        if self.loss is not None:
            sums = counts if shares is None else shares.sum(axis=0, dtype=np.float64)
            drawn = drawn_groups(groups if shares is None else shares, self.num_groups, weights)
            self.loss.set_group_counts(sums.tolist(), drawn.tolist())
        data.set_sampling(weights)

    def training_groups(self, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Groups that training batches carry; may be overridden.

        Args:
            data: the data module.

        Returns:
            int64 ``[N]``, −1 where unknown, and, where groups are soft, shares ``[N, G]``.
        """
        return data.group_array("train"), data.soft_group_array()

    def sampling_weights(self, data: Any, groups: np.ndarray) -> np.ndarray | None:
        """How often to draw each training row; may be overridden.

        Args:
            data: the data module.
            groups: int64 ``[N]``, −1 where unknown.

        Returns:
            float64 ``[N]``, 0 for rows that are not used; None: all once.
        """
        if self.sampling == "balanced":
            return balanced_weights(groups, self.num_groups)
        if self.sampling == "subsample":
            return subsample_weights(groups, self.num_groups, row_seed(data))
        return (groups >= 0).astype(np.float64) if self.labelled_only else None

    @by_name
    @minds_lone_batches("classifier")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features."""
        inputs, labels, groups = grouped_batch(batch)
        check_labels(labels, self.num_classes, look=batch_idx == 0, unknown=False)
        features = self(inputs)
        losses = F.cross_entropy(self.classifier(features).float(), labels, reduction="none")
        size = len(labels)
        if self.loss is None:
            loss = losses.mean()
        else:
            trainer = trainer_of(self)
            batches = 1 if trainer is None else trainer.accumulate_grad_batches
            output = self.loss(losses, groups, part=(batch_idx % batches, batches))
            loss = output.loss
            weights = {f"train/q_{g}": q for g, q in enumerate(output.group_weights)}
            log_values(self, weights, size)
        log_loss(self, loss, size)
        return {"loss": loss, "features": features.detach()}

    def teardown(self, stage: str) -> None:
        """Leave the data module as it was."""
        if stage == "fit":
            data = group_data(self.trainer)
            data.set_groups(None)
            data.set_sampling(None)

    # features and scores

    @property
    def encoder(self) -> nn.Module:
        """The network to keep."""
        return self.backbone

    def forward(self, inputs: Any) -> Tensor:
        """Features: a batch of inputs → ``[B, embed_dim]``.

        Args:
            inputs: images ``[B, C, H, W]``, or a dictionary of token tensors ``[B, L]``.
        """
        return self.backbone(inputs)

    # optimiser

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, with learning rate and weight decay; may be extended."""
        parts = (self.backbone, self.classifier)
        return [parameter_group("classifier", parts, self.lr, self.weight_decay)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum, or ``optimizer``."""
        groups = self.parameter_groups()
        if self.optimizer_factory is not None:
            return self.optimizer_factory(groups)
        decay = self.weight_decay  # of parameters that a callback adds, too
        rates: dict[str, Any] = {"lr": self.lr, "momentum": self.momentum}
        return sgd(groups, may_fuse(self), **rates, weight_decay=decay)

    def stage_steps(self) -> tuple[int, int]:
        """First optimiser step of the classifier's training, and the one after its last."""
        return 0, total_steps(self.trainer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate, then step."""
        if self.lr_schedule == "linear" and not self.trainer.lr_scheduler_configs:
            start, end = self.stage_steps()
            done = (self.trainer.global_step - start) / max(1, end - start)
            for group in optimizer.param_groups:
                if group.get("name") == "classifier":
                    group["lr"] = self.lr * min(1.0, max(0.0, 1.0 - done))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


def parameter_group(
    name: str, parts: Iterable[nn.Module], lr: float, weight_decay: float
) -> dict[str, Any]:
    """Trainable parameters of some modules as a group of an optimiser.

    Args:
        name: of the group.
        parts: the modules; one without trainable parameters adds none.
        lr: learning rate of the group.
        weight_decay: of the group.
    """
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    return {"params": parameters, "name": name, "lr": lr, "weight_decay": weight_decay}


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Make sure that an option has one of its values.

    Args:
        name: what the option is called.
        value: what it was set to.
        choices: all values that it may have; None is not named in the message.

    Raises:
        ValueError: if it has another one.
    """
    if value not in choices:
        names = ", ".join(str(choice) for choice in choices if choice is not None)
        raise InputError(f"{name} must be one of {names}, not {value!r}")
