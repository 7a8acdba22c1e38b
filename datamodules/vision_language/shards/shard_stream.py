"""The order in which streamed pairs come: a function of (seed, epoch, stream) alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np

from lit_ssl.datamodules.vision_language.shards.shard_opening import shard_pairs
from lit_ssl.datamodules.vision_language.shards.shard_sets import ShardSet
from lit_ssl.datamodules.vision_language.shards.stream_tally import BROKEN
from lit_ssl.datamodules.vision_language.shards.tar_members import TXT, CorruptShardError
from lit_ssl.errors import InputError, listed
from lit_ssl.seeding import Stream, keyed_permutation, uniform

__all__ = ["Sample", "StreamKeys", "endless_stream", "in_order"]

_CHUNK = 1024
Item = TypeVar("Item")
Report = Callable[..., None]  # (kind, name, error=None) of what is left out


class Sample(NamedTuple):
    """A streamed pair, not decoded.

    Attributes:
        name: Shard and key, for messages.
        number: A hash of both, in [0, 2^63).
        image: The image file.
        caption: The text.
    """

    name: str
    number: int
    image: bytes
    caption: str


@dataclass(frozen=True)
class StreamKeys:
    """Which stream it is, and what its order depends on.

    Args:
        seed: Of the run.
        epoch: Number of the epoch.
        stream: Number of the stream over all processes.
        streams: How many there are; each reads its own shards.
        buffer: Pairs that the next one is drawn from; 1 keeps the order of the shards.
    """

    seed: int
    epoch: int
    stream: int
    streams: int
    buffer: int


def endless_stream(
    shards: Sequence[Sequence[str]], sets: Sequence[ShardSet], keys: StreamKeys, report: Report
) -> Iterator[Sample]:
    """Return the pairs of one stream, without end.

    In each epoch the shards of a set are put in a new order and dealt out to the streams, one by
    one. A stream reads its own, shuffled through a buffer; when all its pairs have come once, it
    begins again, in another order.

    Args:
        shards: The shards of each set, at least as many as there are streams.
        sets: Their sets.
        keys: Which stream.
        report: Told (kind, name, error) of what is left out.

    Raises:
        InputError: The shards have no pair.
    """
    several = [
        _endless(names, one.caption, number, keys, report)
        for number, (names, one) in enumerate(zip(shards, sets, strict=True))
    ]
    return several[0] if len(several) == 1 else _mixed(several, sets, keys)


def in_order(shards: Sequence[str], caption: str, report: Report) -> Iterator[Sample]:
    """Return the pairs of shards, in order, each once.

    Args:
        shards: Their names.
        caption: Where captions are.
        report: Told (kind, name, error) of what is left out.
    """
    for shard in shards:

        def left_out(kind: str, key: str, shard: str = shard) -> None:
            report(kind, f"{shard}: {key!r}")

        try:
            for pair in shard_pairs(shard, caption, left_out):
                name = f"{shard}: {pair.key!r}"
                yield Sample(name, _number(shard, pair.key), pair.image, pair.caption)
        except CorruptShardError as error:
            report(BROKEN, shard, error)


def _endless(
    shards: Sequence[str], caption: str, number: int, keys: StreamKeys, report: Report
) -> Iterator[Sample]:
    base = (keys.seed, keys.epoch, number)
    dealt = keyed_permutation(len(shards), Stream.SHARD_ORDER, *base)[keys.stream :: keys.streams]
    for turn in count():
        of_turn = (*base, keys.stream, turn)
        if turn:
            dealt = dealt[keyed_permutation(len(dealt), Stream.SHARD_ORDER, *of_turn)]
        own = [shards[shard] for shard in dealt]
        found = False
        draws = _draws(Stream.SHARD_SHUFFLE, *of_turn)
        for sample in _shuffled(in_order(own, caption, report), keys.buffer, draws):
            found = True
            yield sample
        if not found:
            raise InputError(
                f"No pair of an image and a caption in {len(own):,} shards: {listed(own, 3)}."
                f" Expected <key>.jpg (or .png, .webp) followed by <key>."
                f"{'txt' if caption == TXT else f'json with a text {caption!r}'}"
            )


def _mixed(
    several: Sequence[Iterator[Sample]], sets: Sequence[ShardSet], keys: StreamKeys
) -> Iterator[Sample]:
    bounds = np.cumsum([one.weight for one in sets])
    bounds = bounds / bounds[-1]
    for draw in _draws(Stream.SHARD_SET, keys.seed, keys.epoch, keys.stream):
        yield next(several[int(np.searchsorted(bounds, draw, side="right"))])


def _shuffled(items: Iterator[Item], size: int, draws: Iterator[float]) -> Iterator[Item]:
    """All items, each drawn from the next ``size`` that have not come."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= size:
            yield _taken(waiting, next(draws))
    while waiting:
        yield _taken(waiting, next(draws))


def _taken(waiting: list[Item], draw: float) -> Item:
    place = int(draw * len(waiting))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()


def _draws(*keys: int) -> Iterator[float]:
    """Numbers in [0, 1), without end."""
    for begin in count(0, _CHUNK):
        yield from uniform(*keys, np.arange(begin, begin + _CHUNK)).tolist()


def _number(shard: str, key: str) -> int:
    digest = hashlib.blake2b(os.fsencode(f"{shard}\0{key}"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
