"""Batched geometry: antialiased resized crops as matrix products, and affine maps.

Shapes: n = B * count views in the order of the images, views of one image next to each other.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.transforms.views.compiled import fused
from lit_ssl.transforms.views.draw import CropParams
from lit_ssl.transforms.views.some_views import upload

# On a CPU, products with matrices serve images of up to this size; the weights of larger ones are
# nearly all 0.
_MATRIX_SIZE = 48


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
    weights = fused(_triangles, start.device)(start, extent, flip, in_size, out_size)
    return weights.div_(weights.sum(-1, keepdim=True))


def _triangles(
    start: Tensor, extent: Tensor, flip: Tensor | None, in_size: int, out_size: int
) -> Tensor:
    """The weights before they are normalised."""
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
    return weights.abs_().neg_().add_(1).clamp_min_(0)


def crop_resize(images: Tensor, params: CropParams, shape: tuple[int, int]) -> Tensor:
    """Cuts the drawn boxes out of a batch, resizes them and flips those that are to be flipped.

    Args:
        images: ``[B, C, H, W]``; uint8, or float in [0, 1].
        params: of n = B * count views, on the CPU.
        shape: height and width of the views.

    Returns:
        ``[n, C, h, w]`` float32, in [0, 1] up to rounding.
    """
    device = images.device
    if device.type == "cpu" and max(images.shape[-2:]) > _MATRIX_SIZE:
        return _by_interpolation(images, params, shape)
    flip = upload(params.flip, device) if bool(params.flip.any()) else None
    return cut_boxes(images, upload(boxes(params), device), flip, shape)


def boxes(params: CropParams) -> Tensor:
    """Top, height, left and width of the drawn boxes, ``[4, n]`` float32.

    Args:
        params: drawn parameters of n views.
    """
    return torch.stack([params.top, params.height, params.left, params.width]).float()


def cut_boxes(images: Tensor, boxes: Tensor, flip: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Cuts out and resizes by two batched matrix products: ``rows @ image @ columns^T``.

    An image is read once for all of its views.

    Args:
        images: ``[B, C, H, W]``; uint8, or float in [0, 1].
        boxes: ``[4, n]`` float, top, height, left and width, on the images' device.
        flip: ``[n]`` bool, the views to mirror, on the images' device; None: none.
        shape: height and width of the views.

    Returns:
        ``[n, C, h, w]`` float32, in [0, 1] up to rounding.
    """
    batch, channels, in_h, in_w = images.shape
    out_h, out_w = shape
    top, height, left, width = boxes
    views = len(top)
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


def _by_interpolation(images: Tensor, params: CropParams, shape: tuple[int, int]) -> Tensor:
    batch, channels = images.shape[:2]
    count = len(params.top) // batch
    out = torch.empty(batch * count, channels, *shape)
    drawn = (params.top, params.left, params.height, params.width, params.flip)
    rows = zip(*(field.tolist() for field in drawn), strict=True)
    image = images[:1]
    for number, (top, left, height, width, flip) in enumerate(rows):
        if number % count == 0:  # the next image
            image = images[number // count][None].to(torch.float32)
        crop = image[..., top : top + height, left : left + width]
        view = F.interpolate(crop, shape, mode="bilinear", antialias=True)[0]
        out[number] = view.flip(-1) if flip else view
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
    return affine_by(views, upload(affine_matrices(params, shape), views.device))


def affine_by(views: Tensor, theta: Tensor) -> Tensor:
    """Maps each view by its own matrix, ``affine_matrices`` on its device; see ``affine``.

    Args:
        views: ``[n, C, h, w]``.
        theta: ``[n, 2, 3]``, what ``affine_matrices`` returned.

    Returns:
        ``[n, C, h, w]``, bilinear, 0 outside of the view.
    """
    grid = _grid(theta, views.shape[-2], views.shape[-1])
    return F.grid_sample(views, grid, "bilinear", "zeros", align_corners=False)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, ``[n, height, width, 2]``, as ``F.affine_grid`` has it.

    That one multiplies by a matrix for each view, whose inner side is 3, and takes four times as
    long.
    """
    device = theta.device
    x = (torch.arange(width, device=device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=device) * 2 + 1) / height - 1
    # x and y of a place lie side by side: rows of 2 * width numbers
    of_x, of_y, shift = theta.repeat(1, width, 1)[:, None].unbind(-1)
    rows = torch.addcmul(shift, y[:, None], of_y)
    return torch.addcmul(rows, x.repeat_interleave(2, output_size=2 * width), of_x).view(
        -1, height, width, 2
    )
