"""The discriminators of a level of a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lit_ssl.models.video.discriminators import (
    ClipDiscriminator,
    FrameDiscriminator,
    MatchingDiscriminator,
)
from lit_ssl.models.video.level import LevelSpec

__all__ = ["new_judges"]


def new_judges(spec: LevelSpec, frames: int, options: Mapping[str, Any]) -> nn.ModuleDict:
    """Build the discriminators of a level.

    Args:
        spec: the level.
        frames: of the videos that a training step judges.
        options: arguments of [`CascadedVideoGAN`][lit_ssl.methods.CascadedVideoGAN].

    Returns:
        ``frames``, ``clip`` and, of an upper level unless it is switched off, ``matching``.
    """
    channels = options["d_channels"]
    shared: dict[str, Any] = {
        "num_classes": spec.num_classes,
        "channels": spec.channels if channels is None else channels,
        "score_reduction": options["score_reduction"],
    }
    size = spec.resolution
    judges: dict[str, nn.Module] = {
        "frames": FrameDiscriminator(size, num_frames=min(options["d_frames"], frames), **shared),
        "clip": ClipDiscriminator(size, num_frames=frames, **shared),
    }
    if spec.level > 1 and options["use_matching"]:
        space = options["matching_space"]
        factor = spec.spatial_factor if space == "low" else 1
        judges["matching"] = MatchingDiscriminator(
            (size[0] // factor, size[1] // factor),
            num_frames=frames,
            temporal_factor=spec.temporal_factor,
            spatial_factor=spec.spatial_factor,
            matching_space=space,
            **shared,
        )
    return nn.ModuleDict(judges)
