"""Point clouds: a fixed number of points, the unit sphere, random distortions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, keyed_permutation, uniform

__all__ = ["PointAugmentation", "PointSample", "sample_points", "unit_sphere"]


def unit_sphere(points: Tensor) -> Tensor:
    """Move the mean of a cloud to the origin and scale its farthest point to distance 1.

    Args:
        points: float ``[Q, 3]``, finite.

    Returns:
        float32 ``[Q, 3]``; all zeros where the points are one and the same place.
    """
    # In float64: meshes may lie thousands of units from the origin.
    centred = points.double()
    centred = centred - centred.mean(0)
    radius = centred.square().sum(1).max().sqrt()
    # Rounding leaves a little of points that are all in one place.
    is_one_place = radius <= 1e-12 * points.double().abs().max()
    return torch.where(is_one_place, 0.0, centred / radius).float()


def sample_points(points: Tensor, count: int, seed: int) -> Tensor:
    """Choose points of a cloud at random.

    Where there are enough, no point comes twice; else all come, each ⌊count / Q⌋ or one more times.

    Args:
        points: ``[Q, 3]``, Q >= 1.
        count: How many to choose, >= 1.
        seed: The only source of randomness.

    Returns:
        ``[count, 3]``, in random order.
    """
    order = keyed_permutation(len(points), Stream.POINTS_CHOSEN, seed)
    return points[torch.from_numpy(np.resize(order, count))]


@dataclass(frozen=True)
class PointAugmentation:
    """Random scale, shift and rotation of whole clouds; ours (the papers' codes differ).

    The operations run in the order of the arguments, on clouds in the unit sphere. Which axis is up
    is the data set's to say.

    Args:
        scale: Smallest and largest factor, > 0; drawn for each axis by itself. (1, 1): none.
        shift: Largest shift along each axis, >= 0, where the unit is the radius of the sphere.
        rotate: Whether to rotate about the axis that is up, by any angle.

    Raises:
        ValueError: If a value is out of its range.
    """

    scale: tuple[float, float] = (2 / 3, 3 / 2)
    shift: float = 0.2
    rotate: bool = False

    def __post_init__(self) -> None:
        pair: Sequence[float] = self.scale
        valid = not isinstance(pair, int | float) and len(pair) == 2 and 0 < pair[0] <= pair[1]
        if not valid or math.isinf(pair[1]):
            raise InputError(
                "PointAugmentation.scale must be a pair (min, max) with 0 < min <= max, got"
                f" {self.scale!r}"
            )
        if not 0 <= self.shift < math.inf:
            raise InputError(f"PointAugmentation.shift must be >= 0, got {self.shift!r}")
        object.__setattr__(self, "scale", (float(pair[0]), float(pair[1])))

    def __call__(self, points: Tensor, seed: int, up_axis: int | None = None) -> Tensor:
        """Distort one cloud.

        Args:
            points: float32 ``[P, 3]``.
            seed: The only source of randomness.
            up_axis: 0, 1 or 2: the axis to rotate about; needed for ``rotate``.

        Returns:
            float32 ``[P, 3]``.
        """
        # Always the same numbers, so that one option leaves what others draw as it is.
        drawn = uniform(Stream.POINTS_DISTORTED, seed, np.arange(7))
        low, high = self.scale
        factors = torch.from_numpy(low + (high - low) * drawn[:3]).float()
        shifts = torch.from_numpy(self.shift * (2 * drawn[3:6] - 1)).float()
        points = points * factors + shifts
        if not self.rotate:
            return points
        if up_axis is None:
            raise InputError(
                "PointAugmentation(rotate=True) needs clouds of which it is known which axis is up:"
                " leave out rotate"
            )
        angle = 2 * math.pi * float(drawn[6])
        first, second = (axis for axis in range(3) if axis != up_axis)
        rotation = torch.eye(3)
        rotation[first, first] = rotation[second, second] = math.cos(angle)
        rotation[first, second], rotation[second, first] = -math.sin(angle), math.sin(angle)
        return points @ rotation.mT


@dataclass(frozen=True)
class PointSample:
    """From a cloud of any size to what a network gets: the unit sphere, then ``count`` points.

    The whole cloud is brought to the unit sphere, not the points chosen of it, so that a point lies
    in the same place whichever others are chosen.

    Args:
        count: Points per cloud, >= 1.
        augmentation: Distorts the chosen points; None: nothing does.
        up_axis: The axis that is up in these clouds; None where it is not known.
    """

    count: int
    augmentation: PointAugmentation | None = None
    up_axis: int | None = None

    def __call__(self, points: Tensor, seed: int = 0) -> Tensor:
        """Return ``[count, 3]`` float32 of a cloud ``[Q, 3]``; a function of it and the seed."""
        chosen = sample_points(unit_sphere(points), self.count, seed)
        if self.augmentation is None:
            return chosen
        return self.augmentation(chosen, seed, self.up_axis)
