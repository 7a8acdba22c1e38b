"""Networks that tell real videos from generated ones: by frames, as clips, with their condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.video.blocks import DiscriminatorBlock
from lit_ssl.models.video.inputs import check_counts, check_labels, check_videos
from lit_ssl.models.video.projection_head import ProjectionHead2d
from lit_ssl.models.video.sizes import pyramid, widths
from lit_ssl.video.resampling import downsample_video, upsample_condition

__all__ = [
    "ClipDiscriminator",
    "FrameDiscriminator",
    "MatchingDiscriminator",
    "MatchingSpace",
    "ScoreReduction",
]

ScoreReduction = Literal["sum", "mean"]
"""How scores of frames become the score of a video."""

MatchingSpace = Literal["low", "high"]
"""The size at which a video is compared with its condition: the condition's or the video's."""

_CLIP_BLOCKS = 2  # the first ones look at several frames at once


def _blocks(
    in_channels: int, sizes: Sequence[int], clip_blocks: int = 0
) -> tuple[nn.Sequential, nn.Sequential]:
    """Blocks over clips, then blocks over frames; all but the last one halve the size."""
    blocks = [
        DiscriminatorBlock(
            before,
            after,
            down=i < len(sizes) - 1,
            preactivation=i > 0,
            dims=3 if i < clip_blocks else 2,
        )
        for i, (before, after) in enumerate(zip([in_channels, *sizes], sizes, strict=False))
    ]
    return nn.Sequential(*blocks[:clip_blocks]), nn.Sequential(*blocks[clip_blocks:])


def _default(doublings: int) -> tuple[int, ...]:
    return tuple(min(8, 2**i) for i in range(doublings + 1))


def _reduced(scores: Tensor, reduction: ScoreReduction) -> Tensor:
    return scores.sum(dim=1) if reduction == "sum" else scores.mean(dim=1)


class FrameDiscriminator(nn.Module):
    """Judges k single frames of each video (DVD-GAN's spatial discriminator).

    Args:
        resolution: (height, width) of the videos, or the side of a square; see
            [`DVDGenerator`][lit_ssl.models.DVDGenerator].
        num_classes: of the labels.
        channels: ch, unit of the widths.
        num_frames: k, frames that are judged of each video.
        channel_multipliers: widths from the largest size to the smallest, one more than there are
            halvings; None: 1, 2, 4, 8, 8, …
        score_reduction: whether the scores of a video's frames are added or averaged.

    Raises:
        ValueError: if a size or a value lies outside its range.

    Source: arXiv 1907.06571, section 3.2; blocks and head of arXiv 1809.11096.
    """

    def __init__(
        self,
        resolution: int | tuple[int, int],
        num_classes: int = 1,
        channels: int = 96,
        num_frames: int = 8,
        channel_multipliers: Sequence[int] | None = None,
        score_reduction: ScoreReduction = "sum",
    ) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, num_frames=num_frames)
        check_choice("score_reduction", score_reduction, get_args(ScoreReduction))
        first = pyramid(resolution)
        sizes = widths(channels, channel_multipliers, _default(first.doublings))
        self.resolution = (first.height << first.doublings, first.width << first.doublings)
        self.num_frames = num_frames
        self.score_reduction: ScoreReduction = score_reduction
        _, self.blocks = _blocks(3, sizes)
        self.head = ProjectionHead2d(sizes[-1], num_classes)

    def forward(self, video: Tensor, y: Tensor, frames: Tensor | None = None) -> Tensor:
        """Judge.

        Args:
            video: ``[B, T, 3, H, W]``, T >= k.
            y: labels, int64 ``[B]``.
            frames: which frames to judge, int64 ``[B, k]``; None: for each video k others, drawn
                uniformly without replacement with torch's global generator.

        Returns:
            Scores ``[B]``.

        Raises:
            ValueError: if shapes differ, or a video has fewer than k frames.
        """
        height, width = self.resolution
        check_videos(video, "videos to be judged", channels=3, height=height, width=width)
        check_labels(y, len(video))
        if frames is None:
            frames = self._draw(video)
        if frames.ndim != 2 or len(frames) != len(video):
            raise InputError(f"frames must be int64 [{len(video)}, k], got {list(frames.shape)}")
        chosen = video[torch.arange(len(video), device=video.device)[:, None], frames]
        scores = self.head(self.blocks(chosen.flatten(0, 1).to(self.head.dtype)), y)
        return _reduced(scores, self.score_reduction)

    def _draw(self, video: Tensor) -> Tensor:
        batch, length = video.shape[:2]
        if length < self.num_frames:
            raise InputError(
                f"{self.num_frames} frames cannot be drawn of videos of {length}: let the frame "
                f"discriminator judge at most {length}"
            )
        order = torch.rand(batch, length, device=video.device).argsort(dim=1)
        return order[:, : self.num_frames]


class ClipDiscriminator(nn.Module):
    """Judges motion (DVD-GAN's temporal discriminator).

    The first two blocks see three frames at a time and halve the time as well; then each frame
    that is left is judged alone.

    Args:
        resolution: (height, width) of the videos, or the side of a square.
        num_frames: T of the videos.
        num_classes: of the labels.
        channels: ch, unit of the widths.
        channel_multipliers: widths from the largest size to the smallest; None: 1, 2, 4, 8, 8, …
        score_reduction: whether the scores of what is left of time are added or averaged.
        in_channels: channels of a frame.
        pool_input: halve the frames first, so that what costs is motion and not detail.

    Raises:
        ValueError: if a size or a value lies outside its range.

    Source: arXiv 1907.06571, section 3.2. That time is pooled is our own choice.
    """

    def __init__(
        self,
        resolution: int | tuple[int, int],
        num_frames: int,
        num_classes: int = 1,
        channels: int = 96,
        channel_multipliers: Sequence[int] | None = None,
        score_reduction: ScoreReduction = "sum",
        in_channels: int = 3,
        pool_input: bool = True,
    ) -> None:
        super().__init__()
        check_counts(num_frames=num_frames, num_classes=num_classes, in_channels=in_channels)
        check_choice("score_reduction", score_reduction, get_args(ScoreReduction))
        first = pyramid(resolution)
        if pool_input and first.doublings == 0:
            raise InputError(
                f"resolution {first.height}x{first.width} is too small for the clip discriminator, "
                "which halves its input first: the shorter side must have at least 8 pixels"
            )
        sizes = widths(channels, channel_multipliers, _default(first.doublings - pool_input))
        self.resolution = (first.height << first.doublings, first.width << first.doublings)
        self.num_frames = num_frames
        self.in_channels = in_channels
        self.pool_input = pool_input
        self.score_reduction: ScoreReduction = score_reduction
        self.clip_blocks, self.blocks = _blocks(in_channels, sizes, _CLIP_BLOCKS)
        self.head = ProjectionHead2d(sizes[-1], num_classes)

    def forward(self, video: Tensor, y: Tensor) -> Tensor:
        """Videos ``[B, T, C, H, W]`` and labels int64 ``[B]`` → scores ``[B]``.

        Args:
            video: in [-1, 1], of the frames, channels and size that the network was built for.
            y: classes.

        Raises:
            ValueError: if shapes differ.
        """
        height, width = self.resolution
        check_videos(
            video,
            "videos to be judged",
            frames=self.num_frames,
            channels=self.in_channels,
            height=height,
            width=width,
        )
        check_labels(y, len(video))
        if self.pool_input:
            video = downsample_video(video, 1, 2)
        clip = video.transpose(1, 2).to(self.head.dtype)
        frames = self.clip_blocks(clip).transpose(1, 2).flatten(0, 1)
        return _reduced(self.head(self.blocks(frames), y), self.score_reduction)


class MatchingDiscriminator(nn.Module):
    """Judges whether a video goes with the video of the level below that it was made from.

    Both are brought to one size, the condition is repeated in time, and a
    [`ClipDiscriminator`][lit_ssl.models.ClipDiscriminator] sees them as one video of six channels.

    Args:
        resolution: (height, width), or the side of a square, at which they are compared: of the
            condition, or with ``matching_space="high"`` of the video.
        num_frames: T of the video.
        num_classes: of the labels.
        channels: ch, unit of the widths.
        temporal_factor: r_t between the levels.
        spatial_factor: r_s between the levels.
        matching_space: ``low``: the video is made smaller by box means; ``high``: pixels of the
            condition are repeated.
        channel_multipliers: see [`ClipDiscriminator`][lit_ssl.models.ClipDiscriminator].
        score_reduction: see [`ClipDiscriminator`][lit_ssl.models.ClipDiscriminator].

    Raises:
        ValueError: if a size or a value lies outside its range.

    Source: the outline of arXiv 2106.02719; its layers are our own choice.
    """

    def __init__(
        self,
        resolution: int | tuple[int, int],
        num_frames: int,
        num_classes: int = 1,
        channels: int = 96,
        temporal_factor: int = 2,
        spatial_factor: int = 2,
        matching_space: MatchingSpace = "low",
        channel_multipliers: Sequence[int] | None = None,
        score_reduction: ScoreReduction = "sum",
    ) -> None:
        super().__init__()
        check_choice("matching_space", matching_space, get_args(MatchingSpace))
        check_counts(temporal_factor=temporal_factor, spatial_factor=spatial_factor)
        if num_frames % temporal_factor:
            raise InputError(
                f"videos of {num_frames} frames have no condition that is {temporal_factor} times "
                "slower: choose num_frames as a multiple of temporal_factor"
            )
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.matching_space: MatchingSpace = matching_space
        self.pairs = ClipDiscriminator(
            resolution=resolution,
            num_frames=num_frames,
            num_classes=num_classes,
            channels=channels,
            channel_multipliers=channel_multipliers,
            score_reduction=score_reduction,
            in_channels=6,
            pool_input=False,
        )

    def forward(self, video: Tensor, condition: Tensor, y: Tensor) -> Tensor:
        """Judge.

        Args:
            video: ``[B, T, 3, H, W]``.
            condition: ``[B, T / r_t, 3, H / r_s, W / r_s]``.
            y: labels, int64 ``[B]``.

        Returns:
            Scores ``[B]``.

        Raises:
            ValueError: if shapes differ.
        """
        check_videos(video, "videos to be judged", frames=self.pairs.num_frames, channels=3)
        if self.matching_space == "low":
            video = downsample_video(video, 1, self.spatial_factor)
            condition = upsample_condition(condition, self.temporal_factor, 1)
        else:
            condition = upsample_condition(condition, self.temporal_factor, self.spatial_factor)
        if condition.shape != video.shape:
            raise InputError(
                f"a condition does not go with its video: at one size and rate they are "
                f"{list(condition.shape)} and {list(video.shape)}"
            )
        return self.pairs(torch.cat([video, condition], dim=2), y)
