"""Videos at the rate and size of the next lower level of a cascade, and back."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError

__all__ = ["downsample_video", "upsample_condition"]


def downsample_video(video: Tensor, temporal_factor: int = 2, spatial_factor: int = 2) -> Tensor:
    """Every r_t-th frame, and in it the means of r_s x r_s boxes.

    Frame i of the result shows the same instant as frame r_t · i of the video.

    Args:
        video: float ``[B, T, C, H, W]``.
        temporal_factor: r_t >= 1.
        spatial_factor: r_s >= 1.

    Returns:
        ``[B, ceil(T / r_t), C, H / r_s, W / r_s]``.

    Raises:
        ValueError: if the shape is another, or r_s does not divide H and W.
    """
    _check(video, temporal_factor, spatial_factor)
    frames = video[:, ::temporal_factor]
    if spatial_factor == 1:
        return frames
    batch, count, channels, height, width = frames.shape
    if height % spatial_factor or width % spatial_factor:
        raise InputError(
            f"frames of {height}x{width} cannot be made smaller by {spatial_factor}: choose a size "
            "that the factor divides"
        )
    small = F.avg_pool2d(frames.reshape(batch * count, channels, height, width), spatial_factor)
    return small.unflatten(0, (batch, count))


def upsample_condition(
    condition: Tensor, temporal_factor: int = 2, spatial_factor: int = 2
) -> Tensor:
    """Repeat each frame r_t times, and each pixel r_s x r_s times.

    [`downsample_video`][lit_ssl.video.downsample_video] with the same factors gives the condition
    back.

    Args:
        condition: ``[B, w, C, h, w']``.
        temporal_factor: r_t >= 1.
        spatial_factor: r_s >= 1.

    Returns:
        ``[B, r_t · w, C, r_s · h, r_s · w']``.

    Raises:
        ValueError: if the shape is another.
    """
    _check(condition, temporal_factor, spatial_factor)
    for dim, factor in ((1, temporal_factor), (3, spatial_factor), (4, spatial_factor)):
        if factor > 1:
            condition = condition.repeat_interleave(factor, dim=dim)
    return condition


def _check(video: Tensor, temporal_factor: int, spatial_factor: int) -> None:
    if video.ndim != 5:
        raise InputError(f"videos must be [B, T, C, H, W], got {list(video.shape)}")
    if temporal_factor < 1 or spatial_factor < 1:
        raise InputError(
            f"factors between levels must be at least 1, not {temporal_factor} in time and "
            f"{spatial_factor} in space"
        )
