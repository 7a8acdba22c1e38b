"""PMSN: Masked Siamese Networks with a prior over prototypes (arXiv 2210.07277)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lit_ssl.errors import InputError, did_you_mean, listed
from lit_ssl.losses.pmsn import PMSNLoss
from lit_ssl.losses.priors import (
    as_prior,
    class_count_prior,
    power_law_prior,
    read_prior,
    uniform_prior,
)
from lit_ssl.methods.msn import MSN
from lit_ssl.trainer.private import checkpoint_to_come

__all__ = ["PMSN"]

_NAMES = ("power_law", "uniform", "data")


class PMSN(MSN):
    """Masked Siamese Networks that expect clusters of unequal size, for long-tailed data.

    MSN pushes the mean prediction towards a uniform use of the prototypes, as if all kinds of
    images were equally frequent. Here it is pushed towards a prior: a power law by default. All
    else is [`MSN`][lit_ssl.methods.MSN]; with ``prior: uniform`` and MSN's weights it is MSN.

    Args:
        backbone: as in [`MSN`][lit_ssl.methods.MSN].
        backbone_kwargs: as in [`MSN`][lit_ssl.methods.MSN].
        prior: shares of the prototypes. ``power_law``; ``uniform``; ``data``: the frequencies of
            the classes in the training images of the data module (its ``labels("train")``), each
            divided among equally many prototypes; a list of K positive numbers; or a ``.npy`` or
            ``.txt`` file with them. File and data are read when a fit starts; checkpoints hold the
            prior, and load and resume without them.
        prior_exponent: of the power law, ≥ 0; 0 is uniform. Mild exponents are best: 1 and the true
            class frequencies were clearly worse than 0.25 where we measured them.
        kl_direction: ``forward`` is KL(mean prediction ‖ prior), ``reverse`` the opposite.
        sinkhorn_marginal: shares that Sinkhorn, if any, gives the prototypes in the targets:
            ``uniform`` or those of the ``prior``.
        sinkhorn_iterations: Sinkhorn iterations on the targets.
        me_max_weight: weight λ of the divergence.
        kwargs: arguments of [`MSN`][lit_ssl.methods.MSN].

    Differs from the paper: its text could not be obtained; the direction of the divergence, no
    Sinkhorn, λ and the exponent are our choices (docs/pmsn.md gives reasons).
    """

    loss: PMSNLoss
    _has_prior = False

    def __init__(
        self,
        backbone: str | nn.Module = "vit_small_patch16_224",
        backbone_kwargs: dict[str, Any] | None = None,
        *,
        prior: list[float] | str = "power_law",
        prior_exponent: float = 0.25,
        kl_direction: Literal["forward", "reverse"] = "forward",
        sinkhorn_marginal: Literal["uniform", "prior"] = "uniform",
        sinkhorn_iterations: int = 0,
        me_max_weight: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            backbone_kwargs,
            sinkhorn_iterations=sinkhorn_iterations,
            me_max_weight=me_max_weight,
            **kwargs,
        )
        self.prior = prior
        self.prior_exponent = prior_exponent
        # Here, so that wrong values show at once; the shares of `data` and of a file come later.
        known = uniform_prior(len(self.prototypes)) if self._comes_later() else self.make_prior()
        self.loss_options |= {"kl_direction": kl_direction, "sinkhorn_marginal": sinkhorn_marginal}
        self.loss = PMSNLoss(known, **self.loss_options)

    def setup(self, stage: str) -> None:
        """Set the prior when a fit starts; a checkpoint that is resumed brings its own."""
        super().setup(stage)
        if stage == "fit" and not self.is_restored() and not self._has_prior:
            self.loss.set_prior(self.make_prior())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the prior of a checkpoint; warn where another was asked for."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("hyper_parameters", {})
        before = stored.get("prior", self.prior), stored.get("prior_exponent", self.prior_exponent)
        is_same = before == (self.prior, self.prior_exponent)
        if checkpoint_to_come(self) is not None and not is_same:
            rank_zero_warn(
                f"the checkpoint goes on with its own prior ({before[0]}, exponent {before[1]}), "
                f"not with {self.prior}, exponent {self.prior_exponent}: start a new run for that"
            )
        # only a file is read no more: the training images may be others in the next fit
        self._has_prior = is_same and str(self.prior).endswith((".npy", ".txt"))

    def make_prior(self) -> Tensor:
        """Shares ``[K]`` of the prototypes; may be overridden.

        Raises:
            ValueError: if they cannot be had: no labels, a wrong number of entries, no such name.
            FileNotFoundError: if there is no such file.
        """
        count = len(self.prototypes)
        if self.prior == "power_law":
            return power_law_prior(count, self.prior_exponent)
        if self.prior == "uniform":
            return uniform_prior(count)
        if self.prior == "data":
            return class_count_prior(self._class_counts(), count)
        if isinstance(self.prior, str):
            return read_prior(self.prior, count)
        return as_prior(self.prior, count)

    def _comes_later(self) -> bool:
        if not isinstance(self.prior, str) or self.prior in ("power_law", "uniform"):
            return False
        if self.prior != "data" and not self.prior.endswith((".npy", ".txt")):
            raise InputError(
                f"prior must be {', '.join(_NAMES)}, a list of {len(self.prototypes)} positive "
                f"numbers, or a .npy or .txt file, not {self.prior!r}."
                + did_you_mean(self.prior, _NAMES)
            )
        return True

    def _class_counts(self) -> Tensor:
        """Training images of each class, from the data module of the trainer."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not callable(getattr(data, "labels", None)) or not hasattr(data, "num_classes"):
            found = "none was given" if data is None else f"{type(data).__name__} is not"
            raise InputError(
                "prior 'data' needs a data module with num_classes and labels('train'), the class "
                f"indices of its training images: {found}; choose another prior, or give a list"
            )
        labels = np.asarray(data.labels("train"))
        if unknown := int((labels < 0).sum()):
            rank_zero_warn(
                f"prior 'data' counts the classes of {len(labels) - unknown:,} of {len(labels):,} "
                "training images, those with a label: where these are no random choice, give the "
                "shares as a list"
            )
        counts = np.bincount(labels[labels >= 0], minlength=data.num_classes)
        empty = np.flatnonzero(counts == 0)
        if len(counts) == 0 or len(empty):
            raise InputError(
                f"prior 'data' needs training images of every class, but {type(data).__name__} has "
                f"none of {len(empty)} of its {len(counts)} classes (labels "
                f"{listed(empty.tolist())}); choose another prior, or give a list"
            )
        return torch.from_numpy(counts)
