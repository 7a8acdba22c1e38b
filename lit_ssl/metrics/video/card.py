"""The card of a score: what has to be told with a number, so that others can compare with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.files import write_json

__all__ = ["CONTENT_BIAS", "fvd_name", "score_card", "write_card"]

CONTENT_BIAS = (
    "distances of I3D features favour the quality of single frames over motion (arXiv 2404.12391):"
    " read them beside the motion of both sets"
)


def score_card(
    scores: Mapping[str, Mapping[str, Any]], data: Mapping[str, Any], version: str
) -> dict[str, Any]:
    """Put scores and what they are of on one card.

    Args:
        scores: of each its value, interval, numbers of clips, and ``metric.card()``.
        data: what the metrics cannot know: folders, split, stride, flip, seeds, clips that were
            left out and why. What is not known is None, and then stands on the card as such.
        version: of this library.

    Returns:
        Plain values for JSON.
    """
    return {
        "made_by": f"lit_ssl {version}",
        "scores": {name: dict(score) for name, score in scores.items()},
        "data": dict(data),
        "note": CONTENT_BIAS,
    }


def fvd_name(num_fake: int, clip_length: int, stride: int = 1) -> str:
    """Short name, as in the code of stylegan-v: ``fvd2048_16f``, ``fvd2048_128f_subsample8f``.

    Args:
        num_fake: number of generated clips.
        clip_length: T, in frames.
        stride: frames of the video from one of the clip to the next.
    """
    return f"fvd{num_fake}_{clip_length}f" + (f"_subsample{stride}f" if stride > 1 else "")


def write_card(path: str | Path, card: Mapping[str, Any]) -> Path:
    """Write a card as JSON, never over a file.

    Args:
        path: the file, ``.json``.
        card: plain values by name.

    Returns:
        The path.

    Raises:
        ValueError: There is a file.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists; give another file for the card")
    return write_json(path, card)
