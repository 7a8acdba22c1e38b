"""Videos from a level of a cascade and all below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.methods.video.levels_below import LevelsBelow
from lit_ssl.metrics.video.preparation import to_uint8
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.standing_statistics import standing_statistics
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.video.resampling import downsample_video

__all__ = ["SamplesVideos"]

_STATISTICS_BATCH = 16  # videos per pass that re-estimates BatchNorm's statistics


class SamplesVideos(LevelsBelow):
    """Part of a LightningModule: videos by its averaged generator and the levels below."""

    generator_ema: Any
    g_step: Tensor  # steps of the generator so far
    _steps: int | None = None  # the same, known without waiting for a device
    class_counts: Tensor  # float64 [num_classes], of the training videos
    window: int  # frames of the level below that a training step sees
    window_halo: int

    if TYPE_CHECKING:
        hparams: Any

    @property
    def num_classes(self) -> int:
        """Number of classes; 1: unconditional."""
        return self.spec.num_classes

    def forward(
        self,
        z: Tensor | None = None,
        y: Tensor | None = None,
        condition: Tensor | None = None,
        num_videos: int = 1,
    ) -> Tensor:
        """Videos of this level by the averaged generator.

        Args:
            z: noise ``[B, z_dim]``; None: new.
            y: classes, int64 ``[B]``; None: drawn.
            condition: videos of the level below, ``[B, w, 3, h, w']`` in [-1, 1]; None: new whole
                ones. Level 1 has none.
            num_videos: B where neither of them is given.

        Returns:
            ``[B, T, 3, H, W]`` in [-1, 1].

        Raises:
            InputError: for other classes, or a condition at level 1.
        """
        given = next((len(x) for x in (z, y, condition) if x is not None), num_videos)
        labels = self.drawn_labels(given) if y is None else self._classes(y, given)
        noise = torch.randn(given, self.spec.z_dim, device=self.device) if z is None else z
        generator = self.sampled_generator()
        if self.level == 1:
            if condition is not None:
                raise InputError("level 1 makes videos from noise: leave out condition")
            return generator(noise, labels)
        if condition is None:
            lower = self._lower()
            condition = lower(lower.draw_latents(given, self.device), labels)
        return generator(noise, labels, condition)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        y: Tensor | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        num_frames: int | None = None,
        chunk: int | None = None,
        batch_size: int = 16,
    ) -> Tensor:
        """Make videos by the whole cascade.

        Args:
            n: how many.
            y: classes, int64 ``[n]``; None: drawn as often as among the training videos.
            generator: on the CPU: fixed, it gives the same videos.
            num_frames: frames of each; None: as trained.
            chunk: most frames that an upper level makes at once.
            batch_size: videos at once.

        Returns:
            uint8 ``[n, T, 3, H, W]``, on the CPU.

        Raises:
            ValueError: A value lies outside its range, or the generator makes NaN.
        """
        if n < 1 or batch_size < 1:
            raise InputError(f"n and batch_size must be at least 1, not {n} and {batch_size}")
        labels = self.drawn_labels(n, generator) if y is None else self._classes(y, n)
        cascade = self.cascade()
        latents = cascade.draw_latents(n, self.device, generator)
        videos = []
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            made = cascade([z[part] for z in latents], labels[part], num_frames, chunk)
            videos.append(to_uint8(made).cpu())
        return torch.cat(videos)

    def _classes(self, y: Tensor | Sequence[int], count: int) -> Tensor:
        """Classes on the module's device, int64 ``[count]``, after a look at them."""
        labels = torch.as_tensor(y)
        outside = (labels < 0) | (labels >= self.num_classes)
        if labels.shape != (count,) or labels.is_floating_point() or outside.any():
            raise InputError(
                f"y must be {count} classes, whole numbers from 0 to {self.num_classes - 1}"
            )
        return labels.to(self.device).long()

    def cascade(self) -> GeneratorCascade:
        """All levels up to this one as they are sampled; the networks are this module's own."""
        own = self.sampled_generator()
        if self.level == 1:
            return GeneratorCascade([self.spec], [own]).eval()
        lower = self._lower()
        return GeneratorCascade([*lower.specs, self.spec], [*lower.levels, own]).eval()

    def steps_made(self) -> int:
        """Steps of the generator so far."""
        if self._steps is None:
            self._steps = int(self.g_step)
        return self._steps

    def count_step(self) -> int:
        """Count one more step of the generator; returns how many there were."""
        self._steps = self.steps_made() + 1
        self.g_step += 1
        return self._steps

    def sampled_generator(self) -> nn.Module:
        """The averaged generator in eval mode, with BatchNorm statistics of its weights."""
        steps = self.steps_made()
        if self._statistics_of != steps:
            self._estimate_statistics(steps)
            self._statistics_of = steps
        return self.generator_ema.eval()

    @torch.no_grad()
    def _estimate_statistics(self, steps: int) -> None:
        seed = int(sample_seeds(Stream.STANDING_STATISTICS, steps)[0])
        random = torch.Generator().manual_seed(seed)

        def sampler(_: int) -> None:
            labels = self.drawn_labels(_STATISTICS_BATCH, random)
            z = torch.randn(_STATISTICS_BATCH, self.spec.z_dim, generator=random)
            z = z.to(self.device)
            if self.level == 1:
                self.generator_ema(z, labels)
            else:
                self.generator_ema(z, labels, self.drawn_condition(labels, random))

        standing_statistics(self.generator_ema, sampler, self.hparams["standing_stats_batches"])

    @torch.no_grad()
    def matching_gap(self, n: int, generator: torch.Generator | None = None) -> dict[str, float]:
        """How much closer videos, made small, are to what they were made from than to another.

        Args:
            n: number of videos, ≥ 2.
            generator: on the CPU.

        Returns:
            ``own`` and ``shuffled``: mean squared differences in [-1, 1] units; ``gap``:
            ``1 - own / shuffled``.

        Raises:
            InputError: at level 1, and for fewer than 2 videos.
        """
        if self.level == 1 or n < 2:
            raise InputError("the gap needs a level above 1, and at least 2 videos")
        labels = self.drawn_labels(n, generator)
        lower = self._lower()
        condition = lower(lower.draw_latents(n, self.device, generator), labels)
        z = torch.randn(n, self.spec.z_dim, generator=generator).to(self.device)
        made = self.sampled_generator()(z, labels, condition)
        small = downsample_video(made, self.spec.temporal_factor, self.spec.spatial_factor)
        own = (small - condition).double().square().mean().item()
        other = (small - condition.roll(1, 0)).double().square().mean().item()
        return {"own": own, "shuffled": other, "gap": 1 - own / other if other else math.nan}

    @torch.no_grad()
    def drawn_condition(self, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Window of new videos of the level below, ``[B, window + 2 · window_halo, 3, h, w]``.

        Args:
            labels: classes, int64 ``[B]``.
            generator: on the CPU; None takes torch's global ones.
        """
        lower = self._lower()
        seen = self.window + 2 * self.window_halo
        last = lower.top.num_frames - seen
        start = int(torch.randint(last + 1, (), generator=generator))
        latents = lower.draw_latents(len(labels), labels.device, generator)
        return lower.frames(latents, labels, start, start + seen)

    def drawn_labels(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Classes as often as among the training videos, int64 ``[size]``.

        Args:
            size: how many.
            generator: on the CPU; None: torch's own on the module's device.
        """
        if self.num_classes == 1:
            return torch.zeros(size, dtype=torch.int64, device=self.device)
        if generator is None:
            return torch.multinomial(self.class_counts.float(), size, replacement=True)
        counts = self.class_counts.float().cpu()
        drawn = torch.multinomial(counts, size, replacement=True, generator=generator)
        return drawn.to(self.device)
