"""Batched geometry: antialiased resized crops as matrix products, and affine maps.

Shapes: n = B * count views in the order of the images, views of one image next to each other.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.transforms.views.draw import CropParams
from lit_ssl.transforms.views.some_views import upload


def resize_weights(
    start: Tensor, extent: Tensor, in_size: int, out_size: int, flip: Tensor | None = None
) -> Tensor:
    """Weights of an antialiased bilinear resize of one interval per view, along one axis.

    A triangle filter whose support grows with the down-scaling, cut off at the ends of the interval
    and normalised: what ``resize(..., antialias=True)`` does to the cropped image.

    Args:
        start: ``[n]`` float, first pixel of the interval.
        extent: ``[n]`` float, its number of pixels, >= 1.
        in_size: pixels of the image along the axis.
        out_size: pixels of the view along the axis.
        flip: ``[n]`` bool, views whose output is mirrored.

    Returns:
        ``[n, out_size, in_size]``, each row sums to 1.
    """
    device = start.device
    step = (extent / out_size)[:, None]
    index = torch.arange(out_size, device=device) + 0.5
    if flip is not None:
        index = torch.where(flip[:, None], out_size - index, index)
    centre = index * step  # [n, out], relative to the start of the interval
    pixel = torch.arange(in_size, device=device) + (0.5 - start)[:, None]  # [n, in]
    inverse = step.clamp_min(1).reciprocal()
    # Pixels outside the interval: moved so far away that their weight is 0.
    pixel = torch.where((pixel > 0) & (pixel < extent[:, None]), pixel, -4.0 * in_size - 4)
    weights = (pixel * inverse)[:, None] - (centre * inverse)[:, :, None]
    weights = weights.abs_().neg_().add_(1).clamp_min_(0)
    return weights.div_(weights.sum(-1, keepdim=True))


def crop_resize(images: Tensor, params: CropParams, shape: tuple[int, int]) -> Tensor:
    """Cuts the drawn boxes out of a batch, resizes them and flips those that are to be flipped.

    Two batched matrix products per call: ``rows @ image @ columns^T``. An image is read once for
    all of its views.

    Args:
        images: ``[B, C, H, W]``; uint8, or float in [0, 1].
        params: of n = B * count views, on the CPU.
        shape: height and width of the views.

    Returns:
        ``[n, C, h, w]`` float32, in [0, 1] up to rounding.
    """
    device = images.device
    batch, channels, in_h, in_w = images.shape
    views = len(params.top)
    out_h, out_w = shape
    boxes = torch.stack([params.top, params.height, params.left, params.width]).float()
    top, height, left, width = upload(boxes, device)
    flip = upload(params.flip, device) if bool(params.flip.any()) else None
    rows = resize_weights(top, height, in_h, out_h)
    columns = resize_weights(left, width, in_w, out_w, flip)
    # The images' rows come first, so that one product serves all views of an image.
    pixels = images.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)
    pixels = pixels.contiguous()  # float images were not copied
    strips = torch.bmm(rows.view(batch, -1, in_h), pixels.view(batch, in_h, -1))
    out = torch.bmm(strips.view(views, out_h * channels, in_w), columns.mT)
    out = out.view(views, out_h, channels, out_w).transpose(1, 2).contiguous()
    if not images.is_floating_point():
        out.mul_(1 / 255)
    return out


def affine_matrices(params: CropParams, shape: tuple[int, int]) -> Tensor:
    """Maps from the view's to the source's coordinates, both normalised to [-1, 1].

    The forward map rotates and shears about the centre, then shifts, as ``torchvision``'s
    ``affine`` does.

    Args:
        params: of n views.
        shape: height and width of the views.

    Returns:
        ``[n, 2, 3]`` float32 on the CPU.
    """
    height, width = shape
    angle, shear = np.deg2rad(params.angle.numpy()), np.deg2rad(params.shear.numpy())
    cos, sin, tan = np.cos(angle), np.sin(angle), np.tan(shear)
    # Inverse of rotation @ [[1, -tan], [0, 1]]; its determinant is 1.
    a, b = cos - sin * tan, sin + cos * tan
    shift_x, shift_y = params.shift_x.numpy(), params.shift_y.numpy()
    matrices = np.empty((len(angle), 2, 3), dtype=np.float32)
    matrices[:, 0, 0] = a
    matrices[:, 0, 1] = b * (height / width)
    matrices[:, 0, 2] = (a * shift_x + b * shift_y) * (-2 / width)
    matrices[:, 1, 0] = sin * (-width / height)
    matrices[:, 1, 1] = cos
    matrices[:, 1, 2] = (sin * shift_x - cos * shift_y) * (2 / height)
    return torch.from_numpy(matrices)


def affine(views: Tensor, params: CropParams) -> Tensor:
    """Rotates, shears and shifts each view by its own parameters; bilinear, zeros outside.

    Args:
        views: ``[n, C, h, w]`` float.
        params: of the n views, on the CPU.

    Returns:
        ``[n, C, h, w]``.
    """
    shape = (views.shape[-2], views.shape[-1])
    theta = upload(affine_matrices(params, shape), views.device)
    grid = F.affine_grid(theta, list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, "bilinear", "zeros", align_corners=False)
