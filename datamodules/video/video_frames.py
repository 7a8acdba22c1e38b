"""Single frames of videos as images, for methods that learn from images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.images import Images
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.video.clip_module import VideoDataModule
from lit_ssl.datamodules.video.clip_sets import ClipReader
from lit_ssl.datamodules.video.sources import Clips, CorruptVideoError
from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.transforms import EvalTransform

__all__ = ["FrameImages", "VideoFramesDataModule", "even_frames"]


def even_frames(frames: int, count: int) -> np.ndarray:
    """Return the middles of equal parts of a video; all its frames where it has fewer.

    Args:
        frames: Frames of the video, >= 1.
        count: Number of parts, >= 1.

    Returns:
        int64 ``[min(count, frames)]``, ascending.
    """
    parts = min(count, frames)
    return (2 * np.arange(parts, dtype=np.int64) + 1) * frames // (2 * parts)


class FrameImages(Images):
    """Frames of videos.

    Args:
        clips: The videos.
        videos: int64 ``[N]``: the row in ``clips`` of the video of each image.
        frames: int64 ``[N]``: which of its frames.
    """

    def __init__(self, clips: Clips, videos: np.ndarray, frames: np.ndarray) -> None:
        self.clips = clips
        self.videos = videos
        self.frames = frames

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def folder(self) -> str | None:
        """Folder of the videos; None where they lie in memory."""
        return getattr(self.clips, "folder", None)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one frame as uint8 ``[3, H, W]``, with no side longer than ``max_side``."""
        try:
            clip = self.clips.read_clip(int(self.videos[index]), self.frames[index : index + 1])
        except CorruptVideoError as error:
            raise CorruptImageError(str(error)) from error
        image = torch.from_numpy(clip[0]).permute(2, 0, 1)
        longer = max(image.shape[1:])
        if max_side is None or longer <= max_side:
            return image
        sides = [max(1, round(side * max_side / longer)) for side in image.shape[1:]]
        return F.resize(image, sides, antialias=True)

    def name(self, row: int) -> str | None:
        """Return the path of a frame's video, None if it has none."""
        return self.clips.name(int(self.videos[row]))

    def select(self, rows: np.ndarray) -> FrameImages:
        """Return the frames at ``rows`` (int64 ``[N]``), in that order; nothing is read."""
        return FrameImages(self.clips, self.videos[rows], self.frames[rows])


class VideoFramesDataModule(ImageDataModule):
    """Single frames of videos as images: any method over images trains on them.

    Videos are those of ``video`` as it uses them, after its hold-out and subset. All frames of a
    video have its label and its name; ``val_size``, ``val_file`` and ``subset`` count videos here
    and never divide one. Evaluation is by frame.

    Of the arguments of ``video`` those count that choose videos and say how they are read:
    ``num_frames`` (with ``stride`` and ``fps``) leaves out shorter videos, so that 1 keeps all, and
    frames are read with sides that just cover its ``size``.

    Args:
        video: Any data module of videos.
        frames_per_video: Frames of each video, evenly spaced: the middles of equal parts. Of a
            shorter video, all frames.
        mean: Mean of each channel. None: that of ``video``.
        std: Standard deviation of each channel. None: that of ``video``.
        kwargs: Arguments of ``ImageDataModule``. The usual ``eval_transform`` is a centre crop of
            the shorter side of ``video``'s ``size``.

    Raises:
        InputError: ``video`` is no data module of videos, or ``frames_per_video`` is below 1.
    """

    inputs: ClassVar[str] = "frames"
    chosen_by: ClassVar[tuple[str, str] | None] = ("video", "videos")

    def __init__(
        self,
        video: VideoDataModule,
        *,
        frames_per_video: int = 8,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(video, VideoDataModule):
            raise InputTypeError(
                f"VideoFramesDataModule takes a data module of videos, not {type(video).__name__}:"
                " give it the one that reads the videos"
            )
        if frames_per_video < 1:
            raise InputError(f"frames_per_video must be at least 1, got {frames_per_video}")
        self.video = video  # before the hyper-parameters are saved, which leave it out
        self.frames_per_video = frames_per_video
        super().__init__(
            mean=video.mean if mean is None else mean,
            std=video.std if std is None else std,
            **kwargs,
        )

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels; none where ``video`` has one."""
        names = self.video.class_names
        return names if len(names) > 1 else ()

    @property
    def num_classes(self) -> int | None:
        """Number of classes; 0 where ``video`` has one, which says that there are no labels."""
        return None if self.video.num_classes is None else len(self.class_names)

    @property
    def validates_on_test(self) -> bool:
        """Whether validation sees the videos that results are reported on."""
        held_out_here = self._splits.validation_source == "train"
        return not held_out_here and self.video.validates_on_test

    def prepare_data(self) -> None:
        """Prepare the videos."""
        self.video.trainer = self.trainer  # how many processes there are
        self.video.prepare_data()

    def default_eval_transform(self) -> EvalTransform:
        """Return a centre crop as large as ``video``'s frames."""
        return EvalTransform(min(self.video.resolution))

    def load_rows(self, split: Split) -> Rows | None:
        """Return the frames of a split; None where the test videos are validated on."""
        self.video.say_found(split)
        rows = self.video.rows(split)
        if rows is None or (split == "val" and rows is self.video.rows("test")):
            return None
        reader = rows.source
        assert isinstance(reader, ClipReader)
        counts = reader.clips.frames
        chosen = [even_frames(int(count), self.frames_per_video) for count in counts]
        frames = np.concatenate([np.empty(0, dtype=np.int64), *chosen])
        videos = np.repeat(np.arange(len(rows)), [len(one) for one in chosen])
        columns = {name: column[videos] for name, column in rows.columns.items()}
        return Rows(FrameImages(reader.clips, videos, frames), {**columns, "video": videos})
