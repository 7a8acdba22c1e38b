"""What callbacks and commands ask of a module that makes videos."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lit_ssl.errors import InputAttributeError

__all__ = ["GeneratesVideos", "generates_videos"]

_ASKED = ("level", "num_frames", "resolution", "num_classes", "sample")


@runtime_checkable
class GeneratesVideos(Protocol):
    """A module that makes videos, such as one level of a cascade.

    Attributes:
        level: 1 makes videos from noise, every other one makes those of the level below larger.
        num_frames: Frames of its videos.
        resolution: Their height and width in pixels.
        num_classes: Classes that may be asked for; 1: unconditional.
    """

    level: int
    num_frames: int
    resolution: tuple[int, int]
    num_classes: int

    def sample(
        self, n: int, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Make videos, as they should be judged.

        The first call after a step may wait for other processes, which all make one; later ones
        may not.

        Args:
            n: How many.
            y: Their classes, int64 ``[n]``; None draws them as they occur in the training.
            generator: Of all that is drawn, on the CPU: the same one gives the same videos.

        Returns:
            uint8 ``[n, T, 3, H, W]``.
        """


def generates_videos(module: Any) -> GeneratesVideos:
    """Return a module that has to be one which makes videos.

    Args:
        module: of any kind.

    Raises:
        InputError: It lacks something of it.
    """
    for name in _ASKED:
        if not hasattr(module, name):
            raise InputAttributeError(
                "needs a module that makes videos, such as CascadedVideoGAN, and "
                f"{type(module).__name__} has no {name}: remove the callback"
            )
    return module
