"""Which files lie below a folder, asked of many names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lit_ssl.errors import InputError

__all__ = ["FolderListing"]


class FolderListing:
    """Files below a folder. Each folder inside it is listed once, when it is first asked about.

    Millions of files are not looked at one by one, which takes hours on network storage.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a path below the folder, with ``/``, is there."""
        parent, _, file = name.rpartition("/")
        return file in self.names(parent)

    def names(self, parent: str = "") -> frozenset[str]:
        """Return the files in a folder inside, and links; nothing where there is none.

        Args:
            parent: Its path below the folder, with ``/``.

        Raises:
            InputError: The folder is there and cannot be listed.
        """
        if parent not in self._names:
            try:
                with os.scandir(self.folder / parent) as entries:
                    # Links are not followed, which would ask for each: they count as files.
                    self._names[parent] = frozenset(
                        entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)
                    )
            except (FileNotFoundError, NotADirectoryError, ValueError):
                self._names[parent] = frozenset()  # a ValueError: nothing can be called so
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:  # nor so
                    self._names[parent] = frozenset()
                    return self._names[parent]
                raise InputError(
                    f"cannot list the folder {self.folder / parent} ({error.strerror or error}):"
                    " make it readable"
                ) from error
        return self._names[parent]
