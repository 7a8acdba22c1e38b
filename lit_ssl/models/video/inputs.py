"""Whether what a video network is given has the form that it was built for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["check_counts", "check_labels", "check_latents", "check_videos"]


def check_counts(**counts: int) -> None:
    """Refuse numbers below 1, by name.

    Args:
        **counts: numbers by the names that the message uses.

    Raises:
        ValueError: names the first one that is wrong.
    """
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")


def check_latents(z: Tensor, y: Tensor, z_dim: int) -> None:
    """Refuse anything but z ``[B, z_dim]`` and labels ``[B]``.

    Args:
        z: noise.
        y: labels.
        z_dim: numbers of noise per video.

    Raises:
        ValueError: if shapes or kinds differ.
    """
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise InputError(f"z must be [B, {z_dim}], got {list(z.shape)}")
    check_labels(y, len(z))


def check_labels(y: Tensor, batch: int) -> None:
    """Refuse anything but whole-numbered labels ``[B]``.

    Args:
        y: labels.
        batch: B.

    Raises:
        ValueError: if shape or kind differ.
    """
    if y.shape != (batch,) or y.is_floating_point() or y.is_complex():
        raise InputError(
            f"labels must be int64 [{batch}], one per video, got {y.dtype} {list(y.shape)}"
        )


def check_videos(video: Tensor, what: str, **expected: int | None) -> None:
    """Refuse videos of another form ``[B, T, C, H, W]``.

    Args:
        video: the videos.
        what: their name, which the message begins with.
        expected: ``frames``, ``channels``, ``height``, ``width``; None or absent: any.

    Raises:
        ValueError: says what is expected.
    """
    wanted: Mapping[str, int | None] = expected
    sizes = [wanted.get(name) for name in ("frames", "channels", "height", "width")]
    fits = video.ndim == 5 and all(
        size is None or size == got for size, got in zip(sizes, video.shape[1:], strict=True)
    )
    if not fits or not video.is_floating_point():
        form = ", ".join(
            letter if size is None else str(size)
            for letter, size in zip("TCHW", sizes, strict=True)
        )
        raise InputError(f"{what} must be float [B, {form}], got {video.dtype} {list(video.shape)}")
