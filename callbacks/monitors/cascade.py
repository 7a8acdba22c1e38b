"""How close the videos of a cascade have come to real ones, in numbers that cost no download."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_ssl.callbacks.evaluators.monitored import let_monitors_wait
from lit_ssl.callbacks.pictures.view_grid import unnormalised
from lit_ssl.contracts.batches import describe, parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.video_generation import generates_videos
from lit_ssl.distributed import gather_rows
from lit_ssl.errors import InputAttributeError, InputError, InputTypeError, by_name
from lit_ssl.metrics.video.motion import motion_per_video
from lit_ssl.metrics.video.random_features import RandomFeatureDistance
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.trainer.passes import evaluation_mode
from lit_ssl.trainer.private import ends_now, validate_now, validate_the_end
from lit_ssl.trainer.validation import tell_schedule

__all__ = ["CascadeMonitor"]

_GROUP = 8  # videos that are made at once, and share a stream of noise
# Few features: the distance of two halves of the real videos should be small beside that of others.
_FEATURES = 32
_MATCHED = 64  # videos, at most, whose input is compared with them


class CascadeMonitor(pl.Callback):
    """Compares videos that a module makes with real ones of the validation set.

    For a module that makes videos
    (``lit_ssl.contracts.video_generation.GeneratesVideos``). Logged, over all processes
    (``test/`` in a test):

    - ``val/random_feature_distance``: Fréchet distance on 32 features of a random network
      ([`RandomFeatureDistance`][lit_ssl.metrics.RandomFeatureDistance]), lower is better. It
      needs no file and is a rough guide within a run, sensitive to speckle; look at the videos
      too. It does not compare with any FVD, nor with other numbers of videos;
    - ``val/motion`` and ``val/motion_real``: mean change of a pixel from frame to frame, in grey
      levels: still videos have little, flickering ones too much;
    - of a level above the first, for 64 videos at most, ``val/matching_own`` and
      ``val/matching_shuffled``: mean squared error between a video, made as small as its input, and
      that input or the one of another video; ``val/matching_gap`` = 1 − own / shuffled: 0 where the
      level ignores its input.

    The noise is the same every time and does not depend on the number of processes, which share
    the work. Nothing of the training changes, random numbers included.

    Args:
        num_videos: Videos of each kind, >= 2; where the validation set has fewer, all of it.
        every_n_epochs: During fit, measure in the validations of epochs n, 2n, … and at the end,
            >= 1.

    Raises:
        ValueError: If a value lies outside its range.
    """

    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    is_off: ClassVar[bool] = False
    family: ClassVar[str] = ""

    def __init__(self, num_videos: int = 256, every_n_epochs: int = 1) -> None:
        if num_videos < 2 or every_n_epochs < 1:
            raise InputError(
                "CascadeMonitor needs num_videos >= 2 and every_n_epochs >= 1, got "
                f"{num_videos}, {every_n_epochs}"
            )
        self.num_videos = num_videos
        self.every_n_epochs = every_n_epochs
        self._metric: RandomFeatureDistance | None = None
        self._left = 0  # real videos that this process still takes
        self._motion: list[Tensor] = []  # of real videos
        self._is_over = False  # whether a fit has ended without a measurement of its end
        self.measured: dict[str, int] = {}  # name of a value in the log → step of its weights
        self.last_step = -1  # at which it measured; −1: not in this call

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the module before the first batch."""
        if stage == "predict":
            return
        module = generates_videos(pl_module)
        if module.level > 1 and not callable(getattr(module, "matching_gap", None)):
            raise InputAttributeError(
                f"needs matching_gap(n, generator) of a level above 1, and {type(module).__name__} "
                "has none: remove the callback"
            )
        self.measured, self.last_step, self._is_over = {}, -1, False
        if stage == "fit":
            validate_the_end(trainer)
            let_monitors_wait(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be measured."""
        tell_schedule(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to collect real videos."""
        with isolate_rng():
            self._metric = RandomFeatureDistance(_FEATURES).to(pl_module.device)
        ranks, rank = trainer.world_size, trainer.global_rank
        self._left = len(range(rank, self.num_videos, ranks))
        self._motion = []

    on_test_start = on_validation_start

    @by_name
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the real videos of the batch, until there are enough."""
        if trainer.sanity_checking or dataloader_idx or not self._left or self._metric is None:
            return
        if not self._is_due(trainer):
            return
        real = real_videos(batch, generates_videos(pl_module), data_source(trainer))[: self._left]
        self._left -= len(real)
        with isolate_rng(), torch.no_grad():
            self._metric.update(real, real=True)
            self._motion.append(motion_per_video(real))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make videos, compare and log, if it is due."""
        if not trainer.sanity_checking and self._is_due(trainer):
            self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make videos, compare and log."""
        self._log(trainer, pl_module, "test")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure an end that only a callback, such as EarlyStopping, has made one."""
        if self.last_step != trainer.global_step and trainer.enable_validation:
            self._is_over = True
            validate_now(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        is_nth = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return trainer.state.fn != "fit" or is_nth or self._is_over or ends_now(trainer)

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        assert self._metric is not None
        self.last_step = trainer.global_step
        rows = [*self._motion, torch.zeros(0, device=pl_module.device)]
        motion_real = torch.cat(gather_rows(torch.cat(rows).float()))
        if len(motion_real) < 2:
            raise InputError(
                f"CascadeMonitor compares with 2 videos of the evaluation at least, and got"
                f" {len(motion_real)}: give the data more, or more limit_{split}_batches, or remove"
                " the callback"
            )
        with (
            isolate_rng(),
            torch.no_grad(),
            evaluation_mode(pl_module),
            trainer.precision_plugin.forward_context(),
        ):
            motion = self._generate(trainer, pl_module)
            errors = self._match(trainer, pl_module)
        values = {
            "random_feature_distance": float(self._metric.compute()),
            "motion": _mean(motion),
            "motion_real": float(motion_real.double().mean()),
        }
        if errors is not None:
            own, shuffled = (float(value) for value in errors)
            values |= {"matching_own": own, "matching_shuffled": shuffled}
            values["matching_gap"] = 1 - own / shuffled if shuffled else math.nan
        self._metric = None
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            rank_zero_warn(
                f"CascadeMonitor: {', '.join(wrong)} cannot be told at step {trainer.global_step}: "
                "the videos are all alike, or the weights are no finite numbers"
            )
        logged = {f"{split}/{name}": value for name, value in values.items()}
        self.measured |= dict.fromkeys(logged, trainer.global_step)
        # all processes hold equal values; syncing them again only keeps Lightning from warning
        pl_module.log_dict(logged, batch_size=1, sync_dist=True)

    def _generate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        """Make this process' videos and compare them; returns their motion, ``[n]``."""
        assert self._metric is not None
        module, motion = generates_videos(pl_module), []
        groups = list(self._groups(trainer, self.num_videos))
        if not groups:  # a module may prepare itself together with the other processes
            module.sample(1, generator=_noise(0))
        for number, size in groups:
            videos = module.sample(size, generator=_noise(number)).to(pl_module.device)
            self._metric.update(videos, real=False)
            motion.append(motion_per_video(videos))
        return torch.cat(motion) if motion else torch.zeros(0, device=pl_module.device)

    def _match(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor | None:
        """Mean errors of an upper level against its own and other inputs, ``[2]``."""
        module: Any = pl_module
        if module.level < 2:
            return None
        count = min(self.num_videos, _MATCHED)
        rows = [
            size * torch.tensor([1.0, found["own"], found["shuffled"]], dtype=torch.float64)
            for number, size in self._groups(trainer, count)
            if size > 1
            for found in [module.matching_gap(size, generator=_noise(number))]
        ]
        local = torch.stack(rows) if rows else torch.zeros(0, 3, dtype=torch.float64)
        total = torch.cat(gather_rows(local.to(pl_module.device))).sum(0)
        return total[1:] / total[0]

    def _groups(self, trainer: pl.Trainer, count: int) -> Iterator[tuple[int, int]]:
        """Numbers and sizes of the groups of ``count`` videos that this process makes."""
        groups = math.ceil(count / _GROUP)
        for number in range(trainer.global_rank, groups, trainer.world_size):
            yield number, min(_GROUP, count - number * _GROUP)


def real_videos(batch: Any, module: Any, source: Any) -> Tensor:
    """The videos of a batch as a module that makes videos should make them.

    Args:
        batch: As the module gets it.
        module: Whose number of frames and resolution they should have.
        source: Data module whose ``mean`` and ``std`` they have.

    Returns:
        uint8 ``[B, T, 3, H, W]``: the first frames where there are more.

    Raises:
        InputError: They are no videos, shorter, or of another size.
    """
    videos, _, _ = parts_of(batch)
    if not isinstance(videos, Tensor) or videos.dim() != 5 or videos.shape[2] != 3:
        raise InputTypeError(
            f"needs batches (video [B, T, 3, H, W], labels), got {describe(batch)}: use a data "
            "module of videos, or remove the callback"
        )
    frames, size = module.num_frames, tuple(module.resolution)
    if videos.shape[1] < frames or tuple(videos.shape[-2:]) != size:
        raise InputError(
            f"the module makes {frames} frames of {size[0]} x {size[1]} pixels, but the evaluation "
            f"has {videos.shape[1]} frames of {videos.shape[-2]} x {videos.shape[-1]}: give the "
            f"data eval_frames: {frames} and size: [{size[0]}, {size[1]}]"
        )
    videos = videos[:, :frames]
    if videos.dtype == torch.uint8:
        return videos
    pixels = unnormalised(videos.detach().float().cpu(), source)
    return (pixels * 255).round().byte().to(videos.device)


def _noise(number: int) -> torch.Generator:
    seed = int(sample_seeds(Stream.WATCHED_VIDEOS, 1, number)[0])
    return torch.Generator().manual_seed(seed)


def _mean(local: Tensor) -> float:
    """Mean over the processes' rows; NaN without any."""
    return float(torch.cat(gather_rows(local.float())).double().mean())
