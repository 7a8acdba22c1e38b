"""The trained levels below one that is trained: from a file once, then in its own checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.errors import InputError
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.level import LevelSpec
from lit_ssl.models.video.replicas import join_batch_norms_
from lit_ssl.trainer.private import checkpoint_to_come, joins_batch_norms_on_cpu, trainer_of

__all__ = ["LevelsBelow", "load_generators", "stored_specs"]

_KEY = "lit_ssl.cascade"  # key in checkpoints
_LOWER = "lower."  # how names of the levels below begin in the state dict
_SAMPLED = "generator_ema."  # and those of the own level's averaged generator


def sha256_of(path: str | Path) -> str:
    """Hash of a file, by which it is known again when it has moved."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stored_specs(checkpoint: Mapping[str, Any], source: str) -> list[LevelSpec]:
    """Descriptions of all levels in a checkpoint, the trained one last.

    Raises:
        InputError: if it is of no cascade.
    """
    stored = checkpoint.get(_KEY)
    if not isinstance(stored, Mapping) or not isinstance(stored.get("levels"), list):
        raise InputError(f"{source} is no checkpoint of CascadedVideoGAN")
    if not stored["levels"]:
        raise InputError(f"{source} describes no level of a cascade")
    return [LevelSpec.from_dict(plain, source) for plain in stored["levels"]]


def load_generators(path: str | Path) -> GeneratorCascade:
    """Read the generators of a checkpoint of any level: averaged weights, ready to sample.

    Nothing in the file chooses code to run: it holds numbers, which describe the networks.

    Args:
        path: checkpoint of ``CascadedVideoGAN``; it has the levels below inside.

    Returns:
        The cascade, frozen and in eval mode.

    Raises:
        InputError: if it is no such checkpoint, or is damaged.
    """
    source = str(path)
    checkpoint = read_checkpoint(path)
    specs, state = stored_specs(checkpoint, source), checkpoint["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"the state_dict of {source} holds other things than weights")
    return filled_cascade(specs, cascade_weights(state, len(specs)), source)


def filled_cascade(
    specs: Sequence[LevelSpec], weights: Mapping[str, Tensor], source: str
) -> GeneratorCascade:
    """A cascade with given weights, frozen and in eval mode.

    No memory is taken for what a file only describes, and no weights are drawn.

    Args:
        specs: of its levels.
        weights: all of them; they are copied.
        source: what both were read from, for the message.

    Raises:
        InputError: if weights are missing, of other sizes or no finite numbers.
    """
    try:
        with torch.device("meta"):
            cascade = GeneratorCascade(specs)
    except RuntimeError as error:
        raise InputError(f"{source} describes levels too large to be made") from error
    own = cascade.state_dict()
    if weights.keys() != own.keys() or any(weights[k].shape != own[k].shape for k in own):
        raise InputError(f"{source} lacks weights of the levels that it describes: it is damaged")
    if wrong := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise InputError(
            f"{source} holds weights that are no finite numbers ({wrong[0]}): its training has"
            " diverged; take an earlier checkpoint"
        )
    copies = {name: value.to(own[name].dtype, copy=True) for name, value in weights.items()}
    cascade.load_state_dict(copies, assign=True)
    return cascade.requires_grad_(False).eval()


def cascade_weights(state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Weights of a ``GeneratorCascade`` of so many levels, out of those of the method."""
    weights = {k[len(_LOWER) :]: v for k, v in state.items() if k.startswith(_LOWER)}
    top = f"levels.{count - 1}."
    sampled = {k[len(_SAMPLED) :]: v for k, v in state.items() if k.startswith(_SAMPLED)}
    return {**weights, **{top + name: value for name, value in sampled.items()}}


class LevelsBelow:
    """Part of a LightningModule that is a level of a cascade: the levels below it, frozen.

    They come from the checkpoint ``previous``, once, and are in the module's own checkpoints from
    then on.
    """

    spec: LevelSpec
    previous: str | None
    lower: GeneratorCascade | None
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
        lower = load_generators(self.previous)
        self.spec.check_follows(lower.top, self.previous)
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
        """Complete the checkpoint: descriptions of all levels, and statistics for sampling."""
        self.sampled_generator()  # in place, so that it reaches the state dict, too
        lower = [] if self.lower is None else self.lower.specs
        checkpoint[_KEY] = {
            "levels": [spec.to_dict() for spec in (*lower, self.spec)],
            "previous": self.previous,
            "previous_sha256": self._previous_sha256,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the levels below that the checkpoint holds.

        Raises:
            InputError: if it is of another level or of no cascade.
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
        stored = checkpoint[_KEY].get("previous_sha256")
        self._check_previous(stored, checkpoint[_KEY].get("previous"))
        self._previous_sha256 = stored
        if lower:
            state = checkpoint["state_dict"].items()
            weights = {k[len(_LOWER) :]: v for k, v in state if k.startswith(_LOWER)}
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
