"""Sets of shards: what a stream is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_ssl.datamodules.vision_language.shards.shard_names import is_remote
from lit_ssl.datamodules.vision_language.shards.tar_members import TXT
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import read_bytes
from lit_ssl.json_text import parse_json

__all__ = ["ShardSet", "as_sets", "stated_pairs"]


@dataclass(frozen=True)
class ShardSet:
    """Shards of one origin, part of a mixture.

    Args:
        shards: Paths, globs, folders or URLs, with numbers in braces.
        caption: "txt": captions are in ``<key>.txt``; else the name of a field of ``<key>.json``.
        weight: How often a training pair is of this set, in proportion to the other sets', > 0.
    """

    shards: str | Sequence[str]
    caption: str = TXT
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"ShardSet.weight must be above 0, got {self.weight}")


def as_sets(shards: str | Sequence[str] | Sequence[ShardSet], caption: str) -> list[ShardSet]:
    """Return the sets that an option names: one of plain names, or those that are given.

    Args:
        shards: Names, or sets.
        caption: Where the captions of plain names are.

    Raises:
        InputError: Names and sets are mixed.
    """
    if isinstance(shards, str):
        return [ShardSet(shards, caption)]
    sets = [one for one in shards if isinstance(one, ShardSet)]
    names = [one for one in shards if isinstance(one, str)]
    if sets and names:
        raise InputError("shards: give names, or ShardSets, not both")
    return sets or [ShardSet(names, caption)]


def stated_pairs(shard: str) -> int:
    """Return the pairs of a shard, as img2dataset counted them in the file beside it.

    Args:
        shard: A path.

    Raises:
        InputError: There is no such file, or it does not tell.
    """
    if is_remote(shard):
        raise InputError(
            f"epoch_samples is needed, since nothing here tells how many pairs {shard} has: set it"
            " to the pairs of an epoch over all processes"
        )
    path = Path(shard).with_name(Path(shard).stem + "_stats.json")
    try:
        successes = parse_json(read_bytes(path))["successes"]
        if type(successes) is not int or not 0 <= successes < 2**40:
            raise ValueError(quoted(successes))
        return successes
    except FileNotFoundError as error:
        raise InputError(
            f"epoch_samples is needed, since there is no {path} to count the pairs by: set it to"
            " the pairs of an epoch over all processes"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not tell the number of pairs as 'successes' ({error}): set epoch_samples"
        ) from error
