"""Weights to start from: loaded at the start, said in one line, and never over trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.trainer.private import checkpoint_to_come
from lit_ssl.trainer.sharding import refuse_sharding

__all__ = ["WeightsOnce", "say_start"]


class WeightsOnce:
    """Part of a LightningModule that may start from a file of weights.

    They are loaded at the first ``setup``, before Lightning moves, compiles or wraps the module;
    not in a module that came from a checkpoint or is about to, and not again when a test follows a
    fit.
    """

    _has_weights = False
    holds_start = False  # the weights to start from, as they were loaded; named by reports

    def load_start(self) -> None:
        """Load the weights to start from, if any."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Load the weights to start from, once: a test after a fit keeps what was trained.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InputError: if the module is to be trained in pieces.
        """
        refuse_sharding(self, stage)
        if not self._has_weights and not self.is_restored():
            self.load_start()
            self._has_weights = self.holds_start = True
        if stage == "fit":
            self.holds_start = False

    def is_restored(self) -> bool:
        """Whether the run that begins is going to load a checkpoint, with all of the weights."""
        module: Any = self
        return checkpoint_to_come(self) is not None and module.strict_loading

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the weights of a checkpoint from being overwritten.

        Args:
            checkpoint: which is about to be loaded; it is not changed.
        """
        self._has_weights, self.holds_start = True, False


def say_start(module: object, source: str, parts: Mapping[str, bool]) -> None:
    """Say in one line which parts of a module start from a file, and which afresh.

    Args:
        module: the module.
        source: the file, and what it is.
        parts: parts of the module, and whether the file had them.
    """
    loaded = ", ".join(part for part, is_there in parts.items() if is_there)
    fresh = ", ".join(part for part, is_there in parts.items() if not is_there)
    rest = f"; starting afresh: {fresh}" if fresh else ""
    rank_zero_info(f"{type(module).__name__} takes {loaded} from {source}{rest}")
