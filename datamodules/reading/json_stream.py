"""The items of a long list in a JSON file, one after the other, in little memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from lit_ssl.errors import InputError, listed, quoted
from lit_ssl.json_text import JSONError, json_decoder
from lit_ssl.opening import open_text, reading

__all__ = ["json_items"]

_CHUNK = 2**20  # characters
_BLANK = re.compile(r"[ \t\r\n]*")
_BEHIND_A_NUMBER = 3  # characters that tell that it does not go on, as 1 does in 1e+5
_AT_THE_END = 16  # a value that is cut off is told by its last characters, unless it is a text


def json_items(path: Path, key: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list, reading the file in pieces.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte-order mark.
        key: Name of the list in the object that the file holds; None: the file is a list.

    Yields:
        The number of an item in the list, from 0, and the item.

    Raises:
        InputError: The file is no such JSON, or is cut short; it says where.
    """
    try:
        with reading(path), open_text(path) as text:
            reader = _Reader(text)
            if key is not None:
                _find_list(reader, key)
            reader.expect("[")
            yield from _items(reader)
            if key is None and not reader.at_end():
                raise _Broken("expected the end of the file after its list", reader.place)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error}): get the file again") from error
    except (_Broken, RecursionError) as error:
        why = error if isinstance(error, _Broken) else "it is nested too deeply"
        raise InputError(
            f"{path} is not the JSON that was expected: {why}. Get the file again"
        ) from error


class _Broken(Exception):
    """What is wrong, and at which character of the file."""

    def __init__(self, what: str, place: int) -> None:
        super().__init__(f"{what} (at character {place:,})")


class _Reader:
    """Values of JSON out of a file, from left to right."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters before the text
        self._ended = False
        self._decoder = json_decoder()

    @property
    def place(self) -> int:
        """Number of the next character of the file."""
        return self._before + self._at

    def _more(self) -> None:
        # As much again as there is: a value is not tried in many small steps.
        part = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._before += self._at
        self._text = self._text[self._at :] + part
        self._at = 0
        self._ended = not part

    def next(self) -> str:
        """Return the next character that is no white space, without taking it; "" at the end."""
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def at_end(self) -> bool:
        """Whether nothing follows but white space."""
        return self.next() == ""

    def expect(self, characters: str) -> str:
        """Take the next character, which has to be one of some."""
        found = self.next()
        if not found or found not in characters:
            wanted = " or ".join(map(repr, characters))
            raise _Broken(f"expected {wanted}, found {found or 'its end'!r}", self.place)
        self._at += 1
        return found

    def value(self) -> Any:
        """Take a value."""
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                cut_off = (
                    error.msg.startswith("Unterminated string")
                    or error.pos >= len(self._text) - _AT_THE_END
                )
                if self._ended or not cut_off:
                    raise _Broken(error.msg, self._before + error.pos) from error
            except JSONError as error:
                raise _Broken(str(error), self.place) from error
            except ValueError as error:  # a number with too many digits to read
                raise _Broken("a number with thousands of digits", self.place) from error
            else:
                if end + _BEHIND_A_NUMBER <= len(self._text) or self._ended:
                    self._at = end
                    return value
            self._more()


def _find_list(reader: _Reader, key: str) -> None:
    """Go to the value of a key of the object that the file holds."""
    reader.expect("{")
    found = []
    while reader.next() != "}":
        name = reader.value()
        reader.expect(":")
        if name == key:
            return
        found.append(name)
        reader.value()
        if reader.next() != "}":
            reader.expect(",")
    names = listed([quoted(name) for name in found[:6]]) or "nothing"
    raise _Broken(f"expected the list {key!r}, found {names}", reader.place)


def _items(reader: _Reader) -> Iterator[tuple[int, Any]]:
    number = 0
    if reader.next() == "]":
        reader.expect("]")
        return
    while True:
        yield number, reader.value()
        number += 1
        if reader.expect(",]") == "]":
            return
