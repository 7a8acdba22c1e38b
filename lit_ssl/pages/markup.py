"""Pieces of HTML: all text is escaped, in one place."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

__all__ = ["Markup", "breakable", "definitions", "details", "element", "table"]

_VOID = ("br", "img", "meta", "link", "path", "polyline", "line", "rect")
# no character of XML or HTML, or one that turns the direction of the text around it
_NO_CHARACTER = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)


class Markup(str):
    """HTML that is written as it is; every other text is escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML that shows exactly its text.

    Args:
        value: anything; ``Markup`` stays as it is.
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_NO_CHARACTER.sub("\ufffd", str(value)), quote=True))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element with its children.

    Args:
        tag: its name.
        *children: texts, which are escaped, and ``Markup``; None is left out.
        **attributes: values, which are escaped; ``class_`` is ``class``, other ``_`` are ``-``;
            None is left out.
    """
    given = {name.rstrip("_").replace("_", "-"): v for name, v in attributes.items()}
    head = "".join(f' {name}="{text(v)}"' for name, v in given.items() if v is not None)
    if tag in _VOID and not children:
        return Markup(f"<{tag}{head}/>")
    return Markup(f"<{tag}{head}>{''.join(text(c) for c in children if c is not None)}</{tag}>")


def table(
    headers: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: str | None = None,
    numbers: Sequence[bool] = (),
    ends: Iterable[int] = (),
) -> Markup:
    """A table whose first column names the rows; where it is too wide, it can be scrolled.

    Args:
        headers: one for each column.
        rows: cells, one for each column.
        caption: above the table.
        numbers: for each column whether its cells stand at the right.
        ends: numbers of rows below which a line is drawn.
    """
    right = ["number" if n < len(numbers) and numbers[n] else None for n in range(len(headers))]
    lines = set(ends)
    head = [element("th", h, scope="col", class_=c) for h, c in zip(headers, right, strict=True)]
    body = []
    for number, row in enumerate(rows):
        cells = [
            element("td", cell, class_=kind) if n else element("th", cell, scope="row", class_=kind)
            for n, (cell, kind) in enumerate(zip(row, right, strict=True))
        ]
        body.append(element("tr", *cells, class_="end" if number in lines else None))
    content = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    label = caption or "table"
    return element("div", content, class_="scroll", role="region", tabindex=0, aria_label=label)


def breakable(path: str) -> Markup:
    """A path that a narrow page may break behind its slashes.

    Args:
        path: of a file.
    """
    return Markup("/<wbr>".join(text(part) for part in path.split("/")))


def definitions(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names with their values, one below the other.

    Args:
        pairs: a name and what is said about it.
    """
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *rows)


def details(summary: str, *children: object) -> Markup:
    """What is folded until a reader opens it.

    Args:
        summary: the line that is always there.
        *children: what is folded.
    """
    return element("details", element("summary", summary), *children)
