"""JTT (arXiv 2107.09044): train twice, and the second time on the errors of the first."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.methods.groups.stages import ErrorStage
from lit_ssl.methods.groups.two_networks import TwoStageClassifier

__all__ = ["JTT"]


class JTT(TwoStageClassifier):
    """Just Train Twice: robust classification without group labels in the training set.

    A first network is trained plainly for T epochs; then the classifier is trained, from the start
    and on the mean loss, while rows that the first one gets wrong are drawn λ times as often. (The
    released code puts λ copies of them into the training set; here an epoch keeps its length.)

    Args:
        first_epochs: T >= 1; they count as epochs of the run.
        upweight: λ > 0.
        first_lr: learning rate of the first network; None: the classifier's.
        first_weight_decay: its weight decay; None: the classifier's.
        kwargs: arguments of [`GroupRobustClassifier`][lit_ssl.methods.GroupRobustClassifier] but
            ``objective``, ``sampling`` and ``labelled_only``, which JTT sets itself.

    Raises:
        ValueError: for values outside their ranges.

    Source: arXiv 2107.09044 and its released code.
    """

    first: ErrorStage
    fixed_options = ("objective", "sampling", "labelled_only")

    def __init__(
        self,
        *,
        first_epochs: int = 40,
        upweight: float = 20.0,
        first_lr: float | None = None,
        first_weight_decay: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(objective="erm", sampling="uniform", labelled_only=False, **kwargs)
        if upweight <= 0:
            raise InputError(f"JTT needs upweight > 0, got {upweight}")
        self.upweight = upweight
        network = copy.deepcopy(self.backbone)
        stage = ErrorStage(network, self.embed_dim, self.num_classes)
        self.set_first_stage(stage, first_epochs, first_lr, first_weight_decay)

    def sampling_weights(self, data: Any, groups: np.ndarray) -> np.ndarray:
        """λ for rows that the first network gets wrong, 1 for the others."""
        return np.where(self.first.errors(data.labels("train")), self.upweight, 1.0)
