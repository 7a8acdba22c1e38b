"""Videos of real digits that move and bounce, drawn as they are read; no download."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F

from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.images.part import check_classes
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.stratified_split import stratified_split
from lit_ssl.datamodules.video.clip_module import VideoDataModule
from lit_ssl.datamodules.video.digit_motion import (
    Motion,
    box_average,
    draw_digits,
    draw_motion,
    places_of,
)
from lit_ssl.datamodules.video.sources import Clips
from lit_ssl.datamodules.vision_language.digit_scenes.world import COLOURS
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, uniform

__all__ = ["DigitClips", "MovingDigitsDataModule"]

_SPLITS = {"train": 0, "val": 1, "test": 2}
_VAL_DIGITS, _SPLIT_SEED = 500, 911  # of the 4,000 training digits
_FPS = 8.0


@dataclass(eq=False)
class DigitClips(Clips):
    """Videos of moving digits; a frame is drawn when it is read.

    Args:
        pixels: Digits, float32 ``[M, s, s]`` in [0, 255].
        images: Which of them move in each video, int64 ``[N, D]``.
        colours: Their colours (red, green, blue), float32 ``[N, D, 3]`` in [0, 1].
        motion: How they move.
        length: Frames of each video.
        canvas_size: Side of the frames that are drawn.
        factor: Frames are shrunk by it.
    """

    pixels: np.ndarray
    images: np.ndarray
    colours: np.ndarray
    motion: Motion
    length: int
    canvas_size: int
    factor: int

    def __post_init__(self) -> None:
        self.frames = np.full(len(self.images), self.length, dtype=np.int64)
        self.fps = np.full(len(self.images), _FPS)

    def read_clip(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Draw some frames of a video: uint8 ``[T, H, W, 3]``."""
        strokes = self.pixels[self.images[row]][:, None]
        room = self.canvas_size - strokes.shape[-1]
        places = places_of(self.motion, row, frames, room)
        colours = self.colours[row]
        is_grey = bool((colours == 1).all())
        if not is_grey:
            strokes = strokes * colours[..., None, None]
        drawn = box_average(draw_digits(strokes, places, self.canvas_size), self.factor)
        return np.repeat(drawn, 3, axis=-1) if is_grey else drawn

    def name(self, row: int) -> None:
        """Return None: there are no files."""

    def select(self, rows: np.ndarray) -> DigitClips:
        """Return the videos at ``rows`` (int64 ``[N]``), in that order."""
        chosen = copy(self)
        chosen.images, chosen.colours = self.images[rows], self.colours[rows]
        chosen.motion = Motion(*(part[rows] for part in self.motion))
        chosen.frames, chosen.fps = self.frames[rows], self.fps[rows]
        return chosen


class MovingDigitsDataModule(VideoDataModule):
    """Real digits that move at constant speed and bounce off the edges of black frames.

    The label is the digit. Digits are those of ``MNIST5kDataModule``: test videos show its test
    digits, validation videos 500 of its training digits, which training videos do not have. A video
    is a function of ``motion_seed``, its split and its number, so that a larger split begins with
    the smaller one.

    Frames are drawn at ``canvas_size``, at places between pixels, and shrunk to ``size`` by the
    mean of squares of pixels. So the lower levels of a cascade see the same videos, at a lower
    ``size`` and a higher ``stride``, up to the rounding to whole grey levels.

    Args:
        classes: The digits, from 0 to 9; label i is the i-th.
        sizes: Number of training, validation and test videos. Where there are no validation (test)
            videos, the other ones stand in.
        num_frames: Frames of a clip.
        stride: Every so many frames of a video are in a clip.
        size: Side of the frames; it divides ``canvas_size``.
        video_frames: Frames of a video, 8 per second.
        num_digits: 1, or 2 digits of the label's class; where they meet, each colour is that of the
            brighter one.
        digit_size: Pixels, side of a digit with the margins that MNIST gives it (28: as it is),
            below ``canvas_size``. Speeds are 1/24 to 1/8 of the rest, per frame.
        canvas_size: Pixels, side of the frames that are drawn.
        coloured: Each digit has one of six colours; else they are white.
        motion_seed: Seed of the videos; it does not depend on ``seed``.
        num_workers: Worker processes per loader; these videos need none.
        kwargs: Arguments of ``VideoDataModule``.

    Raises:
        InputError: One is out of range, or they do not fit each other.
    """

    def __init__(
        self,
        *,
        classes: Sequence[int] = (0, 1, 7),
        sizes: tuple[int, int, int] = (1500, 300, 300),
        num_frames: int = 16,
        stride: int = 1,
        size: int | tuple[int, int] = 32,
        video_frames: int = 16,
        num_digits: int = 1,
        digit_size: int = 20,
        canvas_size: int = 32,
        coloured: bool = False,
        motion_seed: int = 0,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_frames=num_frames, stride=stride, size=size, num_workers=num_workers, **kwargs
        )
        self._classes = check_classes(classes, MNIST5kDataModule.class_names, "classes")
        if len(sizes) != 3 or sizes[0] < 1 or min(sizes) < 0:
            raise InputError(
                "sizes must be the numbers of training (at least 1), validation and test videos,"
                f" got {list(sizes)}"
            )
        if num_digits not in (1, 2):
            raise InputError(f"num_digits must be 1 or 2, got {num_digits}")
        if not 2 <= digit_size < canvas_size:
            raise InputError(
                "digit_size must be at least 2 and below canvas_size, so that digits can move, got"
                f" {digit_size} and {canvas_size}"
            )
        height, width = self.resolution
        if height != width or canvas_size % height:
            raise InputError(
                f"MovingDigitsDataModule draws squares of {canvas_size} pixels a side (canvas_size)"
                f" and shrinks them by whole factors: size must divide it, got {height} x {width}"
            )
        for rule in (self.training_rule, self.evaluation_rule):
            length = int(rule.lengths(np.array([video_frames]), np.array([_FPS]))[0])
            if length < rule.span:
                raise InputError(
                    f"video_frames must be enough for clips of {rule}, got {video_frames}"
                )
        self.sizes = tuple(sizes)
        self.video_frames = video_frames
        self.num_digits = num_digits
        self.digit_size = digit_size
        self.canvas_size = canvas_size
        self.coloured = coloured
        self.motion_seed = motion_seed

    @property
    def class_names(self) -> Sequence[str]:
        """The digits, in the order of the labels."""
        return [str(digit) for digit in self._classes]

    def prepare_data(self) -> None:
        """Check that the digits can be loaded."""
        MNIST5kDataModule().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the videos of a split; classes take turns."""
        number = _SPLITS[split]
        count = self.sizes[number]
        if not count:
            return None
        labels = np.arange(count) % len(self._classes)
        pixels, of_class = self._digits[split]
        videos, digits = np.arange(count)[:, None], np.arange(self.num_digits)

        def draw(what: int) -> np.ndarray:
            return uniform(self.motion_seed, Stream.MOVING_DIGITS, number, videos, digits, what)

        numbers = [len(one) for one in of_class]
        starts = np.cumsum([0, *numbers[:-1]])
        within = (draw(0) * np.array(numbers)[labels][:, None]).astype(np.int64)
        images = np.concatenate(of_class)[starts[labels][:, None] + within]
        colours: np.ndarray = np.ones((count, self.num_digits, 3), dtype=np.float32)
        if self.coloured:
            palette = np.array(list(COLOURS.values()), dtype=np.float32) / 255
            colours = palette[(draw(1) * len(palette)).astype(np.int64)]
        room = self.canvas_size - self.digit_size
        clips = DigitClips(
            pixels=pixels,
            images=images,
            colours=colours,
            motion=draw_motion((self.motion_seed, number), count, self.num_digits, room),
            length=self.video_frames,
            canvas_size=self.canvas_size,
            factor=self.canvas_size // self.resolution[0],
        )
        return Rows(clips, {"label": labels})

    @cached_property
    def _digits(self) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
        """Of each split: digits float32 ``[M, s, s]``, and which of them are of each class."""
        module = MNIST5kDataModule()
        train, test = module.load_rows("train"), module.load_rows("test")
        assert train is not None
        assert test is not None
        rest, held_out = stratified_split(train.labels, _VAL_DIGITS, _SPLIT_SEED)
        parts = {"train": train.select(rest), "val": train.select(held_out), "test": test}
        return {split: self._resized(rows) for split, rows in parts.items()}

    def _resized(self, rows: Rows) -> tuple[np.ndarray, list[np.ndarray]]:
        assert isinstance(rows.source, ArrayImages)
        of_class = [np.flatnonzero(rows.labels == digit) for digit in self._classes]
        whole = rows.source.pixels.float()
        if self.digit_size != whole.shape[-1]:
            side = (self.digit_size, self.digit_size)
            whole = F.interpolate(whole, side, mode="bilinear", antialias=True)
        return whole[:, 0].clamp(0, 255).numpy(), of_class
