"""Files that are never half-written, and what stands where a file should be."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from lit_ssl.errors import InputFileNotFoundError

__all__ = ["describe_folder", "layout_error", "write_file", "write_json_and_csv"]

_SHOWN = 6


def write_file(path: str | Path, write: Callable[[TextIO], object]) -> Path:
    """Write a text file beside its place, then put it there: it is never half-written.

    Args:
        path: File to write; its folder is made.
        write: Gets the open file.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            write(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_json_and_csv(
    folder: Path, stem: str, content: Any, rows: Sequence[dict[str, Any]]
) -> None:
    """Write ``STEM.json`` and ``STEM.csv`` into a folder.

    Args:
        folder: Where; made if it is not there.
        stem: Name of the files.
        content: Of the JSON file.
        rows: Of the CSV file, at least one; all with the keys of the first.
    """

    def write_rows(file: TextIO) -> None:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_file(folder / f"{stem}.json", lambda file: file.write(text + "\n"))
    write_file(folder / f"{stem}.csv", write_rows)


def describe_folder(folder: Path) -> str:
    """Return what is at a path: its first entries, or those of the nearest existing parent."""
    if folder.is_dir():
        entries = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(folder))
        if not entries:
            return f"{folder} is empty"
        more = f", ... ({len(entries)} entries)" if len(entries) > _SHOWN else ""
        return f"{folder} holds {', '.join(entries[:_SHOWN])}{more}"
    if folder.exists():
        return f"{folder} is not a folder"
    parent = next((path for path in folder.absolute().parents if path.is_dir()), Path("/"))
    return f"{folder} does not exist; {describe_folder(parent)}"


def layout_error(data_set: str, folder: Path, expected: str) -> InputFileNotFoundError:
    """Return the error for a folder that is not laid out as its data set is.

    Args:
        data_set: Name of the data set.
        folder: Folder that was looked at.
        expected: What should be there.
    """
    return InputFileNotFoundError(
        f"{data_set}: expected {expected}. Found: {describe_folder(folder)}. Set root to the"
        " folder that has this layout."
    )
