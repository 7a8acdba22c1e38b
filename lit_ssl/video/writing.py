"""Videos to files that players show."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputImportError, InputTypeError, did_you_mean
from lit_ssl.files import write_file

__all__ = ["write_video"]

# suffix → the container's name in FFmpeg, and its encoders, the best first
_CONTAINERS = {
    ".mp4": ("mp4", ("libx264", "mpeg4")),
    ".mov": ("mov", ("libx264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "mpeg4")),
    ".avi": ("avi", ("mpeg4",)),
}
_OPTIONS = {"libx264": {"crf": "16"}, "mpeg4": {"qmin": "2", "qmax": "4"}}
_SLOWEST, _FASTEST = 0.01, 1000.0
_LARGEST_TICK = 65535  # MPEG-4 has no finer time base


def write_video(
    path: str | Path,
    video: Tensor | np.ndarray,
    fps: float = 8.0,
    codec: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write frames as a video, in colours that every player knows (yuv420p); all or nothing.

    That form has colours for every second pixel and row only, so a picture of odd height or width
    gets a copy of its last row or column.

    Args:
        path: File to write, ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``; its folder is made.
        video: uint8 ``[T, 3, H, W]``, RGB.
        fps: Frames per second.
        codec: Name of FFmpeg's encoder; by default ``libx264``, in ``.avi`` ``mpeg4``.
        overwrite: Whether a file at the path may be replaced.

    Returns:
        The path.

    Raises:
        InputError: The path, shape, rate or encoder will not do, a file is in the way, or PyAV is
            not installed. Floats are an ``InputTypeError``.
    """
    path = Path(path)
    frames = _checked_frames(video)
    if not _SLOWEST <= fps <= _FASTEST:  # NaN, too
        raise InputError(f"fps must lie between {_SLOWEST} and {_FASTEST:.0f}, not {fps}")
    if path.suffix.lower() not in _CONTAINERS:
        raise InputError(f"{path}: the file must end in {', '.join(_CONTAINERS)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: give another path, or overwrite=True")
    container, preferred = _CONTAINERS[path.suffix.lower()]
    codec = _encoder(codec, preferred)
    rate = Fraction(fps).limit_denominator(min(1001, int(_LARGEST_TICK / fps)))

    def write(file: IO[bytes]) -> None:
        _encode(file, frames, rate, container, codec)

    return write_file(path, write, binary=True)


def _checked_frames(video: Tensor | np.ndarray) -> np.ndarray:
    """The video as uint8 ``[T, H, W, 3]`` with even height and width."""
    kind = getattr(video, "dtype", type(video).__name__)
    if kind not in (torch.uint8, np.uint8):
        raise InputTypeError(
            f"a video to write must be uint8, 0 to 255, not {kind}: scale and round it first"
        )
    if video.ndim != 4 or video.shape[1] != 3 or 0 in video.shape:
        shape = list(video.shape)
        turned = "; permute(0, 3, 1, 2) first" if len(shape) == 4 and shape[3] == 3 else ""
        raise InputError(f"a video to write must be [T, 3, H, W], not {shape}{turned}")
    frames = video.cpu().numpy() if isinstance(video, Tensor) else video
    height, width = frames.shape[2:]
    frames = frames.transpose(0, 2, 3, 1)
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _encoder(codec: str | None, preferred: tuple[str, ...]) -> str:
    """The encoder asked for, or the first of the preferred ones that is there."""
    try:
        from av.codec import Codec, codecs_available
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        raise InputImportError(
            "Writing videos needs the package av (PyAV): pip install 'lit-ssl[video]'"
        ) from error
    for name in (codec,) if codec else preferred:
        try:
            found = Codec(name, "w")
        except UnknownCodecError:
            continue
        if found.type != "video":
            break
        if codec is None and name != preferred[0]:
            warnings.warn(
                f"this PyAV has no {preferred[0]}: videos are written with {name}, which browsers"
                " do not show",
                stacklevel=3,
            )
        return name
    wanted = codec or " or ".join(preferred)
    hint = did_you_mean(wanted, codecs_available, list_up_to=0)
    raise InputError(f"this PyAV has no encoder of videos called {wanted}.{hint}".rstrip("."))


def _encode(
    file: IO[bytes], frames: np.ndarray, rate: Fraction, container: str, codec: str
) -> None:
    import av

    height, width = frames.shape[1:3]
    try:
        with av.open(file, "w", format=container) as out:
            stream = out.add_stream(codec, rate=rate, options=_OPTIONS.get(codec, {}))
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for pixels in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                out.mux(stream.encode(picture))
            out.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{codec} cannot write {width} × {height} pixels at {float(rate):g} frames per second"
            f" into {container} ({error}): choose another codec or file suffix"
        ) from error
