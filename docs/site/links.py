"""Links that lead on in the repository and on the site."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["for_site"]

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r" *(```+|~~~+)")


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
