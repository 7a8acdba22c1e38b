"""Links that lead on in the repository, on the site, and where only the README is shown."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["for_index", "for_site", "relative"]

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r" *(```+|~~~+)")
# what is no Markdown link and yet one: a definition below the text, or HTML
_OTHER = re.compile(r"^ *\[[^\]]+\]: *(\S+)|\b(?:src|href)=[\"']([^\"']*)", re.MULTILINE)
_ABSOLUTE = ("https://", "http://", "mailto:", "#")


def for_site(text: str, name: str, root: Path, beside: Mapping[str, str]) -> str:
    """A page with the links that it needs on the site.

    Args:
        text: Markdown.
        name: the page's file in the repository, from its top, such as ``docs/msn.md``.
        root: the repository.
        beside: files outside of ``docs/`` that are pages, and their names on the site.

    Returns:
        The text: links to pages lead to them, those to other files of the repository are only
        text. All others, wrong ones too, are left as they are.
    """
    folder = os.path.dirname(name)

    def mended(link: re.Match[str]) -> str:
        path, mark, anchor = link["target"].partition("#")
        if "://" in path or not path:
            return link[0]
        target = os.path.normpath(os.path.join(folder, path))
        if target in beside:
            place = beside[target]
        elif target.startswith("docs/"):
            place = _between(folder, target)
        else:
            return link["text"] if (root / target).exists() else link[0]
        return f"{link['image']}[{link['text']}]({place}{mark}{anchor})"

    return _over_links(text, mended)


def for_index(text: str, source: str, version: str) -> str:
    """The README as package indexes show it, which have no other file of the repository.

    Args:
        text: Markdown, its links relative to the top of the repository.
        source: the repository's public address, such as ``https://github.com/NAME/lit_ssl``.
        version: the release; its tag is ``v`` and this.

    Returns:
        The text: relative links lead to the files of that tag, images to their bytes.
    """

    def mended(link: re.Match[str]) -> str:
        if link["target"].startswith(_ABSOLUTE):
            return link[0]
        kind = "raw" if link["image"] else "blob"
        place = f"{source.rstrip('/')}/{kind}/v{version}/{link['target'].removeprefix('./')}"
        return f"{link['image']}[{link['text']}]({place})"

    return _over_links(text, mended)


def relative(text: str) -> list[str]:
    """The targets of the links of a page that lead nowhere without the repository.

    Args:
        text: Markdown.

    Returns:
        The targets in the order of the text, those of HTML and of definitions last.
    """
    found: list[str] = []

    def noted(link: re.Match[str]) -> str:
        found.append(link["target"])
        return ""

    rest = _over_links(text, noted)
    found += [target for pair in _OTHER.findall(rest) for target in pair if target]
    return [target for target in found if not target.startswith(_ABSOLUTE)]


def _over_links(text: str, mended: Callable[[re.Match[str]], str]) -> str:
    """The text with what is made of its links, but for those in code blocks."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and line.strip() == fence:
            fence = ""
        lines.append(line if fence or found else _LINK.sub(mended, line))
    return "\n".join(lines)


def _between(folder: str, target: str) -> str:
    start = folder if folder.startswith("docs") else "docs"  # pages from the top lie beside docs'
    return os.path.relpath(target, start).replace(os.sep, "/")
