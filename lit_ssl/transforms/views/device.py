"""Views of a batch, made on the batch's device with per-view random parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice, starmap

import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.precision import without_autocast
from lit_ssl.transforms.views.accelerator import accelerated_views
from lit_ssl.transforms.views.draw import CropParams
from lit_ssl.transforms.views.effects import apply_effects
from lit_ssl.transforms.views.geometry import crop_resize
from lit_ssl.transforms.views.spec import CropSpec

# Float values that are worked on together: 4 MiB stay in the caches of a CPU, 1 GiB elsewhere.
_CHUNK_VALUES_CPU = 2**20
_CHUNK_VALUES = 2**28


def check_batch(images: Tensor, sizes: Tensor | None) -> None:
    """Raises unless the arguments are what the device engine takes.

    Args:
        images: to check.
        sizes: to check.

    Raises:
        TypeError: if the images are neither uint8 nor float.
        ValueError: if a shape, a size or the place of ``sizes`` is wrong.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputTypeError(f"Images must be uint8, or float in [0, 1], got {images.dtype}.")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"Images must have the shape [B, C, H, W], got {list(images.shape)}.")
    if sizes is None:
        return
    if sizes.device.type != "cpu":
        raise InputError(
            f"sizes must be a CPU tensor, got one on {sizes.device}: parameters are drawn on the "
            "host, which must not wait for the device."
        )
    if sizes.shape != (len(images), 2):
        raise InputError(
            f"sizes must have the shape [{len(images)}, 2] (height, width of each image), "
            f"got {list(sizes.shape)}."
        )
    limit = torch.tensor(images.shape[-2:])
    if not bool(((sizes >= 1) & (sizes <= limit)).all()):
        raise InputError(
            f"sizes must lie between 1 and the padded size {tuple(images.shape[-2:])}, "
            f"got {sizes.amin(0).tolist()} to {sizes.amax(0).tolist()}."
        )


@torch.no_grad()
def make_batched_views(
    images: Tensor, drawn: Sequence[tuple[CropParams, CropSpec]]
) -> list[Tensor]:
    """Applies drawn parameters to a batch; never makes the host wait for the device.

    Args:
        images: ``[B, C, H, W]``; uint8, or float in [0, 1]. Smaller images lie top left.
        drawn: for each kind of view the parameters of its B * count views, those of one image next
            to each other, and the recipe that they were drawn for.

    Returns:
        For each kind ``[B, count, C, h, w]`` float32 in [0, 1].
    """
    pieces = [_pieces(images, params, spec) for params, spec in drawn]
    parts = list(chain.from_iterable(pieces))
    # positions and weights need more than the 8 bits of bfloat16
    with without_autocast(images.device):
        on_host = images.device.type == "cpu"
        made: Iterator[Tensor] = starmap(_views, parts) if on_host else accelerated_views(parts)
        return [
            _joined(list(islice(made, len(own)))).view(
                len(images), spec.count, images.shape[1], *spec.shape
            )
            for own, (_, spec) in zip(pieces, drawn, strict=True)
        ]


def _pieces(
    images: Tensor, params: CropParams, spec: CropSpec
) -> list[tuple[Tensor, CropParams, CropSpec]]:
    batch, channels, _, in_w = images.shape
    spec.check_channels(channels)
    height, width = spec.shape
    per_image = spec.count * channels * height * max(width, in_w)
    limit = _CHUNK_VALUES_CPU if images.device.type == "cpu" else _CHUNK_VALUES
    step = max(1, limit // per_image)
    return [
        (
            images[start : start + step],
            params.rows(start * spec.count, (start + step) * spec.count),
            spec,
        )
        for start in range(0, batch, step)
    ]


def _views(images: Tensor, params: CropParams, spec: CropSpec) -> Tensor:
    return apply_effects(crop_resize(images, params, spec.shape), params, spec)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
