"""One level of a cascade of video generators, described by numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from torch import nn

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.video.conv_gru import CandidateAct
from lit_ssl.models.video.dvd_generator import DVDGenerator
from lit_ssl.models.video.upsampling_generator import UpsamplingGenerator

__all__ = ["LevelSpec"]

_COUNTS = (
    "level", "num_frames", "num_classes", "z_dim", "embed_dim", "channels", "temporal_factor",
    "spatial_factor",
)  # fmt: skip


@dataclass(frozen=True)
class LevelSpec:
    """What a generator is built from; plain numbers, so that a checkpoint can hold it.

    Args:
        level: 1 makes videos from noise, every other one makes those of the level below larger.
        num_frames: frames of its videos.
        resolution: their height and width in pixels.
        num_classes: number of classes; 1: unconditional.
        z_dim: width of the noise.
        embed_dim: width of a class's vector.
        channels: width of the networks, times ``channel_multipliers``.
        channel_multipliers: of the blocks; None: the generator's usual ones.
        candidate_act: of the recurrent cells of level 1, "relu" or "tanh".
        temporal_factor: frames per frame of the level below.
        spatial_factor: height and width per pixel of the level below.
        residual_output: add the condition to the output of an upper level, before tanh.

    Raises:
        InputError: for values that make no generator.
    """

    level: int
    num_frames: int
    resolution: tuple[int, int]
    num_classes: int = 1
    z_dim: int = 120
    embed_dim: int = 120
    channels: int = 96
    channel_multipliers: tuple[int, ...] | None = None
    candidate_act: CandidateAct = "relu"
    temporal_factor: int = 2
    spatial_factor: int = 2
    residual_output: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _check_whole(name, getattr(self, name))
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("resolution", "channel_multipliers"):
            for number in getattr(self, name) or ():
                _check_whole(name, number)
        check_choice("candidate_act", self.candidate_act, get_args(CandidateAct))

    def build(self) -> nn.Module:
        """Return the generator, with new weights."""
        shared: dict[str, Any] = {
            "num_classes": self.num_classes,
            "z_dim": self.z_dim,
            "embed_dim": self.embed_dim,
            "channels": self.channels,
        }
        if self.channel_multipliers is not None:
            shared["channel_multipliers"] = self.channel_multipliers
        if self.level == 1:
            return DVDGenerator(
                self.num_frames, self.resolution, candidate_act=self.candidate_act, **shared
            )
        return UpsamplingGenerator(
            temporal_factor=self.temporal_factor,
            spatial_factor=self.spatial_factor,
            residual_output=self.residual_output,
            **shared,
        )

    def check_follows(self, below: LevelSpec, source: str) -> None:
        """Raise unless this level's videos are those of another one, made larger.

        Args:
            below: the level below.
            source: what it was read from, for the message.

        Raises:
            InputError: which numbers do not fit.
        """
        if below.level != self.level - 1:
            raise InputError(
                f"{source} holds level {below.level}, but level {self.level} goes on from level"
                f" {self.level - 1}"
            )
        frames = below.num_frames * self.temporal_factor
        height, width = (side * self.spatial_factor for side in below.resolution)
        if (self.num_frames, *self.resolution) != (frames, height, width):
            own = described(self.num_frames, self.resolution)
            raise InputError(
                f"level {self.level} has {own}, but {source} makes"
                f" {described(below.num_frames, below.resolution)}, which factors"
                f" {self.temporal_factor} (time) and {self.spatial_factor} (space) turn into"
                f" {described(frames, (height, width))}: change num_frames, resolution or factors"
            )
        if self.num_classes != below.num_classes:
            raise InputError(
                f"level {self.level} has num_classes={self.num_classes}, but {source} was trained"
                f" with {below.num_classes}: the class is the same at all levels"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and strings."""
        plain = asdict(self)
        plain["resolution"] = list(self.resolution)
        multipliers = self.channel_multipliers
        plain["channel_multipliers"] = None if multipliers is None else list(multipliers)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], source: str = "the file") -> LevelSpec:
        """Read what ``to_dict`` gave.

        Args:
            plain: from a checkpoint: nothing in it is trusted.
            source: what it was read from, for the message.

        Raises:
            InputError: if it is of another form.
        """
        wanted = {f.name for f in fields(cls)}
        try:
            if set(plain) != wanted:
                raise ValueError(f"its entries are {sorted(map(str, plain))}")
            values = dict(plain)
            for name in wanted - {"resolution", "channel_multipliers", "candidate_act"}:
                kind = bool if name == "residual_output" else int
                if type(values[name]) is not kind:
                    raise ValueError(f"{name} is {values[name]!r}")
            for name in ("resolution", "channel_multipliers"):
                sides = values[name]
                if name == "channel_multipliers" and sides is None:
                    continue
                if not all(type(side) is int for side in sides):
                    raise ValueError(f"{name} is {sides!r}")
                values[name] = tuple(sides)
            if len(values["resolution"]) != 2 or type(values["candidate_act"]) is not str:
                raise ValueError("resolution or candidate_act is of another form")
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source} describes no level of a cascade: {error}") from error


def _check_whole(name: str, value: object) -> None:
    """A checkpoint keeps whole numbers as they are, and is refused with others."""
    if type(value) is not int:
        raise InputError(f"{name} takes whole numbers, not {value!r}")


def described(num_frames: int, resolution: tuple[int, int]) -> str:
    """``8 frames of 16 x 16 pixels``.

    Args:
        num_frames: of a video.
        resolution: height and width.
    """
    height, width = resolution
    return f"{num_frames} frames of {height} x {width} pixels"
