"""What training a level of a cascade costs, counted before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_ssl.methods.video.cascade import CascadedVideoGAN
from lit_ssl.models.video.cost import Cost, StepMemory, count_cost

__all__ = ["LevelCost", "level_cost"]


class LevelCost(NamedTuple):
    """Costs of the networks of a level.

    Attributes:
        resolution: Height and width of its videos.
        generator: For one video of a training step.
        judges: Of each discriminator, for one video, by name.
        memory: Of a training step. Levels below are not counted: they are frozen and small.
    """

    resolution: tuple[int, int]
    generator: Cost
    judges: dict[str, Cost]
    memory: StepMemory


def level_cost(options: Mapping[str, Any], device: str = "meta") -> LevelCost:
    """Count a level.

    Args:
        options: Arguments of [`CascadedVideoGAN`][lit_ssl.methods.CascadedVideoGAN]; ``previous``
            is not read.
        device: ``meta``, where nothing is computed, or a real one.

    Raises:
        InputError: For values that make no level.
    """
    with torch.device(device):
        module = CascadedVideoGAN(**options)
    frames, size, spec = module.frames, module.resolution, module.spec
    condition_frames = module.window + 2 * module.window_halo
    small = tuple(side // spec.spatial_factor for side in size)

    def videos(batch: int, count: int, sides: tuple[int, ...], channels: int = 3) -> Tensor:
        return torch.zeros(batch, count, channels, *sides, device=device)

    def classes(batch: int) -> Tensor:
        return torch.zeros(batch, dtype=torch.int64, device=device)

    def for_generator(batch: int) -> tuple[Tensor, ...]:
        noise = torch.zeros(batch, spec.z_dim, device=device)
        if module.level == 1:
            return noise, classes(batch)
        return noise, classes(batch), videos(batch, condition_frames, small)

    def for_judges(batch: int) -> tuple[Tensor, ...]:
        return videos(batch, frames, size), classes(batch)

    def for_matching(batch: int) -> tuple[Tensor, ...]:
        return videos(batch, frames, size), videos(batch, module.window, small), classes(batch)

    generator = count_cost(module.generator, for_generator)
    judges = {
        name: count_cost(judge, for_matching if name == "matching" else for_judges)
        for name, judge in module.discriminators.items()
    }
    memory = StepMemory.of(generator, list(judges.values()))
    return LevelCost(size, generator, judges, memory)
