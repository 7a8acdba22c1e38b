"""Protocols of published video scores, by name. Numbers of different ones do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lit_ssl.errors import check_choice

__all__ = [
    "FRECHET_PROTOCOLS",
    "INCEPTION_PROTOCOLS",
    "FrechetProtocol",
    "InceptionProtocol",
    "frechet_protocol",
    "inception_protocol",
]


class FrechetProtocol(NamedTuple):
    """How a Fréchet or kernel video distance is measured.

    Attributes:
        name: as in ``protocol=``.
        resized: Whether videos are resized to 224 × 224 and scaled to [−1, 1] before the network,
            which else gets them as uint8 and does so itself.
        unbiased: Whether covariances are divided by N − 1 instead of N.
        num_clips: of each set.
        clip_length: frames.
        source: where it stands.
    """

    name: str
    resized: bool
    unbiased: bool
    num_clips: int
    clip_length: int
    source: str


class InceptionProtocol(NamedTuple):
    """How a video Inception Score is measured.

    Attributes:
        name: as in ``protocol=``.
        prepared: Whether videos are brought into C3D's form before the network (needs the mean
            clip), which else gets them as uint8 and does so itself.
        splits: parts that the clips are divided into; the score is the mean over them.
        shuffled: Whether they are shuffled first, in the fixed order of the released code.
        eps: added to probabilities.
        num_clips: generated.
        clip_length: frames.
        source: where it stands.
    """

    name: str
    prepared: bool
    splits: int
    shuffled: bool
    eps: float
    num_clips: int
    clip_length: int
    source: str


FRECHET_PROTOCOLS: Mapping[str, FrechetProtocol] = {
    p.name: p
    for p in (
        FrechetProtocol("stylegan_v", False, False, 2048, 16, "universome/stylegan-v at 3fecd69"),
        FrechetProtocol("tats", True, True, 2048, 16, "songweige/TATS at 03bbce1"),
    )
}
INCEPTION_PROTOCOLS: Mapping[str, InceptionProtocol] = {
    p.name: p
    for p in (
        InceptionProtocol(
            "tgan2", True, 1, False, 1e-20, 2048, 16, "pfnet-research/tgan2 at f892bc4"
        ),
        InceptionProtocol(
            "stylegan_v", False, 10, True, 0.0, 2048, 16, "universome/stylegan-v at 3fecd69"
        ),
    )
}


def frechet_protocol(name: str) -> FrechetProtocol:
    """The protocol of that name.

    Args:
        name: One of ``FRECHET_PROTOCOLS``.

    Raises:
        InputError: There is none.
    """
    check_choice("protocol", name, tuple(FRECHET_PROTOCOLS))
    return FRECHET_PROTOCOLS[name]


def inception_protocol(name: str) -> InceptionProtocol:
    """The protocol of that name.

    Args:
        name: One of ``INCEPTION_PROTOCOLS``.

    Raises:
        InputError: There is none.
    """
    check_choice("protocol", name, tuple(INCEPTION_PROTOCOLS))
    return INCEPTION_PROTOCOLS[name]
