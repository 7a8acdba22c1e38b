"""Hooks of mkdocs: pages made of the packages, and of the files that lie beside ``docs/``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # the files beside this one

import links
import pages
import reference_pages as reference
import source_tree

ROOT = Path(__file__).parents[2]
# files of the repository that are pages, and the names of these
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}


# of tests/docs, above code blocks
_MARKER = re.compile(r"^ *<!-- run:.*-->\n(?= *```\w)", re.MULTILINE)


@event_priority(100)  # mkdocstrings leaves out paths that are not there when it is configured
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay out the package as it is installed, where mkdocstrings looks for it."""
    source_tree.lay_out(ROOT / "build" / "site_source")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not written by hand, or not in ``docs/``."""
    made = {name: (ROOT / beside).read_text(encoding="utf-8") for beside, name in BESIDE.items()}
    made |= reference.pages()
    made |= {"reference/recipes.md": pages.recipes(), "reference/commands.md": pages.commands()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that are right in the repository be right on the site; leave out markers."""
    name = page.file.src_uri
    beside = {value: key for key, value in BESIDE.items()}
    text = _MARKER.sub("", markdown)
    return links.for_site(text, beside.get(name, f"docs/{name}"), ROOT, BESIDE)
