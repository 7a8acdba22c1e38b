"""A whole page in one file, which opens without a network and asks for nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from lit_ssl.pages.inlining import inline_pictures
from lit_ssl.pages.markup import Markup, element
from lit_ssl.pages.style import STYLE

__all__ = ["Picture", "Section", "figures", "page"]

# Whatever a text of a file might smuggle in, a browser runs no script and loads nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_WIDE = 700  # pixels, from which a picture has a row of its own


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: its heading.
        content: what stands below.
    """

    title: str
    content: Sequence[Markup]


class Picture(NamedTuple):
    """A picture with its words.

    Attributes:
        path: PNG, JPEG, GIF or WebP.
        caption: below it; also what is read aloud in its place.
    """

    path: Path
    caption: str


def page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """Put a page together: HTML with its style and pictures inside, and no script.

    Args:
        title: of the window, and the first heading.
        lead: one line below it.
        sections: in order; those without content are left out.
        footer: one line at the end.
    """
    shown = [section for section in sections if section.content]
    names = _names([section.title for section in shown])
    links = [
        element("li", element("a", section.title, href=f"#{name}"))
        for section, name in zip(shown, names, strict=True)
    ]
    body = element(
        "main",
        element("header", element("h1", title), element("p", lead, class_="lead")),
        element("nav", element("ul", *links), aria_label="Parts of this page"),
        *(
            element("section", element("h2", part.title, id=name), *part.content)
            for part, name in zip(shown, names, strict=True)
        ),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    whole = element("html", head, element("body", body, element("footer", footer)), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _names(titles: Sequence[str]) -> list[str]:
    """A name for each part that links can use, none twice."""
    names: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"
        free = (f"{name}-{n}" for n in count(2))
        names.append(name if name not in names else next(n for n in free if n not in names))
    return names


def figures(pictures: Sequence[Picture], limit: int) -> tuple[list[Markup], int]:
    """Show pictures, with what was done to them to fit.

    Args:
        pictures: in order.
        limit: bytes of all of them, as they stand in the page.

    Returns:
        A figure for each, and the bytes that they take.
    """
    drawn, used = [], 0
    inlined = inline_pictures([picture.path for picture in pictures], limit)
    for picture, found in zip(pictures, inlined, strict=True):
        used += len(found.uri)
        note = f" ({found.note})" if found.note else ""
        shown = None
        if found.uri:
            size = {"width": found.width, "height": found.height}
            shown = element("img", src=found.uri, alt=picture.caption, loading="lazy", **size)
        caption = element("figcaption", picture.caption, note)
        is_wide = found.width >= _WIDE and found.width > found.height
        drawn.append(element("figure", shown, caption, class_="wide" if is_wide else None))
    return drawn, used
