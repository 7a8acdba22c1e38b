"""The code blocks of the pages, and the markers that say how they are run.

A marker is an HTML comment on the line above a block, `<!-- run: PART; PART -->`. Its parts:

    with NAME               lay out what `laid.py` has under this name, once for a page
    cut "OPTIONS"           add these options to each training command of the block
    cut "OLD -> NEW"        replace this text in the block, wherever it stands
    as FILE                 write the block into this file of the working folder
    onto RECIPE             yaml: what the block changes
    check                   parse commands with all their options, import what Python imports
    slow                    only in `make test-slow`
    skip because REASON     do nothing
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
]
LANGUAGES = ("bash", "python", "yaml", "text")

_FENCE = re.compile(r"(?P<indent> *)(?P<sign>```+|~~~+)(?P<language>.*)")
_MARKER = re.compile(r" *<!-- run:(?P<parts>.*)-->")
# what readers see as code, or mean as a marker, and would be passed over
_UNSEEN = (
    (re.compile(r"<!--\s*run\b"), "a marker is a line `<!-- run: … -->`"),
    (re.compile(r"^[\s>]*(?:(?:[-*+>]|\d+[.)])\s+)*(?:```+[^`]*$|~~~)"),
     "a block starts on a line of its own, behind spaces only"),
    (re.compile(r"^\s*<pre\b", re.IGNORECASE), "a block stands between fences, not in <pre>"),
)  # fmt: skip
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s|!!!|\?\?\?")
_PART = re.compile(r'\s*((?:"[^"]*"|[^";])+)\s*(?:;|$)')


class Marker(NamedTuple):
    """How a block is run."""

    laid: tuple[str, ...] = ()
    options: str = ""  # added to training commands
    replaced: tuple[tuple[str, str], ...] = ()
    file: str | None = None
    onto: str | None = None
    check: bool = False
    slow: bool = False
    skip: str | None = None


class Block(NamedTuple):
    """A code block: where it stands, and its text as it is run."""

    page: str
    line: int
    language: str
    text: str
    marker: Marker

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> list[Block]:
    """All blocks of a page.

    Raises:
        ValueError: For a block without a language, one without an end, one that is not between
            fences at the start of lines, or a wrong marker.
    """
    found: list[Block] = []
    in_item = False  # of a list, where indented lines are text
    lines = text.split("\n")
    number = 0
    marker: tuple[int, Marker] | None = None
    while number < len(lines):
        line = lines[number]
        if said := _MARKER.fullmatch(line):
            marker = number, _marker(said["parts"], f"{page}:{number + 1}")
        elif fence := _FENCE.fullmatch(line):
            start = number
            while True:
                number += 1
                if number == len(lines):
                    raise ValueError(f"{page}:{start + 1}: a block without an end")
                if lines[number].strip() == fence["sign"]:
                    break
            inside = [line.removeprefix(fence["indent"]) for line in lines[start + 1 : number]]
            found.append(_block(page, start + 1, fence["language"], inside, marker))
            marker = None
        else:
            for unseen, message in _UNSEEN:
                if unseen.search(line):
                    raise ValueError(f"{page}:{number + 1}: {message}")
            if line.strip() and not line.startswith((" ", "\t")):
                in_item = _ITEM.match(line) is not None
            elif (
                re.match(r"(?: {4}|\t)\s*\S", line)
                and not in_item
                and not lines[number - 1].strip()
            ):
                message = "a block stands between fences, not behind four spaces"
                raise ValueError(f"{page}:{number + 1}: {message}")
        if marker and number > marker[0]:
            raise ValueError(f"{page}:{marker[0] + 1}: no block in the line below the marker")
        number += 1
    return found


def _block(
    page: str, line: int, language: str, inside: list[str], marker: tuple[int, Marker] | None
) -> Block:
    place = f"{page}:{line}"
    if language not in LANGUAGES:
        raise ValueError(f"{place}: the language is one of {LANGUAGES}, not {language!r}")
    how = marker[1] if marker else Marker()
    text = "\n".join(inside) + "\n"
    for old, new in how.replaced:
        if old not in text:
            raise ValueError(f"{place}: cut: there is no {old!r} in the block")
        text = text.replace(old, new)
    return Block(page, line, language, text, how)


def _marker(text: str, place: str) -> Marker:
    marker = Marker()
    for part in filter(None, (part.strip() for part in _PART.findall(text))):
        word, _, rest = part.partition(" ")
        rest = rest.strip()
        match word:
            case "with" if rest:
                marker = marker._replace(laid=(*marker.laid, rest))
            case "cut" if rest[:1] == rest[-1:] == '"':
                old, arrow, new = rest[1:-1].partition(" -> ")
                if arrow:
                    marker = marker._replace(replaced=(*marker.replaced, (old, new)))
                else:
                    marker = marker._replace(options=f"{marker.options} {old}".strip())
            case "as" if rest:
                marker = marker._replace(file=rest)
            case "onto" if rest:
                marker = marker._replace(onto=rest)
            case "check" | "slow" if not rest:
                marker = marker._replace(**{word: True})
            case "skip" if rest.startswith("because "):
                marker = marker._replace(skip=rest.removeprefix("because "))
            case _:
                raise ValueError(f"{place}: a marker has no part {part!r}")
    return marker


def page_blocks(page: str) -> list[Block]:
    """All blocks of a page of the repository."""
    return blocks(page, (ROOT / page).read_text(encoding="utf-8"))
