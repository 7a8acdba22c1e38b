"""Two networks in one fit: the first finds out about the training rows, for the second."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_ssl.contracts.batches import check_labels, grouped_batch
from lit_ssl.contracts.data import group_data
from lit_ssl.errors import InputError, by_name
from lit_ssl.methods.groups.classifier import GroupRobustClassifier, parameter_group
from lit_ssl.methods.groups.stages import FirstStage
from lit_ssl.trainer.idle_networks import allow_idle_network
from lit_ssl.trainer.length import epochs_to_steps
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.private import is_finding_lr
from lit_ssl.trainer.run import is_fast_dev_run
from lit_ssl.trainer.step_logs import log_loss

__all__ = ["TwoStageClassifier"]

_STATE = "first_stage"


class TwoStageClassifier(GroupRobustClassifier):
    """A classifier whose fit begins with some epochs of another network.

    Both networks share one optimiser: parameters without a gradient are skipped, so that each is
    trained exactly as it would be alone, and one checkpoint resumes either stage. A subclass calls
    ``set_first_stage`` and says in ``use_first_stage`` what follows from the first stage.

    While the first network trains, ``val/acc_worst`` is −1 and no accuracy is measured, so that no
    checkpoint of an untrained classifier is selected.
    """

    first: FirstStage
    first_epochs: int

    def set_first_stage(
        self, first: FirstStage, epochs: int, lr: float | None, weight_decay: float | None
    ) -> None:
        """Set the first network and its training.

        Args:
            first: the network.
            epochs: epochs of its training, >= 1.
            lr: its learning rate; None: the classifier's.
            weight_decay: None: the classifier's.

        Raises:
            ValueError: if ``epochs`` is below 1.
        """
        if epochs < 1:
            raise InputError(f"the first stage needs at least 1 epoch, got {epochs}")
        self.first = first
        self.first_epochs = epochs
        self.first_lr = self.lr if lr is None else lr
        self.first_weight_decay = self.weight_decay if weight_decay is None else weight_decay

    def use_first_stage(self, data: Any) -> None:
        """Hand what the first stage found to the data module; may be overridden.

        Args:
            data: the data module, with its known groups.
        """

    @property
    def in_first_stage(self) -> bool:
        """Whether the first network is being trained."""
        fitting = self.trainer.state.fn == "fit"
        return fitting and self.trainer.current_epoch < self.first_epochs

    @by_name
    def setup(self, stage: str) -> None:
        """Check also that there are epochs for both stages."""
        super().setup(stage)
        if stage != "fit":
            return
        allow_idle_network(self.trainer, "two networks are trained, one at a time")
        epochs = self.trainer.max_epochs
        is_too_short = epochs is not None and 0 <= epochs <= self.first_epochs
        if is_too_short and not is_fast_dev_run(self.trainer):
            raise InputError(
                f"{type(self).__name__} trains its first network for {self.first_epochs} epochs, "
                f"and max_epochs={epochs} leaves none for the classifier: raise it"
            )

    def prepare(self) -> None:
        """Prepare the data for the stage that the epoch belongs to.

        Raises:
            InputError: if a learning rate is searched for while the first network trains.
        """
        if is_finding_lr(self.trainer) and self.in_first_stage:
            raise InputError(
                f"the search for a learning rate would try rates on the first network of "
                f"{type(self).__name__} and report them as lr, which is the classifier's: search "
                "with GroupRobustClassifier, and give lr here"
            )
        data = group_data(self.trainer)
        epoch = self.trainer.current_epoch
        if self.trainer.global_step == 0:
            self.first.reset()
        if self.first.scores is None:
            if self._stage is None:
                self._stage = "first"
                self.first.begin(data)
            self.first.look(self.trainer, data, epoch)
            if epoch < self.first_epochs:
                return
            self.first.finish(self.trainer, data)
        if self._stage != "classifier":
            self.use_first_stage(data)
        self.prepare_classifier()

    @by_name
    @minds_lone_batches("classifier")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step of the network whose turn it is."""
        if not self.in_first_stage:
            return super().training_step(batch, batch_idx)
        labels = grouped_batch(batch)[1]
        check_labels(labels, self.num_classes, look=batch_idx == 0, unknown=False)
        loss = self.first.loss(batch)
        log_loss(self, loss, len(labels), "train/first_loss")
        return {"loss": loss}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The classifier's parameters, and those of the first network."""
        first = parameter_group("first", [self.first], self.first_lr, self.first_weight_decay)
        return [*super().parameter_groups(), first]

    def stage_steps(self) -> tuple[int, int]:
        """First optimiser step of the classifier's training, and the one after its last."""
        _, total = super().stage_steps()
        return int(epochs_to_steps(self.trainer, self.first_epochs, "first_epochs")), total

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count, once the classifier is being trained."""
        return {} if self.in_first_stage else super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies by group, once the classifier is being trained."""
        if self.in_first_stage:
            self.log("val/acc_worst", -1.0, prog_bar=True, sync_dist=True)
        else:
            super().on_validation_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the first stage knows."""
        checkpoint[_STATE] = self.first.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with what the first stage knew."""
        if _STATE in checkpoint:
            self.first.load_state(checkpoint[_STATE])
