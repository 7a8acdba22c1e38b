"""The trained levels below one that is trained: from a file once, then in its own checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.methods.video.classes import check_same_classes, stored_names
from lit_ssl.methods.video.stored_cascade import (
    KEY,
    LOWER,
    NAMES,
    filled_cascade,
    load_cascade,
    sha256_of,
    stored_specs,
)
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.level import LevelSpec
from lit_ssl.models.video.replicas import join_batch_norms_
from lit_ssl.trainer.private import checkpoint_to_come, joins_batch_norms_on_cpu, trainer_of

__all__ = ["LevelsBelow"]


class LevelsBelow:
    """Part of a LightningModule that is a level of a cascade: the levels below it, frozen.

    They come from the checkpoint ``previous``, once, and are in the module's own checkpoints from
    then on.
    """

    spec: LevelSpec
    previous: str | None
    lower: GeneratorCascade | None
    class_names: tuple[str, ...] = ()  # in the order of the labels; (): not known
    _previous_sha256: str | None = None
    _steps: int | None
    _statistics_of = -1  # the step whose weights the sampled generator's statistics are of

    if TYPE_CHECKING:
        device: torch.device

        def sampled_generator(self) -> nn.Module:
            """The averaged generator, ready to sample."""

    @property
    def level(self) -> int:
        """Number of this level, from 1."""
        return self.spec.level

    def _is_restored(self) -> bool:
        return checkpoint_to_come(self) is not None

    def read_levels_below(self) -> None:
        """Read the levels below from ``previous``, once; later they are in the own checkpoints.

        Raises:
            InputError: if there is no file, or it does not fit.
        """
        if not self.previous:
            raise InputError(
                f"level {self.level} goes on from a trained level {self.level - 1}: give its"
                " checkpoint, --model.previous PATH"
            )
        lower, names, _ = load_cascade(self.previous)
        self.spec.check_follows(lower.top, self.previous)
        check_same_classes(names, self.class_names, self.previous)
        self.class_names = self.class_names or names
        self._take_up(lower)
        self._previous_sha256 = sha256_of(self.previous)
        several = len(lower.specs) > 1
        stay = "levels, which stay as they are" if several else "level, which stays as it is"
        rank_zero_info(
            f"level {self.level} goes on from {self.previous}: {len(lower.specs)} trained {stay}"
        )

    def _take_up(self, lower: GeneratorCascade) -> None:
        module: Any = self
        trainer = trainer_of(module)
        if trainer is not None and joins_batch_norms_on_cpu(trainer):
            join_batch_norms_(lower, joined=False)
        self.lower = lower.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complete the checkpoint: descriptions of levels, classes, statistics for sampling.

        Args:
            checkpoint: what is about to be written; completed in place.
        """
        self.sampled_generator()  # in place, so that it reaches the state dict, too
        lower = [] if self.lower is None else self.lower.specs
        checkpoint[KEY] = {
            "levels": [spec.to_dict() for spec in (*lower, self.spec)],
            NAMES: list(self.class_names),
            "previous": self.previous,
            "previous_sha256": self._previous_sha256,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the levels below that the checkpoint holds.

        Args:
            checkpoint: what was read.

        Raises:
            InputError: if it is of another level or of no cascade, or the data have other classes.
        """
        source = "the checkpoint"
        *lower, own = stored_specs(checkpoint, source)
        if own != self.spec:
            wrong = [k for k, v in own.to_dict().items() if v != self.spec.to_dict()[k]]
            raise InputError(
                f"{source} is of level {own.level} with other {', '.join(wrong)} than this model:"
                " leave these out, or load the checkpoint that belongs to it"
            )
        if "g_step" not in checkpoint["state_dict"]:
            raise InputError(f"{source} lacks its number of steps, g_step: it is damaged")
        names = stored_names(checkpoint[KEY].get(NAMES), self.spec.num_classes, source)
        check_same_classes(names, self.class_names, source)
        self.class_names = names or self.class_names
        stored = checkpoint[KEY].get("previous_sha256")
        self._check_previous(stored, checkpoint[KEY].get("previous"))
        self._previous_sha256 = stored
        if lower:
            state = checkpoint["state_dict"].items()
            weights = {k[len(LOWER) :]: v for k, v in state if k.startswith(LOWER)}
            self._take_up(filled_cascade(lower, weights, source))
        self._steps = self._statistics_of = int(checkpoint["state_dict"]["g_step"])

    def _check_previous(self, stored: str | None, trained_on: str | None) -> None:
        """A checkpoint has its levels below inside; another one at hand is ignored, or refused."""
        path = self.previous
        if not (path and Path(path).is_file() and stored) or sha256_of(path) == stored:
            return
        if path == trained_on:  # perhaps nobody gave it: it is among the hyper-parameters
            rank_zero_warn(
                f"{path} has changed since this level {self.level} was trained on it: the levels"
                " below inside the checkpoint are used, not that file"
            )
            return
        raise InputError(
            f"the checkpoint was trained on another level {self.level - 1} than {path}: leave"
            " out previous, since the levels below are inside the checkpoint"
        )

    def _lower(self) -> GeneratorCascade:
        if self.lower is None:
            self.read_levels_below()
        assert self.lower is not None
        return self.lower
