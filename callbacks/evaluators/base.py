"""Base of the callbacks that measure the quality of frozen features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.callbacks.evaluators.features import Features, Split, clear_features, shard_features
from lit_ssl.callbacks.evaluators.monitored import let_monitors_wait
from lit_ssl.contracts.data import check_bank, data_source, is_unlabelled, num_classes_of
from lit_ssl.contracts.modules import feature_function
from lit_ssl.errors import InputError, by_name
from lit_ssl.metrics import ShardedFeatures
from lit_ssl.trainer.private import ends_now, validate_now, validate_the_end
from lit_ssl.trainer.validation import tell_schedule


class RepresentationEvaluator(pl.Callback, ABC):
    """Runs a measurement at the end of validation and test, and logs what it returns.

    A subclass writes [`evaluate`][lit_ssl.callbacks.RepresentationEvaluator.evaluate]; the values
    are logged as ``val/<name>`` and ``test/<name>``. Nothing happens while the trainer checks its
    own sanity. The features of one evaluation are computed once, however many evaluators ask for
    them. Where the data module has no classes (``num_classes`` 0), an evaluator is off, and says
    so.

    During fit it runs in validations, so every ``check_val_every_n_epoch`` epochs of the Trainer at
    most; the end of the fit is always validated, and evaluated. What will never run is said at the
    start. ``ModelCheckpoint`` and ``EarlyStopping`` that monitor one of the values act only after
    validations that measured it.

    Args:
        every_n_epochs: During fit, evaluate after every n-th epoch and at its end, >= 1.
            ``trainer.validate`` and ``trainer.test`` always evaluate.
        feature_method: Method of the module that maps images to features.
        num_classes: Number of classes; None takes the data module's.

    Raises:
        InputError: ``every_n_epochs`` is below 1.

    Examples:
        >>> class MeanNorm(RepresentationEvaluator):
        ...     def evaluate(self, trainer, pl_module, split):
        ...         queries = self.labelled(trainer, pl_module, split)
        ...         return {"mean_norm": queries.features.norm(dim=1).mean().item()}
    """

    needs_bank: ClassVar[bool] = True
    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    family: ClassVar[str] = ""  # how the names of all values begin, before "_"
    on_progress_bar: ClassVar[tuple[str, ...]] = ()  # names of values

    def __init__(
        self,
        every_n_epochs: int = 1,
        feature_method: str = "forward",
        num_classes: int | None = None,
    ) -> None:
        if every_n_epochs < 1:
            raise InputError(f"every_n_epochs must be >= 1, got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs
        self.feature_method = feature_method
        self.num_classes = num_classes
        self.is_off = False
        self.measured: dict[str, int] = {}  # name of a value in the log → step of its weights
        self.last_step = -1  # of the last evaluation; −1: there was none in this call

    @abstractmethod
    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """Measure the current weights; called on every process.

        Args:
            trainer: The running trainer.
            pl_module: The module.
            split: ``val`` or ``test``.

        Returns:
            Values by name, the same on every process.
        """

    def labelled(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Features:
        """Features and labels of all labelled samples of a split, on every process.

        For large banks use [`sharded`][lit_ssl.callbacks.RepresentationEvaluator.sharded], which
        leaves to each process its own rows.

        Args:
            trainer: the running trainer.
            pl_module: the module to evaluate.
            split: ``bank``, ``support``, ``val`` or ``test``.

        Returns:
            Features ``[N, D]`` and labels int64 ``[N]``, in the order of the data set.
        """
        found = self.sharded(trainer, pl_module, split)
        return Features(found.everywhere(), found.labels)

    def sharded(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> ShardedFeatures:
        """The labelled samples of a split (``labelled_only``), those of each process on it.

        Args:
            trainer: the running trainer.
            pl_module: the module to evaluate.
            split: ``bank``, ``support``, ``val`` or ``test``.

        Returns:
            The rows of this process, and the labels of all.
        """
        found = shard_features(trainer, pl_module, split, self.feature_method)
        return labelled_only(found, num_classes_of(trainer, self.num_classes), split)

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Complain at the start, not after the first epoch, if a contract is not met."""
        if stage == "predict":
            return
        self.measured, self.last_step = {}, -1
        if stage == "fit":
            validate_the_end(trainer)
            let_monitors_wait(trainer)
        self.is_off = is_unlabelled(trainer, self.num_classes)
        if self.is_off:
            data = type(data_source(trainer)).__name__
            rank_zero_warn(f"{type(self).__name__} is off: {data} has no classes (num_classes = 0)")
            return
        num_classes_of(trainer, self.num_classes)
        feature_function(pl_module, self.feature_method)
        if self.needs_bank:
            check_bank(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be evaluated."""
        tell_schedule(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop features of earlier weights."""
        clear_features(trainer)

    on_test_start = on_validation_start

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate and log, when it is due."""
        if self._is_due(trainer):
            self._log(trainer, pl_module, "val")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the end where a callback, such as EarlyStopping, made it one only afterwards."""
        is_open = not self.is_off and self.last_step != trainer.global_step
        if is_open and trainer.enable_validation:
            validate_now(trainer)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate and log."""
        self._log(trainer, pl_module, "test")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free the memory of the features."""
        clear_features(trainer)

    on_test_end = on_validation_end

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        is_nth = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return trainer.state.fn != "fit" or is_nth or ends_now(trainer)

    @by_name
    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> None:
        if self.is_off:
            return
        self.last_step = trainer.global_step
        for name, value in self.evaluate(trainer, pl_module, split).items():
            # All processes hold equal values; syncing them again only keeps Lightning from warning.
            shown = name in self.on_progress_bar
            self.measured[f"{split}/{name}"] = trainer.global_step
            pl_module.log(f"{split}/{name}", value, prog_bar=shown, sync_dist=True)


def labelled_only(found: ShardedFeatures, num_classes: int, split: str) -> ShardedFeatures:
    """Keep the samples that have a label.

    Args:
        found: Features of a split.
        num_classes: Number of classes, for the range check.
        split: Name of the split, for the message.

    Returns:
        The samples whose label is not −1.

    Raises:
        ValueError: If none is left, or labels lie outside ``[0, num_classes)``.
    """
    known = (found.labels >= 0).nonzero().flatten()
    if not len(known):
        raise InputError(
            f"needs labels, but all {len(found)} labels of the {split} split are −1; serve "
            "labels in the data module or remove the callback"
        )
    highest = int(found.labels.max())
    if highest >= num_classes:
        raise InputError(
            f"the {split} split has label {highest} but num_classes is {num_classes}; "
            "labels must lie in [0, num_classes)"
        )
    return found.pick(known)
