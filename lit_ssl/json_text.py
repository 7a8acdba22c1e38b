"""JSON of others: every fault of it is one kind of error."""

from __future__ import annotations

import json
import math
from typing import Any

from lit_ssl.errors import quoted

__all__ = ["JSONError", "json_decoder", "parse_json"]


class JSONError(ValueError):
    """What is wrong with a text that should be JSON, in a few words."""


def parse_json(text: str | bytes) -> Any:
    """Return the value that a text of JSON stands for.

    Args:
        text: In characters, or bytes of UTF-8 (with or without a byte-order mark), UTF-16 or
            UTF-32.

    Raises:
        JSONError: It is no JSON; a key stands twice in one object; a number is NaN, infinite or has
            more than 4,300 digits; or it is nested too deeply to be read.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise JSONError(f"{error.msg} in {place}") from error
    except UnicodeDecodeError as error:
        raise JSONError(
            f"it is no text in UTF-8: {error.reason} at byte {error.start:,}"
        ) from error
    except RecursionError as error:
        raise JSONError("it is nested too deeply") from error
    except JSONError:
        raise
    except ValueError as error:  # a number with more digits than Python reads
        raise JSONError("a number in it has thousands of digits") from error


def json_decoder() -> json.JSONDecoder:
    """Return a decoder with the same rules, for texts that are read piece by piece.

    Besides its own errors it raises ``JSONError``, ``RecursionError`` where values are nested
    too deeply, and ``ValueError`` for a number with more digits than Python reads.
    """
    return _DECODER


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JSONError(f"the number {quoted(text, 40)}, which is too large")
    return value


def _no_number(name: str) -> float:
    raise JSONError(f"{name}, which is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise JSONError(f"the key {quoted(twice)} stands twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_once)
