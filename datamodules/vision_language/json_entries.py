"""Lines of JSON that others wrote, and what may stand in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from lit_ssl.errors import InputError, quoted
from lit_ssl.files import read_text
from lit_ssl.json_text import JSONError, parse_json

__all__ = ["is_text", "json_lines"]


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
            entry = parse_json(line)
        except JSONError as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object with {what} ({error})"
            ) from error
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}, line {number}: expected a JSON object with {what}, found {quoted(entry)}"
            )
        count += 1
        yield number, entry
    if not count:
        raise InputError(f"{path} is empty: expected a JSON object with {what} in each line")


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a text that says something, without halves of characters (surrogates).

    Args:
        value: of any type, out of a file.
    """
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)
