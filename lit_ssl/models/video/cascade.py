"""A stack of generators that makes videos of any length, in pieces where memory is short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.video.level import LevelSpec

__all__ = ["GeneratorCascade", "upsampled_frames"]


class GeneratorCascade(nn.Module):
    """Level 1 makes a small video from noise, each other level makes it larger.

    Args:
        specs: of levels 1, 2, … in this order.
        levels: their generators; None builds them.

    Raises:
        InputError: if the first level is not 1, or a level does not fit the one below it.

    Source: arXiv 2106.02719 and 2206.00735 (abstracts): levels from coarse to fine.
    """

    def __init__(
        self, specs: Sequence[LevelSpec], levels: Sequence[nn.Module] | None = None
    ) -> None:
        super().__init__()
        for number, spec in enumerate(specs, start=1):
            if number == 1 and spec.level != 1:
                raise InputError(f"a cascade begins with level 1, not {spec.level}")
            if number > 1:
                spec.check_follows(specs[number - 2], f"level {number - 1}")
        self.specs = tuple(specs)
        self.levels = nn.ModuleList(levels or [spec.build() for spec in specs])

    @property
    def top(self) -> LevelSpec:
        """The last level."""
        return self.specs[-1]

    @property
    def temporal_factor(self) -> int:
        """Frames of the last level per frame of level 1."""
        factor = 1
        for spec in self.specs[1:]:
            factor *= spec.temporal_factor
        return factor

    def draw_latents(
        self, count: int, device: torch.device, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Draw the noise of all levels, ``[count, z_dim]`` each.

        Args:
            count: number of videos.
            device: where the noise is wanted.
            generator: on the CPU, so that it gives the same videos everywhere; None takes torch's
                global one of the device.
        """
        if generator is None:
            return [torch.randn(count, spec.z_dim, device=device) for spec in self.specs]
        noise = [torch.randn(count, spec.z_dim, generator=generator) for spec in self.specs]
        return [z.to(device) for z in noise]

    def forward(
        self,
        latents: Sequence[Tensor],
        labels: Tensor,
        num_frames: int | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Make whole videos.

        In pieces and in eval mode the same frames come out as at once, up to rounding: each
        piece sees as many frames around it as its convolutions reach.

        Args:
            latents: noise of each level, ``[B, z_dim]``; one per video, constant over time.
            labels: classes, int64 ``[B]``, the same at all levels.
            num_frames: frames wanted, a multiple of ``temporal_factor``; None: as trained.
            chunk: most frames that an upper level makes at once; None: all.

        Returns:
            ``[B, T, 3, H, W]`` in [-1, 1].

        Raises:
            InputError: for another number of frames, or a ``chunk`` below 1.
        """
        frames = self.top.num_frames if num_frames is None else num_frames
        if frames < 1 or frames % self.temporal_factor:
            raise InputError(
                f"num_frames must be a multiple of {self.temporal_factor}, which is how many frames"
                f" come of one of level 1, not {frames}"
            )
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1 frame, not {chunk}")
        video = self.levels[0](latents[0], labels, num_frames=frames // self.temporal_factor)
        for level, z in zip(self.levels[1:], latents[1:], strict=True):
            video = in_chunks(level, z, labels, video, chunk)
        return video

    def frames(self, latents: Sequence[Tensor], labels: Tensor, start: int, stop: int) -> Tensor:
        """Make some frames of the videos only, without the upper levels' other frames.

        Args:
            latents: as in ``forward``.
            labels: as in ``forward``.
            start: first frame.
            stop: the one after the last, at most ``top.num_frames``.

        Returns:
            ``[B, stop - start, 3, H, W]``; in eval mode equal to these frames of ``forward``.
        """
        return self._frames(len(self.specs), latents, labels, start, stop)

    def _frames(
        self, count: int, latents: Sequence[Tensor], labels: Tensor, start: int, stop: int
    ) -> Tensor:
        level: Any = self.levels[count - 1]
        if count == 1:  # causal: later frames are not needed
            return level(latents[0], labels, num_frames=stop)[:, start:]
        below = self.specs[count - 2]
        first, last = needed_frames(level, start, stop, below.num_frames)
        condition = self._frames(count - 1, latents, labels, first, last)
        made = level(latents[count - 1], labels, condition)
        skipped = start - first * level.temporal_factor
        return made[:, skipped : skipped + stop - start]


def needed_frames(level: Any, start: int, stop: int, available: int) -> tuple[int, int]:
    """Frames of a condition that frames ``start`` to ``stop`` of an upper level depend on.

    Args:
        level: an upper level; its ``temporal_factor`` and ``receptive_radius`` count.
        start: first frame that is made.
        stop: the one after the last.
        available: frames of the condition.

    Returns:
        First frame of the condition, and the one after the last.
    """
    factor = level.temporal_factor
    halo = -(-level.receptive_radius // factor)
    return max(start // factor - halo, 0), min(-(-stop // factor) + halo, available)


def upsampled_frames(
    level: Any, z: Tensor, labels: Tensor, condition: Tensor, start: int, stop: int
) -> Tensor:
    """Frames ``start`` to ``stop`` of what an upper level makes of a condition.

    Args:
        level: the generator, in eval mode.
        z: noise, ``[B, z_dim]``.
        labels: int64 ``[B]``.
        condition: ``[B, T, 3, h, w]``.
        start: first frame of the output.
        stop: the one after the last.
    """
    first, last = needed_frames(level, start, stop, condition.shape[1])
    made = level(z, labels, condition[:, first:last])
    skipped = start - first * level.temporal_factor
    return made[:, skipped : skipped + stop - start]


def in_chunks(
    level: Any, z: Tensor, labels: Tensor, condition: Tensor, chunk: int | None
) -> Tensor:
    """All that an upper level makes of a condition, so many frames at a time.

    Args:
        level: an upper level.
        z: noise ``[B, z_dim]``.
        labels: classes, int64 ``[B]``.
        condition: video of the level below, ``[B, T, C, H, W]``.
        chunk: most frames that are made at once, ≥ 1; None: all.

    Returns:
        ``[B, T · temporal_factor, C, H', W']``.
    """
    total = condition.shape[1] * level.temporal_factor
    if chunk is None or chunk >= total:
        return level(z, labels, condition)
    parts = [
        upsampled_frames(level, z, labels, condition, start, min(start + chunk, total))
        for start in range(0, total, chunk)
    ]
    return torch.cat(parts, dim=1)
