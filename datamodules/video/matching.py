"""Videos that lists name, found among those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.files import describe_folder

__all__ = ["Matched", "by_stem", "check_found", "check_fraction", "matched", "stem"]


class Matched(NamedTuple):
    """Videos of a list that are there.

    Attributes:
        names: Their paths, in the order of the list.
        labels: The label of each.
        listed: How many the list has.
        missing: Those that are not there, as the list names them.
    """

    names: list[str]
    labels: list[int]
    listed: int
    missing: list[str]


def by_stem(names: Iterable[str], data_set: str, fold_case: bool = False) -> dict[str, str]:
    """Return stem → path: the name of a file without folders and ending.

    Args:
        names: Paths of videos, with ``/``.
        data_set: Name of the data set, for messages.
        fold_case: Take capital letters for small ones.

    Raises:
        InputError: Two files have one stem.
    """
    found: dict[str, str] = {}
    for name in names:
        key = stem(name, fold_case)
        if key in found:
            raise InputError(
                f"{data_set}: {found[key]} and {name} are both the video {key}: keep one of them"
            )
        found[key] = name
    return found


def stem(name: str, fold_case: bool = False) -> str:
    """Return the name of a file without folders and ending.

    Args:
        name: of the file, with ``/`` between folders.
        fold_case: whether large and small letters count as the same.
    """
    bare = PurePosixPath(name).stem
    return bare.casefold() if fold_case else bare


def matched(
    entries: Sequence[tuple[str, int]], found: Mapping[str, str], fold_case: bool = False
) -> Matched:
    """Find the videos of a list.

    Args:
        entries: Pairs (path or name, label).
        found: From ``by_stem``.
        fold_case: As there.
    """
    names, labels, missing = [], [], []
    for entry, label in entries:
        name = found.get(stem(entry, fold_case))
        if name is None:
            missing.append(entry)
        else:
            names.append(name)
            labels.append(label)
    return Matched(names, labels, len(entries), missing)


def check_fraction(min_found_fraction: float) -> None:
    """Raise unless a share of the listed videos is one.

    Args:
        min_found_fraction: of the listed videos, those that have to be there.

    Raises:
        InputError: It lies outside of [0, 1].
    """
    if not 0 <= min_found_fraction <= 1:
        raise InputError(f"min_found_fraction must be in [0, 1], got {min_found_fraction}")


def check_found(matched: Matched, least: float, split: str, where: str, source: str) -> None:
    """Say how many of the listed videos are there, and raise where they are too few.

    Args:
        matched: What was found.
        least: Share of the listed videos that must be there.
        split: The split.
        where: The data set and the folder, for messages.
        source: What lists them.

    Raises:
        FileNotFoundError: They are fewer.
    """
    count = len(matched.names)
    text = f"{split}: {count:,} of the {matched.listed:,} videos that {source} lists are in {where}"
    if not count:
        raise InputFileNotFoundError(
            f"{text}, such as {listed(matched.missing, 1)}. Set root to the folder that has them"
        )
    if count < least * matched.listed:
        raise InputFileNotFoundError(
            f"{text}; not there: {listed(matched.missing)}. Complete them, or set"
            f" min_found_fraction, which is {least:g}, to less than {count / matched.listed:.3g}"
        )
    if matched.missing:
        rank_zero_info(f"{text}; not there: {listed(matched.missing)}")


def missing_list(data_set: str, folder: Path, expected: str) -> InputFileNotFoundError:
    """Return the error for a list that is not there.

    Args:
        data_set: Name of the data set.
        folder: Folder that was looked at.
        expected: Files that should be in it.
    """
    return InputFileNotFoundError(
        f"{data_set}: expected {expected}. Found: {describe_folder(folder)}. Set annotation_dir to"
        " the folder of the lists"
    )
