"""Entries of JSON files that others wrote, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.files import read_text

__all__ = ["is_text", "json_entries", "json_lines", "short"]

_SHOWN = 60


def json_entries(
    path: Path, key: str, lean: Callable[[dict[str, Any]], Any] | None = None
) -> list[Any]:
    """Return the list that stands under a key of the object of a file.

    Args:
        path: The file.
        key: Its key.
        lean: What to keep of each object in it, innermost first; None: all. A file of millions of
            small objects takes several gigabytes otherwise.

    Raises:
        InputError: The file is no JSON, has no such list, or an empty one.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_hook=lean)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON, or is cut short ({error}): get it again") from error
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        found = f"an object with {', '.join(content)}" if isinstance(content, dict) else "no object"
        raise InputError(f"{path}: expected an object with a list {key!r}, found {found:.200}")
    return entries


def json_lines(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with one a line, and the numbers of their lines, from 1.

    Args:
        path: The file.
        what: What an object is, for messages, such as "a hypothesis".

    Raises:
        InputError: A line is no object, or there are none.
    """
    count = 0
    # Not splitlines: texts may hold other marks that it takes for ends of lines.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object with {what} ({error})"
            ) from error
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}, line {number}: expected a JSON object with {what}, found {short(entry)}"
            )
        count += 1
        yield number, entry
    if not count:
        raise InputError(f"{path} is empty: expected a JSON object with {what} in each line")


def is_text(value: object) -> bool:
    """Whether a value is a text that says something, without halves of characters (surrogates)."""
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)


def short(value: object) -> str:
    """A value for a message, in one line, cut."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
