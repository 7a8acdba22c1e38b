"""What the docs site is made of; `make docs` builds it and follows its links."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "site"))

import check_links
import links
import pages
import reference_pages as reference
import source_tree

ROOT = Path(__file__).parents[2]
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}


@pytest.fixture(scope="module")
def reference_pages():
    return reference.pages()


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of mkdocs."""


Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def navigation(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else navigation(value)


def test_every_page_has_one_place_in_the_navigation(reference_pages):
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    listed = sorted(navigation(config["nav"]))
    made = {"index.md", "contributing.md", "changes.md", *reference_pages}
    made |= {"reference/recipes.md", "reference/commands.md"}
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed == sorted(made | written)


def test_every_public_package_has_a_page():
    lazy = {
        path.parent.name
        for folder in ("lit_ssl", "callbacks", "datamodules")
        for path in (ROOT / folder).rglob("__init__.py")
        if "lazy_names(__name__)" in path.read_text()
    }
    assert set(reference.PACKAGES) == lazy - {"lit_ssl", "cli"} | {"strategies"}


def test_every_public_name_is_described_once(reference_pages):
    text = "\n".join(reference_pages.values())
    for name in ("methods.MSN", "callbacks.KNNEvaluator", "errors.InputError", "losses.MSNLoss"):
        assert text.count(f"::: lit_ssl.{name}\n") == 1
    described = [line for line in text.split("\n") if line.startswith("::: ")]
    assert len(described) == len(set(described)) > 350
    assert "[](){#lit_ssl.MSN}\n\n::: lit_ssl.methods.MSN" in text
    assert all(len(page) > 200 for page in reference_pages.values())


def test_recipes_have_a_page():
    text = pages.recipes()
    assert "## msn\n" in text
    for path in (ROOT / "cli_configs").rglob("*.yaml"):
        assert f"`{path.relative_to(ROOT / 'cli_configs').as_posix()}`" in text


def test_the_source_lies_as_it_is_installed(tmp_path):
    source_tree.lay_out(tmp_path / "tree")
    source_tree.lay_out(tmp_path / "tree")  # again
    for file in ("__init__.py", "callbacks/seed.py", "datamodules/__init__.py", "losses/msn.py"):
        assert (tmp_path / "tree" / "lit_ssl" / file).is_file()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("README.md", "[a](docs/msn.md#b)", "[a](msn.md#b)"),
        ("README.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/design.md", "[a](../CONTRIBUTING.md#style)", "[a](contributing.md#style)"),
        ("docs/design.md", "[`a`](../lit_ssl/lazy.py)", "`a`"),
        ("docs/design.md", "[a](msn.md) [b](https://x.org)", "[a](msn.md) [b](https://x.org)"),
        ("docs/design.md", "[a](no_such.md)", "[a](no_such.md)"),
        ("docs/design.md", "[a](../no_such.py)", "[a](../no_such.py)"),
        ("docs/design.md", "![a](images/b.png)", "![a](images/b.png)"),
        ("README.md", "![a](docs/images/b.png)", "![a](images/b.png)"),
        ("README.md", "```\n[a](docs/msn.md)\n```", "```\n[a](docs/msn.md)\n```"),
    ],
)
def test_links_of_the_repository_are_right_on_the_site(name, text, expected):
    assert links.for_site(text, name, ROOT, BESIDE) == expected


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="top"><a href="in/b.html#here">b</a> <a href="in/b.html#no">b</a>'
        '<a href="c.html">c</a> <a href="https://x.org">x</a> <a href="#top">a</a> <a href="#no">'
        '<script src="https://x.org/x.js"></script><img src="in/no.png">'
    )
    (tmp_path / "in/b.html").write_text('<p id="here"><a href="../a.html#top">a</a>')
    assert sorted(check_links.problems(tmp_path)) == [
        "a.html: #no: there is no such place",
        "a.html: c.html: there is no such file",
        "a.html: https://x.org/x.js is fetched from elsewhere",
        "a.html: in/b.html#no: there is no such place",
        "a.html: in/no.png: there is no such file",
    ]


def test_the_source_is_laid_out_before_mkdocstrings_looks_for_it():
    # it would leave out a folder that is not there yet, and not find modules that lie elsewhere
    pytest.importorskip("mkdocstrings")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"))
    first, *others = config.plugins.events["config"]
    assert first.__code__.co_filename == str(ROOT / "docs" / "site" / "hooks.py")
    assert len(others) > 1
