"""Gaussian blur with one standard deviation per view, as torchvision defines it.

The same kernel and the same reflection at the borders, but separable.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.transforms.views.some_views import upload

# On a CPU, products with matrices of up to this size are faster than sums of shifted copies.
_MATRIX_SIZE = 48


def blur_radius(sigma: np.ndarray, size: int) -> np.ndarray:
    """Taps on each side of the kernel's centre: three standard deviations, less than ``size``.

    Args:
        sigma: standard deviations in pixels, > 0.
        size: side of the views in pixels; what lies beyond the edge is mirrored.
    """
    return np.minimum(np.ceil(3 * sigma), size - 1)


def blur_taps(sigma: np.ndarray, size: int) -> np.ndarray:
    """Kernels from the centre outwards, ``[m, reach + 2]`` float32; the last entry is 0.

    Args:
        sigma: ``[m]``, standard deviations in pixels, > 0.
        size: side of the views in pixels.

    Returns:
        Row i: the weights at distances 0, 1, … of view i, 0 beyond its radius; a whole kernel sums
        to 1. Reach is the largest radius.
    """
    radius = blur_radius(sigma, size)[:, None]
    offset = np.arange(int(radius.max()) + 2)
    taps = np.exp(-0.5 * np.square(offset / sigma[:, None])) * (offset <= radius)
    taps /= 2 * taps.sum(1, keepdims=True) - taps[:, :1]
    return taps.astype(np.float32)


@functools.lru_cache
def _distances(size: int, reach: int, device: torch.device) -> Tensor:
    """From pixel i to pixel j and to the images of j behind both borders; ``[3 * size * size]``.

    Everything out of reach has the distance ``reach + 1``.
    """
    index = np.arange(size)
    here = index[:, None] - index
    # A border pixel is not repeated by its own mirror image.
    before = np.where(index > 0, index[:, None] + index, reach + 1)
    after = np.where(index < size - 1, 2 * (size - 1) - index[:, None] - index, reach + 1)
    table = np.minimum(np.abs(np.stack([here, before, after])), reach + 1)
    with torch.inference_mode(False):
        return upload(torch.from_numpy(table.reshape(-1)), device)


def _matrices(taps: Tensor, size: int) -> Tensor:
    """The blur of one axis as matrices that include the reflection at the borders.

    Args:
        taps: ``[m, reach + 2]``, ``blur_taps`` on the device where the matrices are made.
        size: pixels along the axis.

    Returns:
        ``[m, size, size]`` float32, each row sums to 1.
    """
    parts = taps.index_select(1, _distances(size, taps.shape[1] - 2, taps.device))
    return parts.view(-1, 3, size, size).sum(1)


def blur_by_matrices(views: Tensor, taps: Sequence[Tensor]) -> Tensor:
    """Blurs each view by its own kernels.

    Args:
        views: ``[m, C, h, w]`` float.
        taps: for the height and for the width, ``blur_taps`` on the views' device; one for squares.

    Returns:
        ``[m, C, h, w]``.
    """
    height, width = views.shape[-2:]
    columns = _matrices(taps[-1], width)
    rows = columns if len(taps) == 1 else _matrices(taps[0], height)
    across = torch.bmm(views.reshape(len(views), -1, width), columns.mT).view(views.shape)
    return torch.matmul(rows[:, None], across)


def _by_matrices(views: Tensor, sigma: np.ndarray) -> Tensor:
    sides = dict.fromkeys(views.shape[-2:])
    taps = [upload(torch.from_numpy(blur_taps(sigma, side)), views.device) for side in sides]
    return blur_by_matrices(views, taps)


def _by_shifts(views: Tensor, sigma: np.ndarray) -> Tensor:
    for dim in (-1, -2):
        size = views.shape[dim]
        taps = torch.from_numpy(blur_taps(sigma, size))
        weight = taps.T[:, :, None, None, None].unbind()
        reach = len(weight) - 2
        padding = (reach, reach, 0, 0) if dim == -1 else (0, 0, reach, reach)
        padded = F.pad(views, padding, mode="reflect")
        views = views * weight[0]
        for j in range(1, reach + 1):
            views.addcmul_(padded.narrow(dim, reach - j, size), weight[j])
            views.addcmul_(padded.narrow(dim, reach + j, size), weight[j])
    return views


def gaussian_blur(views: Tensor, sigma: np.ndarray) -> Tensor:
    """Blurs each view by its own standard deviation.

    Equal to ``torchvision``'s ``gaussian_blur`` with a kernel that reaches three standard
    deviations.

    Args:
        views: ``[m, C, h, w]`` float.
        sigma: ``[m]`` in pixels, > 0, on the host.

    Returns:
        ``[m, C, h, w]``.
    """
    # Few large products suit an accelerator; on a CPU they cost more than they save.
    if views.device.type == "cpu" and max(views.shape[-2:]) > _MATRIX_SIZE:
        return _by_shifts(views, sigma)
    return _by_matrices(views, sigma)
