"""Follow all links of a built site: files and anchors must be there, nothing may be fetched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# what a browser fetches by itself, unlike the links that a reader follows
_FETCHED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src"}
_LINK_KINDS = ("stylesheet", "icon", "preload", "preconnect", "manifest")


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it fetches."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element adds."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and any(kind in values.get("rel", "") for kind in _LINK_KINDS):
            self.fetched.append(values.get("href", ""))
        elif values.get(_FETCHED.get(tag, "")):
            self.fetched.append(values[_FETCHED[tag]])


def problems(site: Path) -> Iterator[str]:
    """What is wrong with a site.

    Args:
        site: its folder.

    Yields:
        A line for each link that leads nowhere, and for each thing that another host would serve.
    """
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    for file, page in pages.items():
        base = site if file.name == "404.html" else file.parent  # its links begin with a /
        name = file.relative_to(site)
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetched:
                    yield f"{name}: {link} is fetched from elsewhere"
                continue
            path = unquote(parts.path)
            target = (base / path.lstrip("/")).resolve() if path else file.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name}: {link}: there is no such file"
            elif parts.fragment and target.suffix == ".html":
                anchors = pages[site / target.relative_to(site.resolve())].anchors
                if unquote(parts.fragment) not in anchors:
                    yield f"{name}: {link}: there is no such place"


def main() -> None:
    """Print what is wrong; exit with status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="the folder that mkdocs built")
    found = list(problems(parser.parse_args().site))
    print("\n".join(found) or "all links of the site lead somewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
