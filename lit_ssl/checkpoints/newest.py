"""Which checkpoint is the newest whole one: by version, by step, and never by clocks alone."""

from __future__ import annotations

import math
import os
import re
import stat
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

from lit_ssl.checkpoints.whole import damage
from lit_ssl.errors import InputError, InputFileNotFoundError

__all__ = ["Newest", "PassedOver", "newest_checkpoint", "refuse_damaged", "whole_before"]

_MAX_DEPTH = 4
_TRIES = 5  # for files that another process exchanges meanwhile
_OPCODES = 1000  # Lightning stores the step second
_INTEGERS = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1")
_VERSION = re.compile(r"version_(\d+)")
_STEP = re.compile(r"step=(\d+)")
_NUMBER = re.compile(r"(?:-v|hpc_ckpt_)(\d+)$")


class PassedOver(NamedTuple):
    """A file that is no checkpoint to go on from, or a folder that cannot be looked into.

    Attributes:
        path: the file or folder.
        why: what is the matter with it.
    """

    path: Path
    why: str


class Newest(NamedTuple):
    """The newest whole checkpoint, and what was passed over on the way to it.

    Attributes:
        path: the checkpoint; None where there is none.
        damaged: what was passed over.
    """

    path: Path | None
    damaged: list[PassedOver]


def newest_checkpoint(folders: Iterable[Path]) -> Newest:
    """The newest checkpoint that is whole.

    Clocks do not tell which checkpoint is the newest: a copy of an old one has a new time, and the
    clocks of two machines differ. What a run itself has written down does, in this order:

    1. the number in ``version_N``, the folder that a logger makes for each run;
    2. the step in the file, ``global_step``;
    3. among files of one step, one called ``last``, then the larger number in ``-vN``, which
       Lightning appends to a name that is taken, or in ``hpc_ckpt_N``;
    4. only then the time of writing.

    Where two places have no order by themselves (a run without a version, two projects), their
    newest files by this order are compared by the time of writing.

    A file counts only if ``lit_ssl.checkpoints.whole.damage`` finds none; names that begin
    with a dot are of unfinished files and do not count.

    Args:
        folders: where to look, four levels deep; or checkpoints themselves. They need not exist.

    Raises:
        InputFileNotFoundError: if files come and go all the time.
    """
    places = list(folders)
    for _ in range(_TRIES):
        try:
            return _choose(places)
        except FileNotFoundError as error:  # it was there a moment ago: look again
            gone = error
    raise InputFileNotFoundError(
        f"the checkpoints under {places[0]} are being exchanged all the time: try again, or name "
        "one of them"
    ) from gone


def _choose(places: Iterable[Path]) -> Newest:
    passed: list[PassedOver] = []
    found: set[Path] = set()
    for place in places:
        found |= {path.absolute() for path in _checkpoints(place, passed)}
    for path in _in_order(_reachable(found, passed)):
        why = damage(path)
        if why is None:
            return Newest(path, passed)
        passed.append(PassedOver(path, why))
    return Newest(None, passed)


def _checkpoints(folder: Path, passed: list[PassedOver]) -> Iterator[Path]:
    if os.path.isfile(folder) or (_is_checkpoint(folder.name) and folder.is_dir()):
        yield folder
        return

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            why = f"it cannot be listed ({error.strerror or error})"
            passed.append(PassedOver(Path(error.filename), why))

    depth = len(folder.parts)
    for parent, children, names in os.walk(folder, onerror=note):
        here = Path(parent)
        # a sharded checkpoint is a folder; nothing inside it is a checkpoint of its own
        yield from (here / name for name in [*children, *names] if _is_checkpoint(name))
        deep = len(here.parts) - depth >= _MAX_DEPTH
        children[:] = [c for c in children if not deep and not c.endswith(".ckpt") and c[0] != "."]


def _is_checkpoint(name: str) -> bool:
    return name.endswith(".ckpt") and not name.startswith(".")


def _reachable(paths: Iterable[Path], passed: list[PassedOver]) -> list[Path]:
    """Those that can be looked at: no pipes, and no links in a circle or to what is not there."""
    reachable = []
    for path in sorted(paths):
        try:
            if stat.S_ISFIFO(path.stat().st_mode):  # at which a reader could wait for ever
                passed.append(PassedOver(path, "it is a pipe"))
            else:
                reachable.append(path)
        except FileNotFoundError:
            if not path.is_symlink():
                raise
            passed.append(PassedOver(path, "it is a link that leads nowhere"))
        except OSError as error:
            passed.append(PassedOver(path, f"it cannot be reached ({error.strerror or error})"))
    return reachable


class _Rank(NamedTuple):
    """By what the files of one place are ordered, the newest first."""

    version: int
    step: float
    is_not_last: bool
    number: int
    time: int
    path: str


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Checkpoints, newest first."""
    places: dict[Path, list[_Rank]] = defaultdict(list)
    for path in paths:
        place, version = _place(path)
        places[place].append(_rank(path, version))
    ordered = [sorted(ranks) for ranks in places.values()]
    ordered.sort(key=lambda ranks: (ranks[0].time, ranks[0].is_not_last, ranks[0].path))
    return [Path(rank.path) for ranks in ordered for rank in ranks]


def _place(path: Path) -> tuple[Path, int]:
    """Where a run has its brothers, and its number among them."""
    for folder in path.parents:
        if found := _VERSION.fullmatch(folder.name):
            return folder.parent, int(found[1])
    return path.parent, 0


def _rank(path: Path, version: int) -> _Rank:
    number = _NUMBER.search(path.stem)
    return _Rank(
        version=-version,
        step=-_step(path),
        is_not_last=not path.name.startswith("last"),
        number=-int(number[1]) if number else 0,
        time=-path.stat().st_mtime_ns,
        path=str(path),
    )


def _step(path: Path) -> float:
    """The step of a checkpoint, without its tensors; infinite where it cannot be read.

    A file that cannot be read is so looked at first, and is not passed over in silence.
    """
    file = path / "meta.pt" if path.is_dir() else path
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as content:
                step = _number_after(content, "global_step")
    except FileNotFoundError:
        if not path.is_dir():
            raise
        step = None
    except Exception:  # damaged, as its checksums will say
        return math.inf
    if step is None and (found := _STEP.search(path.name)):
        step = int(found[1])
    return -1 if step is None else step


def _number_after(pickle: Any, key: str) -> int | None:
    """The number that follows a key in a pickle, of which nothing is run."""
    is_next = False
    for opcode, value, _ in islice(genops(pickle), _OPCODES):
        if is_next and isinstance(value, int) and opcode.name in _INTEGERS:
            return value
        if "PUT" not in opcode.name and opcode.name != "MEMOIZE":
            is_next = value == key
    return None


def whole_before(path: str | Path) -> Path | None:
    """The newest whole checkpoint in the folder of a file that comes before it.

    Args:
        path: a checkpoint, damaged or not.
    """
    path = Path(path).absolute()
    try:
        names = os.listdir(path.parent)
    except PermissionError:
        return None
    beside = (path.parent / name for name in names if _is_checkpoint(name))
    files = _in_order(_reachable(beside, []))
    older = files[files.index(path) + 1 :] if path in files else []
    return next((file for file in older if damage(file) is None), None)


def refuse_damaged(path: str | Path, what: str = "checkpoint") -> None:
    """Stop where a file of weights is damaged; every door to a file asks this before it is read.

    Args:
        path: the file, or folder; one that is missing is the reader's matter.
        what: what it should be, for the message.

    Raises:
        InputError: it is damaged; the message names the newest whole file before it.
    """
    try:
        why = damage(path)
        if why is None:
            return
        other = whole_before(path)
    except FileNotFoundError:
        return
    advice = "" if other is None else f". The newest whole checkpoint before it is {_short(other)}"
    raise InputError(f"{path} cannot be read as a {what}: {why}{advice}")


def _short(path: Path) -> str:
    """A path from the working folder, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
