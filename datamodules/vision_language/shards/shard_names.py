"""Names of shards: numbers in braces, globs, folders, URLs."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.files import describe_folder

__all__ = ["PIPE", "is_remote", "list_shards"]

PIPE = "pipe:"
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST = 1_000_000  # shards: a mistyped number should not fill the memory


def is_remote(name: str) -> bool:
    """Whether a shard is named by a URL or by a command, not by a path.

    Args:
        name: of a shard, as it was given.
    """
    return name.startswith(PIPE) or _URL.match(name) is not None


def list_shards(shards: str | Sequence[str]) -> list[str]:
    """Return the shards that some names stand for, in order.

    Args:
        shards: One name or several: paths, globs, folders (their ``*.tar``), URLs; with numbers or
            alternatives in braces, ``{00000..00331}`` or ``{a,b}``, if need be.

    Returns:
        Paths of files that are there, and URLs as they are given.

    Raises:
        InputError: There is none, a file is missing, or one is named twice.
    """
    names = [shards] if isinstance(shards, str) else list(shards)
    found: list[str] = []
    for name in names:
        expanded = [name] if os.path.exists(name) else _without_braces(name)
        remote = [is_remote(one) and not one.startswith("file://") for one in expanded]
        if all(remote):
            for one in expanded:
                _refuse_globs(one)
            found += expanded
        else:
            found += _local([_path(one) for one in expanded], name)
    if not found:
        raise InputError("shards: name at least one tar")
    # One tar may have several names: a/../b, a link.
    same = Counter(name if is_remote(name) else os.path.realpath(name) for name in found)
    if twice := [name for name, count in same.items() if count > 1]:
        raise InputError(f"shards: {listed(twice, 3)} is named twice; name each shard once")
    return found


def _without_braces(name: str) -> list[str]:
    for match in _BRACES.finditer(name):
        inside = match[1]
        if numbers := _RANGE.fullmatch(inside):
            choices = _numbers(numbers[1], numbers[2], name)
        elif "," in inside:
            choices = inside.split(",")
        else:
            continue
        rest = _without_braces(name[match.end() :])
        if len(choices) * len(rest) > _MOST:
            raise InputError(f"shards: {name} stands for more than {_MOST:,} names")
        return [name[: match.start()] + choice + end for choice in choices for end in rest]
    return [name]


def _numbers(first: str, last: str, name: str) -> list[str]:
    start, stop = int(first), int(last)
    if start > stop:
        raise InputError(
            f"shards: {name} counts from {first} down to {last}: write {last}..{first}"
        )
    if stop - start >= _MOST:
        raise InputError(f"shards: {name} stands for more than {_MOST:,} names")
    is_padded = any(len(number) > 1 and number[0] == "0" for number in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    return [str(number).zfill(width) for number in range(start, stop + 1)]


def _path(name: str) -> str:
    if name.startswith("file://"):
        name = url2pathname(urlparse(name).path)
    return os.path.expanduser(name)


def _refuse_globs(name: str) -> None:
    if not name.startswith(PIPE) and "*" in name.partition("?")[0]:
        raise InputError(
            f"shards: {name} cannot be listed, since it is a URL: write the numbers of its shards,"
            " such as {00000..00331}.tar"
        )


def _local(paths: Sequence[str], name: str) -> list[str]:
    found: list[str] = []
    missing = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(str(tar) for tar in Path(path).glob("*.tar"))
            if not inside:
                raise InputFileNotFoundError(f"shards: no *.tar in {describe_folder(Path(path))}")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        elif matching := sorted(glob.glob(path, recursive=True)):
            found += matching
        else:
            missing.append(path)
    if missing:
        nearest = describe_folder(Path(missing[0]).parent)
        which = f" ({listed(missing, 3)})" if missing != [name] else ""
        raise InputFileNotFoundError(
            f"shards: {len(missing):,} of the {len(paths):,} that {name} names are not"
            f" there{which}. Found: {nearest}"
        )
    return found
