"""Clips of videos."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.datamodules.video.clip_rule import ClipRule
from lit_ssl.datamodules.video.clip_sets import ClipReader, EvaluationClips, TrainingClips
from lit_ssl.datamodules.video.sources import Clips
from lit_ssl.errors import InputError, check_choice, listed
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms.evaluation import normalize
from lit_ssl.transforms.video import frame_size

__all__ = ["VideoDataModule"]


class VideoDataModule(RowsModule, ABC):
    """Labelled videos, of which clips are served.

    A row is a video. A data set gives ``load_rows``, whose source is a ``Clips``, and
    ``class_names``, one name where videos have no classes. A batch is ``(video, labels)``: video
    ``[B, T, 3, H, W]``, uint8 until it is on its device, then ``(video / 255 - mean) / std``.

    For training, a clip of each video begins anywhere in it, in another place in each epoch, and is
    cropped at random: a function of seed, epoch and row. For evaluation the clips are always the
    same. Videos that are too short for a clip are left out, and a line says how many.

    Args:
        num_frames: Frames of a training clip.
        stride: Every so many frames of a video is in a clip.
        fps: Frames per second to which videos are resampled first, by leaving frames out or
            repeating them; ``stride`` then counts these. None keeps the rate of each video.
        size: Height and width of frames in pixels; one number for squares. Frames are resized until
            they just cover it, then cropped: at random for training, else to the centre.
        eval_frames: Frames of a clip of validation, test and predict; None: ``num_frames``.
        clips_per_video: Clips of each video in validation, test and predict, evenly spaced; one is
            the middle. They follow each other, so that a batch has ``batch_size`` videos and
            ``batch_size * clips_per_video`` clips.
        hflip: Mirror half of the training clips.
        on_corrupt: "skip" leaves out videos that cannot be read, with a warning; "raise" stops.
        mean: Mean of each channel for frames in [0, 1].
        std: Standard deviation of each channel. By default frames are in [-1, 1].
        batch_size: Videos per batch and process.
        num_workers: Worker processes per loader.
        seed: Seed of the order, the clips and the crops, the same on all processes. None takes the
            one of ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training videos only.
        val_size: Number of training videos held out for validation: always the same ones, in
            proportion to the sizes of the classes. 0 validates on the data set's own validation
            videos, or on its test videos where it has none.
        val_file: Hold out the training videos that a list names, in place of ``val_size``.

    Attributes:
        num_classes: Number of classes; 1 where videos have none, and all labels are 0.
        class_names: Their names, in the order of the labels.
        num_frames: Frames of a training clip.
        eval_frames: Frames of any other clip.
        clips_per_video: Clips of each video in evaluation.
        resolution: Height and width of frames.
        in_channels: 3.

    Raises:
        InputError: A number of clips or frames is below 1.
    """

    inputs: ClassVar[str] = "videos"
    in_channels: int = 3

    def __init__(
        self,
        *,
        num_frames: int = 16,
        stride: int = 1,
        fps: float | None = None,
        size: int | tuple[int, int] = 64,
        eval_frames: int | None = None,
        clips_per_video: int = 1,
        hflip: bool = False,
        on_corrupt: Literal["raise", "skip"] = "skip",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        batch_size: int = 16,
        num_workers: int = 4,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        subset: Subset | None = None,
        val_size: int = 0,
        val_file: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            drop_last=drop_last,
            subset=subset,
            val_size=val_size,
            val_file=val_file,
        )
        self.save_hyperparameters(logger=False, ignore=not_plain(subset=subset))
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        if clips_per_video < 1:
            raise InputError(f"clips_per_video must be at least 1, got {clips_per_video}")
        if eval_frames is not None and eval_frames < 1:
            raise InputError(f"eval_frames must be at least 1, got {eval_frames}")
        self.num_frames = num_frames
        self.eval_frames = num_frames if eval_frames is None else eval_frames
        self.training_rule = ClipRule(num_frames, stride, fps)
        self.evaluation_rule = ClipRule(self.eval_frames, stride, fps)
        self.clips_per_video = clips_per_video
        self.resolution = frame_size(size)
        self.hflip = hflip
        self.on_corrupt = on_corrupt
        self.mean, self.std = tuple(mean), tuple(std)
        normalize(torch.zeros(3, 1, 1), self.mean, self.std)  # a misfit shows now

    @property
    def num_corrupt(self) -> int:
        """Number of videos that this process found unreadable while decoding them so far."""
        readers = (rows.source for rows in self._splits.read_so_far)
        return sum(reader.num_corrupt for reader in readers if isinstance(reader, ClipReader))

    def usable(self, rows: Rows, split: Split) -> np.ndarray | None:
        """Say which videos can be read and are long enough, and tell how many are not.

        Raises:
            InputError: None is, or some cannot be read and ``on_corrupt`` is "raise".
        """
        clips = rows.source
        assert isinstance(clips, Clips)
        rule = self._rule(split)
        unreadable = clips.frames < 1
        lengths = rule.lengths(clips.frames, clips.fps)
        short = ~unreadable & (lengths < rule.span)
        if unreadable.any() and self.on_corrupt == "raise":
            names = [str(clips.name(int(row))) for row in np.flatnonzero(unreadable)]
            raise InputError(
                f"{len(names):,} of the {len(rows):,} {split} videos cannot be read:"
                f" {listed(names)}. Repair or remove them, or set on_corrupt: skip"
            )
        kept = ~(unreadable | short)
        if kept.all():
            return None
        reasons = []
        if unreadable.any():
            reasons.append(f"{int(unreadable.sum()):,} cannot be read")
        if short.any():
            reasons.append(f"{int(short.sum()):,} are shorter than {rule}")
        if not kept.any():
            raise InputError(
                f"no {split} video is left of {len(rows):,}: {' and '.join(reasons)} (the longest"
                f" has {int(lengths.max()):,} frames). Lower num_frames, eval_frames or stride, or"
                " repair the files"
            )
        rank_zero_info(f"{split}: of {len(rows):,} videos, {' and '.join(reasons)}: left out")
        return kept

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Read clips as ``on_corrupt`` says."""
        clips = rows.source
        assert isinstance(clips, Clips)
        reader = ClipReader(clips, self._rule(split), self.on_corrupt == "skip")
        return Rows(reader, rows.columns)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (video, rows).

        Training videos that are served in order (``bank_dataloader``) give one clip each, from the
        middle, of ``num_frames``.
        """
        reader = self._require(split).source
        assert isinstance(reader, ClipReader)
        if training:
            return TrainingClips(reader, self.resolution, self.hflip)
        count = 1 if split == "train" else self.clips_per_video
        return EvaluationClips(reader, self.resolution, count)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale frames to [0, 1] and normalise them.

        Args:
            batch: (video, labels, …): video uint8, or float, which is left as it is.
            dataloader_idx: Index of the loader, unused.

        Returns:
            (float video ``[B, T, 3, H, W]`` in the precision of the run, labels, …).
        """
        video, *targets = batch
        return self.finish(video), *targets

    def finish(self, video: Tensor) -> Tensor:
        """Make the frames of a batch ready for the network.

        Args:
            video: ``[B, T, C, H, W]``; uint8 is scaled to [0, 1] and normalised, float stays as it
                is.

        Returns:
            Float in the precision of the trainer, where there is one.
        """
        if video.dtype == torch.uint8:
            video = normalize(video, self.mean, self.std)
        if self.trainer is None:
            return video
        # Lightning has converted the batch already, while it was uint8.
        return self.trainer.precision_plugin.convert_input(video)

    def _rule(self, split: Split) -> ClipRule:
        return self.training_rule if split == "train" else self.evaluation_rule
