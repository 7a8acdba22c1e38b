"""Which files of a folder are images, or of another kind, and what is left out and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image, ImageFile

from lit_ssl.errors import InputError, listed

__all__ = [
    "IMAGES",
    "INDEX_FOLDER",
    "FileKind",
    "LeftOut",
    "find_files",
    "find_images",
    "holds_image",
    "image_suffixes",
    "lost_folders",
    "visible_folders",
]

# What operating systems and storage put beside a person's files, under names without a dot.
_NOT_OF_A_PERSON = (
    "__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information",
)  # fmt: skip
# What runs and commands of this package write into the folder in which they are started.
_OF_RUNS = (
    "lightning_logs", "lit_ssl_runs", "lit_ssl_look", "lit_ssl_neighbours", "lit_ssl_compare",
    "wandb", "mlruns",
)  # fmt: skip
_NO_PICTURES = ("MPEG", "EPS")  # Pillow knows a film when it sees it; PostScript is a program
_ARCHIVES = (".tar", ".zip", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")
_SHOWN = 3

INDEX_FOLDER = ".lit_ssl_index"  # what this package keeps beside data

_ARCHIVE = "archives, which have to be unpacked if they belong to the data"
_HIDDEN = "what is hidden or put there by the operating system"
_WRITTEN = "folders that runs have written"
_LOST = "links that lead nowhere"
_PIPE = "pipes, sockets and devices"
_LOOP = "links back to a folder above"


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of the formats that Pillow reads here, in small letters, with the dot.

    A plugin that was registered before (such as ``pillow_heif.register_heif_opener()``) counts.
    """
    Image.init()
    factories = {name: factory for name, (factory, _) in Image.OPEN.items()}
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in factories and name not in _NO_PICTURES and not _only_told(factories[name])
    )


def _only_told(factory: object) -> bool:
    """Whether Pillow can tell a format but not read it."""
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


@dataclass(frozen=True)
class FileKind:
    """A kind of files, which their endings tell.

    Args:
        name: What they are, such as "images".
        suffixes: Returns their endings, in small letters, with the dot.
        foreign: Says why a file with another ending is left out.
    """

    name: str
    suffixes: Callable[[], frozenset[str]]
    foreign: str


IMAGES = FileKind("images", image_suffixes, "files in no format that Pillow reads")


class LeftOut:
    """What is not taken from a folder, by reason.

    Args:
        folder: The folder, for messages.
        kind: The kind of files that are taken.
    """

    def __init__(self, folder: Path, kind: FileKind = IMAGES) -> None:
        self.folder = folder
        self.kind = kind
        self._found: dict[str, set[str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Note a path.

        Args:
            reason: why it is left out.
            path: of a file or folder.
        """
        self._found.setdefault(reason, set()).add(path)

    def add_outside(self, names: list[str]) -> None:
        """Note files that lie beside the class folders.

        Args:
            names: of files in the folder.
        """
        for name in names:
            self.add(f"{self.kind.name} outside of the class folders", str(self.folder / name))

    def by_reason(self) -> dict[str, list[str]]:
        """Return the sorted paths below the folder that are left out, by reason."""
        return {
            reason: sorted(
                os.path.relpath(path, self.folder).replace(os.sep, "/") for path in paths
            )
            for reason, paths in sorted(self._found.items())
        }

    def __str__(self) -> str:
        return "; ".join(
            f"{reason} ({self._shown(reason, sorted(paths))})"
            for reason, paths in sorted(self._found.items())
        )

    def _shown(self, reason: str, paths: list[str]) -> str:
        if reason == self.kind.foreign and len(paths) > _SHOWN:
            kinds = Counter(os.path.splitext(path)[1].lower() for path in paths)
            common = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
            return listed([f"{n:,} {kind or 'without ending'}" for kind, n in common], _SHOWN)
        names = listed([os.path.relpath(path, self.folder) for path in paths], _SHOWN)
        return f"{len(paths):,}: {names}"

    def among(self) -> str:
        """Return what is left out in brackets, for a message about what is missing; or nothing."""
        return f" (there are: {self})" if self._found else ""

    def warn(self) -> None:
        """Say in one line what is left out, if anything is."""
        if self._found:
            rank_zero_warn(f"left out of {self.folder}: {self}")


def find_images(folder: Path, left_out: LeftOut, deep: bool = True) -> list[str]:
    """Return the image files of a folder; see ``find_files``.

    Args:
        folder: where to look.
        left_out: notes what is not taken.
        deep: look into folders inside, too.
    """
    return find_files(folder, left_out, deep)


def find_files(folder: Path, left_out: LeftOut, deep: bool = True) -> list[str]:
    """Return the files of a kind in a folder: paths below it, with ``/``, in sorted order.

    Args:
        folder: Folder to search.
        left_out: Takes what is not of its kind.
        deep: Whether to search the folders inside it too.

    Raises:
        InputError: A folder cannot be listed.
    """
    names = sorted(_walk(str(folder), deep, _above(folder), left_out))
    return [name.replace(os.sep, "/") for name in names]


def holds_image(folder: Path) -> bool:
    """Whether an image lies in a folder, at any depth; it stops at the first one.

    Args:
        folder: where to look.
    """
    suffixes = image_suffixes()
    with _scanned(str(folder)) as entries:
        for entry in entries:
            is_image = os.path.splitext(entry.name)[1].lower() in suffixes
            if is_image and not _is_hidden(entry.name) and _is_file(entry):
                return True
    return any(True for _ in _walk(str(folder), True, _above(folder), LeftOut(folder)))


def visible_folders(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Return the sorted names of the folders in a folder that a person means; [] without it.

    Args:
        folder: Folder to look in.
        left_out: Takes those that nobody means: hidden ones, those that runs have written, and
            links back to a folder above.
    """
    if not folder.is_dir():
        return []
    left_out = left_out or LeftOut(folder)
    here = os.path.realpath(folder)
    names = []
    for entry in _entries(str(folder)):
        if not _is_folder(entry) or entry.name == INDEX_FOLDER:
            continue
        if _is_hidden(entry.name):
            left_out.add(_HIDDEN, entry.path)
        elif entry.name in _OF_RUNS:
            left_out.add(_WRITTEN, entry.path)
        elif entry.is_symlink() and _contains(os.path.realpath(entry.path), here):
            left_out.add(_LOOP, entry.path)
        else:
            names.append(entry.name)
    return sorted(names)


def lost_folders(folder: Path) -> list[str]:
    """Return the sorted names of links in a folder that lead nowhere and are named like folders.

    Args:
        folder: where to look; not in the folders inside.
    """
    return sorted(
        entry.name
        for entry in _entries(str(folder))
        if entry.is_symlink()
        and not _is_hidden(entry.name)
        and not os.path.splitext(entry.name)[1]
        and not os.path.exists(entry.path)
    )


def _contains(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _above(folder: Path) -> tuple[tuple[int, int], ...]:
    """Device and inode of all folders above a folder, whatever links led to it."""
    stats = [os.stat(parent) for parent in Path(os.path.realpath(folder)).parents]
    return tuple((stat.st_dev, stat.st_ino) for stat in stats)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_OF_A_PERSON


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with _scanned(folder) as entries:
        return list(entries)


@contextmanager
def _scanned(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise InputError(
            f"cannot list the folder {folder} ({error.strerror or error}): make it readable, or"
            " take it out of the data"
        ) from error


def _walk(
    folder: str, deep: bool, above: tuple[tuple[int, int], ...], left_out: LeftOut
) -> Iterator[str]:
    """Yield the files of a kind in a folder.

    Args:
        folder: Folder to list.
        deep: Whether to go into the folders inside it.
        above: Device and inode of the folders on the way to this one.
        left_out: Takes what is not of its kind.
    """
    entries = _entries(folder)
    try:
        stat = os.stat(folder)
    except OSError as error:  # it was removed in between
        raise InputError(f"cannot list the folder {folder} ({error.strerror or error})") from error
    here = (*above, (stat.st_dev, stat.st_ino))
    suffixes = left_out.kind.suffixes()
    for entry in entries:
        name = entry.name
        suffix = os.path.splitext(name)[1].lower()
        is_wanted = suffix in suffixes
        if name == INDEX_FOLDER:
            continue
        if _is_hidden(name):
            if is_wanted or _is_folder(entry):
                left_out.add(_HIDDEN, entry.path)
        elif _is_folder(entry):
            if not deep:
                continue
            if name in _OF_RUNS:
                left_out.add(_WRITTEN, entry.path)
                continue
            try:
                inside = os.stat(entry.path)
            except OSError:  # it was removed in between
                left_out.add(_LOST, entry.path)
                continue
            if (inside.st_dev, inside.st_ino) in here:
                left_out.add(_LOOP, entry.path)
                continue
            for found in _walk(entry.path, deep, here, left_out):
                yield os.path.join(name, found)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left_out.add(_LOST, entry.path)
        elif is_wanted and not _is_file(entry):
            left_out.add(_PIPE, entry.path)
        elif is_wanted:
            yield name
        else:
            reason = _ARCHIVE if suffix in _ARCHIVES else left_out.kind.foreign
            left_out.add(reason, entry.path)
