"""Text of others in Markdown, and texts without what they tell of somebody's machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

__all__ = [
    "code_block", "last_word", "markdown_text", "page_without_places", "table", "without_places",
    "writable",
]  # fmt: skip

_SIGNS = re.compile(r"([\\`*_{}\[\]()#+!|~$^-])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MOST = 300  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
# a path from the root or from a home, alone or inside other text; not what follows a scheme
_PLACE = re.compile(r"(?<![\w./:~\\-])(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^\s'\",;:|<>]*")
_WHOLE = re.compile(r"\s*(?:file://)?(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^\n]*")
_USER = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET = re.compile(
    r"(?i)(.*[_.-])?(tokens?|secrets?|pass(word|wd|phrase)?|pwd|credentials?|auth(orization)?|cookies?"
    r"|bearer|(api|access|private|secret)[_-]?key)"
)
# in a text: an option or a part of a URL with such a name, and what the hubs' tokens look like
_GIVEN = re.compile(
    r"(?i)([\w.-]*(?:token|secret|passw(?:or)?d|credential|signature|(?:api|access|private|secret)"
    r"[_-]?key(?:_?id)?)|\bsig)=[^\s&'\",;]+"
)
_LOOKS = re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|sk-|glpat-)[\w-]{16,}|\bAKIA[A-Z0-9]{16}\b")
_HALF = re.compile("[\ud800-\udfff]")  # of a character, as names that are no UTF-8 have


def markdown_text(text: object) -> str:
    """A text for a line or a cell of Markdown, in which nothing of it is a sign.

    Args:
        text: whatever a file of others holds; it is cut after 300 characters.
    """
    plain = _CONTROL.sub(" ", str(text)[:_MOST])
    plain = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], plain)
    plain = _SIGNS.sub(r"\\\1", plain)
    return re.sub(r"(?i)(https?|www)(?=[:.])", r"\1<!-- -->", plain)  # no links of their own


def code_block(text: str, language: str) -> str:
    """A block of code, with a fence that is longer than any in the text.

    Args:
        text: the code.
        language: for its colours.
    """
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown.

    Args:
        head: names of the columns.
        rows: cells, which have been escaped.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def last_word(class_path: str) -> str:
    """The name of a class without where it lies; empty for what is no name.

    Args:
        class_path: as a file has it.
    """
    name = class_path.rpartition(".")[2]
    return name if name.isidentifier() else ""


def without_places(value: Any) -> Any:
    """Values of a configuration without places on a machine, users in URLs, and secrets.

    A path from the root or from a home becomes ``…/`` and its last part; relative ones, and those
    in stores (``s3://``), stay. Texts that are called a token, a password, an API key or the like
    become ``removed``, and so do those given by such a name (``?token=…``) or that look like one.

    Args:
        value: as a file of YAML or JSON has it.
    """
    if isinstance(value, Mapping):
        return {
            without_places(str(key)): _without_texts(item)
            if _SECRET.fullmatch(str(key))
            else without_places(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _LOOKS.sub("removed", _GIVEN.sub(r"\1=removed", _USER.sub("", value)))
    if _WHOLE.fullmatch(value):
        return _cut(value)
    return _PLACE.sub(lambda found: _cut(found[0]), value)


def _without_texts(value: Any) -> Any:
    """A secret; numbers are settings, such as how many tokens there are."""
    if isinstance(value, Mapping):
        return {without_places(str(key)): _without_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_texts(item) for item in value]
    return "removed" if isinstance(value, str | bytes) else value


def writable(text: str) -> str:
    """A text that UTF-8 can have: halves of characters, as JSON may hold, become ``�``.

    Args:
        text: of a file.
    """
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", text)


def _cut(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path.strip()) if part]
    return f"…/{parts[-1]}" if parts else path


def page_without_places(text: str, *values: Any) -> str:
    """A page without the folders that some values name, nor the home and the working folder.

    In a page a slash may be anything, so that only known folders are cut.

    Args:
        text: of HTML.
        *values: what the page was made of: configurations and reports.
    """
    folders = {str(Path.home()), str(Path.cwd())}
    for path in filter(_WHOLE.fullmatch, _texts(values)):
        folders.add(str(PurePath(path.strip().removeprefix("file://")).parent))
    for folder in sorted(folders, key=len, reverse=True):
        if folder.count("/") > 1 or folder in (str(Path.home()), str(Path.cwd())):
            inside = re.compile(re.escape(folder) + r"(?:/[^\s'\"<>&\\]*)?")
            text = inside.sub(lambda found: _cut(found[0]), text)
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
