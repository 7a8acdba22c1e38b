"""BARACK (arXiv 2201.00072): robust classification with few group labels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import nn

from lit_ssl.contracts.data import group_data
from lit_ssl.errors import InputError, by_name
from lit_ssl.groups.cells import cells_of, group_shares
from lit_ssl.methods.groups.predictions import save_predictions
from lit_ssl.methods.groups.stages import AttributeStage, check_attributes
from lit_ssl.methods.groups.two_networks import TwoStageClassifier
from lit_ssl.models.backbones.by_name import create_backbone

__all__ = ["BARACK"]


class BARACK(TwoStageClassifier):
    """Group DRO where only some training rows have their attribute: predict it for the others.

    Step 1 trains a network on the labelled rows to tell the attribute from the input, for
    ``predictor_epochs``; then it labels all training rows whose attribute is unknown, writes
    ``predicted_groups.csv`` and ``predictor_report.json`` into the run's folder, and step 2 trains
    the classifier on all rows with group DRO. Each step can also run alone:
    [`AttributePredictor`][lit_ssl.methods.AttributePredictor], and
    [`GroupRobustClassifier`][lit_ssl.methods.GroupRobustClassifier] on a data module with
    ``group_labels``.

    Args:
        predictor_epochs: epochs of step 1, >= 1, of as many rows as the training set has; they
            count as epochs of the run.
        predictor_lr: learning rate of step 1; None: the classifier's.
        predictor_weight_decay: weight decay of step 1; None: the classifier's.
        predictor_backbone: network of step 1; None: a copy of the classifier's, with the same
            initial weights.
        soft_groups: hand the predicted probabilities to group DRO instead of the likeliest group.
        held_out: share of the labelled rows of each group that selects the epoch of the predictor,
            in [0, 1); all are used for fitting, and the last epoch is kept, where this would leave
            fewer than 5 rows for a group.
        kwargs: arguments of [`GroupRobustClassifier`][lit_ssl.methods.GroupRobustClassifier].

    Raises:
        InputError: when training starts, if an attribute has no labelled row.

    Source: arXiv 2201.00072, abstract. Its text could not be obtained: docs/group_robustness.md
    says what it leaves open and what we chose.
    """

    first: AttributeStage

    def __init__(
        self,
        *,
        predictor_epochs: int = 10,
        predictor_lr: float | None = None,
        predictor_weight_decay: float | None = 1e-3,
        predictor_backbone: str | nn.Module | None = None,
        soft_groups: bool = False,
        held_out: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not self.uses_groups:
            raise InputError(
                "BARACK predicts groups, and objective erm with uniform sampling has no use for "
                "them: choose objective group_dro, or another sampling"
            )
        self.predictor_epochs = predictor_epochs
        self.predictor_lr = predictor_lr
        self.predictor_weight_decay = predictor_weight_decay
        self.predictor_backbone = predictor_backbone
        self.soft_groups = soft_groups
        self.held_out = held_out
        if self.num_attributes is not None:
            self._make_predictor()

    def _make_predictor(self) -> None:
        assert self.num_attributes is not None
        if self.predictor_backbone is None:
            network, width = copy.deepcopy(self.backbone), self.embed_dim
        else:
            network, width = create_backbone(self.predictor_backbone, {})
        stage = AttributeStage(network, width, self.num_classes, self.num_attributes, self.held_out)
        self.set_first_stage(
            stage, self.predictor_epochs, self.predictor_lr, self.predictor_weight_decay
        )

    @by_name
    def setup(self, stage: str) -> None:
        """Build the predictor where the number of attributes was open."""
        if self.num_attributes is None:
            data = group_data(self.trainer)
            self.set_num_attributes(data.num_attributes)
            self._make_predictor()
        super().setup(stage)

    def check_data(self, data: Any) -> None:
        """Check that each attribute has a labelled row.

        Args:
            data: the data module with groups.

        Raises:
            InputError: if one has none.
        """
        check_attributes(data)
        self.check_validation(data)

    def use_first_stage(self, data: Any) -> None:
        """Save the predicted groups, and let the training batches carry them."""
        for name, value in save_predictions(self.trainer, data, self.first).items():
            self.log(name, value, sync_dist=True)
        groups, shares = self.training_groups(data)
        data.set_groups(groups if shares is None else shares)

    def training_groups(self, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The known groups, and the predicted ones where they are unknown."""
        predictions = self.first.predictions(data)
        labels = data.labels("train")
        shares = None
        if self.soft_groups:
            assert predictions.probabilities is not None
            shares = group_shares(labels, predictions.probabilities, self.num_classes)
        return cells_of(labels, predictions.attributes, self.first.num_attributes), shares
