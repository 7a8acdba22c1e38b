"""Lists of images that come with the package."""

from __future__ import annotations

from pathlib import Path

from lit_ssl.errors import InputFileNotFoundError

__all__ = ["find_list", "packaged_lists"]

_FOLDER = Path(__file__).parent / "lists"
_ENDING = ".txt.xz"


def packaged_lists() -> list[str]:
    """Return the names of the packaged lists, sorted, such as `paws/cifar10_4000_split152`."""
    paths = _FOLDER.rglob(f"*{_ENDING}")
    return sorted(path.relative_to(_FOLDER).as_posix().removesuffix(_ENDING) for path in paths)


def find_list(name: str) -> Path:
    """Return the file of a list.

    Args:
        name: Path of a file, or the name of a packaged list; a file goes before a packaged list.

    Raises:
        FileNotFoundError: Neither is there.
    """
    if Path(name).is_file():
        return Path(name)
    if name in packaged_lists():
        return _FOLDER / f"{name}{_ENDING}"
    raise InputFileNotFoundError(
        f"There is no list file {name}. Give a path from {Path.cwd()}, an absolute one, or the name"
        f" of a packaged list: {', '.join(packaged_lists())}."
    )
