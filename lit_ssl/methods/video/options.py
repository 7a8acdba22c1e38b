"""Options of a level of a cascade: which values will do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.video.level import LevelSpec

__all__ = ["check_options", "checked_window"]


def checked_window(spec: LevelSpec, window: int | None, halo: int) -> int:
    """Frames of the level below that a training step judges; 0 at level 1.

    Args:
        spec: the level.
        window: as given; None: all frames of the level below.
        halo: more frames on each side of it.

    Raises:
        InputError: if they do not fit into the level below.
    """
    below = spec.num_frames // spec.temporal_factor
    if spec.level == 1:
        if window is not None or halo:
            raise InputError("level 1 is trained on whole videos: leave out window")
        return 0
    if spec.num_frames % spec.temporal_factor:
        raise InputError(
            f"num_frames={spec.num_frames} is no multiple of temporal_factor={spec.temporal_factor}"
        )
    chosen = below if window is None else window
    if not 1 <= chosen <= below or halo < 0 or chosen + 2 * halo > below:
        raise InputError(
            f"window={window} and window_halo={halo} must fit into the {below} frames of the"
            f" level below: 1 <= window + 2 * window_halo <= {below}"
        )
    return chosen


def check_options(options: Mapping[str, Any]) -> None:
    """Raise unless the numbers of a training lie in their ranges.

    Args:
        options: arguments of [`CascadedVideoGAN`][lit_ssl.methods.CascadedVideoGAN].

    Raises:
        InputError: which does not.
    """
    check_choice("matching_space", options["matching_space"], ("low", "high"))
    check_choice("score_reduction", options["score_reduction"], ("sum", "mean"))
    for name in ("d_frames", "d_steps", "standing_stats_batches"):
        if options[name] < 1:
            raise InputError(f"{name} must be at least 1, not {options[name]}")
    for name in ("lr_g", "lr_d", "adam_eps", "lambda_matching", "ema_start"):
        if not 0 <= options[name] < math.inf:
            raise InputError(f"{name} must be a finite number >= 0, not {options[name]}")
    if not options["adam_eps"]:  # 0 / 0 for weights that have had no gradient yet
        raise InputError("adam_eps must be above 0")
    betas = tuple(options["betas"])
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"betas must lie in [0, 1), two of them, not {betas}")
    if not 0 <= options["ema_decay"] < 1:
        raise InputError(f"ema_decay must lie in [0, 1), not {options['ema_decay']}")
