"""Base of the callbacks that draw what frozen features are like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image

from lit_ssl.callbacks.evaluators.features import Split, clear_features
from lit_ssl.contracts.data import data_source
from lit_ssl.distributed import gather_rows
from lit_ssl.drawing.lettering import in_one_line
from lit_ssl.errors import InputError, by_name
from lit_ssl.metrics.sharded import ShardedFeatures
from lit_ssl.trainer.pictures import keep_picture
from lit_ssl.trainer.private import ends_now, validate_now, validate_the_end
from lit_ssl.trainer.run import origin_of, run_folder
from lit_ssl.trainer.validation import tell_schedule

__all__ = [
    "SPLIT_WORDS",
    "FiniteRows",
    "SplitPicture",
    "class_name",
    "class_names",
    "finite_rows",
    "when",
]

_CHUNK = 4096  # rows that are looked through at once

SPLIT_WORDS: dict[str, str] = {
    "val": "validation images",
    "test": "test images",
    "bank": "training images",
    "support": "labelled images",
}


class SplitPicture(pl.Callback, ABC):
    """Draws a picture of a split at the end of validations and tests, and keeps it.

    A subclass writes ``draw``, ``name`` and, where it asks for something, ``check``. The picture is
    written into the run's folder, as ``NAME/step_NNNNNNNN.png`` in a fit and ``NAME/validate.png``
    or ``NAME/test.png`` otherwise, and shown in every logger that takes images. Features are shared
    with the evaluators. Nothing of the training changes, random numbers included, and a full disk
    costs the picture and not the training.

    Args:
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1;
            ``trainer.validate`` and ``trainer.test`` always draw.

    Raises:
        ValueError: If it is below 1.
    """

    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    is_off: ClassVar[bool] = False
    family: ClassVar[str] = ""  # logs no values

    def __init__(self, every_n_epochs: int = 10) -> None:
        if every_n_epochs < 1:
            raise InputError(
                f"{type(self).__name__} needs every_n_epochs >= 1, not {every_n_epochs}"
            )
        self.every_n_epochs = every_n_epochs
        self._last_step = -1  # at which it drew; −1: not in this call

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the picture, its folder and what loggers call it."""

    @abstractmethod
    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the picture under the current weights.

        Args:
            trainer: The running trainer.
            pl_module: The module.
            split: ``val`` or ``test``.

        Returns:
            RGB; only that of rank zero is used. None: there is nothing to draw.
        """

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complain before the first batch about what the picture cannot be drawn of.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Complain at the start, not after the first epochs, if a contract is not met."""
        if stage == "predict":
            return
        self._last_step = -1
        self.check(trainer, pl_module)
        if stage == "fit":
            validate_the_end(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be drawn."""
        tell_schedule(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop features of earlier weights."""
        clear_features(trainer)

    on_test_start = on_validation_start

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if it is due."""
        if trainer.sanity_checking:
            return
        is_nth = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if trainer.state.fn != "fit" or is_nth or ends_now(trainer):
            self._keep(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        self._keep(trainer, pl_module, "test")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the end where a callback, such as EarlyStopping, made it one only afterwards."""
        if self._last_step != trainer.global_step and trainer.enable_validation:
            validate_now(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free the memory of the features."""
        clear_features(trainer)

    on_test_end = on_validation_end

    @by_name
    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> None:
        self._last_step = trainer.global_step
        command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
        file = f"step_{trainer.global_step:08d}" if command == "fit" else command
        folder = run_folder(trainer, [f"{self.name}/{file}.png"])
        picture = self.draw(trainer, pl_module, split)
        if folder is None or picture is None or not trainer.is_global_zero:
            return
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        keep_picture(trainer, folder / self.name / f"{file}.png", self.name, pixels)


class FiniteRows(NamedTuple):
    """Rows whose features are numbers.

    Attributes:
        rows: Their numbers in the split, int64 ``[K]``, ascending.
        features: Theirs.
        note: For a title: how many are left out; empty where none is.
    """

    rows: torch.Tensor
    features: ShardedFeatures
    note: str


def finite_rows(picture: SplitPicture, found: ShardedFeatures, split: str) -> FiniteRows | None:
    """Leave out rows with NaN or infinite features, which are near to nothing. A collective.

    Args:
        picture: Which asks, for a message.
        found: Features of a split.
        split: Which split.

    Returns:
        The same rows on every process; None, and a warning, where none is left.
    """
    lost = [torch.empty(0, dtype=torch.int64)]
    for start in range(0, found.held, _CHUNK):
        good = found.read(start, start + _CHUNK).isfinite().all(dim=1).cpu()
        lost.append(found.numbers[start : start + _CHUNK][~good])
    is_finite = torch.ones(len(found), dtype=torch.bool)
    is_finite[torch.cat(gather_rows(torch.cat(lost).to(found.device)))] = False
    rows = is_finite.nonzero().flatten()
    count = len(found) - len(rows)
    words = f"{count:,} {SPLIT_WORDS[split]} with NaN or infinite features"
    if not len(rows):
        rank_zero_warn(f"{type(picture).__name__} draws nothing: all are {words}")
        return None
    return FiniteRows(rows, found.pick(rows), f"; {words} are left out" if count else "")


def when(trainer: pl.Trainer) -> str:
    """Of which weights a picture is, in words: the step of a fit, or the name of a checkpoint.

    Args:
        trainer: The running trainer.
    """
    origin = origin_of(trainer)
    if origin["command"] == "fit":
        return f"step {trainer.global_step:,}"
    if origin["checkpoint"] is not None:
        return Path(origin["checkpoint"]).name
    return f"step {origin['steps']:,}" if origin["steps"] else "the module as given"


def class_names(trainer: pl.Trainer) -> list[str]:
    """Names of the classes of the data, in the order of the labels; empty where it has none.

    Args:
        trainer: The running trainer.
    """
    return [str(name) for name in getattr(data_source(trainer), "class_names", None) or ()]


def class_name(label: int, names: list[str]) -> str:
    """What a class is called.

    Args:
        label: −1 where it is not known.
        names: In the order of the labels.
    """
    if label < 0:
        return ""
    return in_one_line(names[label]) if label < len(names) else str(label)
