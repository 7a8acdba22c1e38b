"""The README and the page on choosing say nothing that the package does not hold."""

from __future__ import annotations

import importlib
import re
import sys
from email import message_from_bytes
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "site"))
from links import for_index, relative
from wheel_files import built_wheel

from lit_ssl.cli.recipes import list_configs
from lit_ssl.cli.words import WORDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISON = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
CHOOSING = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = "https://example.org/us/lit_ssl"


def table(text, first):
    """The rows of the table whose head begins with a cell, as lists of cells."""
    lines = iter(text.split("\n"))
    head = next(line for line in lines if re.match(rf"\| *{re.escape(first)} *\|", line))
    next(lines)
    rows = [head]
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(line)
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {len(cells[0])}, f"columns of the table of {first}"
    return cells


def recipes_in(text):
    """Names like `msn/folder_small`, and those behind --config."""
    folders = {name.split("/")[0] for name in list_configs()}
    names = set(re.findall(r"`([a-z_]+/[a-z0-9_]+)(?:\.yaml)?`", text))
    names |= set(re.findall(r"--config ([a-z_]+/[a-z0-9_]+)\.yaml", text))
    return {name for name in names if name.split("/")[0] in folders}


@pytest.mark.parametrize("text", [README, CHOOSING], ids=["README", "choosing"])
def test_recipes_exist(text):
    found = recipes_in(text)
    assert found
    assert not found - {name.removesuffix(".yaml") for name in list_configs()}


@pytest.mark.parametrize("text", [README, CHOOSING], ids=["README", "choosing"])
def test_words_exist(text):
    words = {word for section in WORDS.values() for word in section}
    found = set(re.findall(r"lit-ssl ([a-z][a-z-]+)", text))
    assert found
    assert not found - words


def test_choosing_says_method_recipe_cost_and_page():
    head, *rows = table(CHOOSING, "you have")
    assert head == ["you have", "take", "recipe", "cost", "page"]
    assert len(rows) >= 12
    for row in rows:
        assert all(row), row[0]
        assert recipes_in(row[2]), row[0]
        cost = row[3]
        assert re.search("measured|the paper|rule of thumb|header", cost), row[0]
        for target in re.findall(r"\]\(([^)#]+)", row[4]):
            assert (ROOT / "docs" / target).is_file(), target


def test_comparison_names_a_source_for_each_row():
    head, *rows = table(README, "")
    assert head[1:] == ["lit_ssl", "lightly", "solo-learn", "stable-pretraining"]
    assert all(cell for row in rows for cell in row)
    sourced = table(COMPARISON, "row")[1:]
    names = [row[0].removesuffix(" (FSDP)") for row in rows]
    assert names == [row[0] for row in sourced]


def test_our_column_is_what_the_project_declares():
    ours = {row[0]: row[1] for row in table(README, "")[1:]}
    oldest, newest = re.match(r"([\d.]+) to ([\d.]+), torch", ours["Python, torch"]).groups()
    pythons = [
        name.removeprefix("Programming Language :: Python :: ")
        for name in PROJECT["classifiers"]
        if "Python :: 3." in name
    ]
    assert (pythons[0], pythons[-1]) == (oldest, newest)
    assert PROJECT["requires-python"] == f">={oldest}"
    torch = ours["Python, torch"].split("torch ")[1]
    assert f"torch>={torch}" in PROJECT["dependencies"]
    assert ours["licence"] == PROJECT["license"]
    assert len(list((ROOT / "examples").glob("*.ipynb"))) == int(ours["notebooks"].split(",")[0])


def test_results_are_those_of_the_page():
    page = (ROOT / "docs" / "msn.md").read_text(encoding="utf-8")
    assert table(README, "features") == table(page, "features")


def test_methods_exist_and_have_a_page():
    names, pages = set(), set()
    for row in table(README, "method")[1:]:
        names |= set(re.findall(r"`([A-Z]\w+)`", row[0]))
        pages |= set(re.findall(r"\(docs/([^)#]+)", row[2]))
    assert names >= {"MSN", "PMSN", "PAWS", "BARACK", "NAC"}
    for name in names:
        owners = ("lit_ssl", "lit_ssl.callbacks", "lit_ssl.metrics", "lit_ssl.strategies")
        owners += ("lit_ssl.models",)
        assert any(hasattr(importlib.import_module(owner), name) for owner in owners), name
    assert all((ROOT / "docs" / page).is_file() for page in pages)


# A wheel is built from a copy of the whole package.
@pytest.fixture(scope="module")
def description(tmp_path_factory):
    """The README of a wheel whose project has a public address."""
    known = PROJECT.get("urls", {}).get("Source")
    wheel = built_wheel(ROOT, tmp_path_factory.mktemp("readme"), None if known else ADDRESS)
    (metadata,) = (content for name, content in wheel.items() if name.endswith("/METADATA"))
    return known or ADDRESS, message_from_bytes(metadata).get_payload(decode=True).decode()


def test_readme_of_a_wheel_has_no_relative_link(description):
    address, text = description
    assert relative(README)
    assert relative(text) == []
    for place in re.findall(rf"{re.escape(address)}/(?:blob|raw)/v[^/]+/([^)#]+)", text):
        assert (ROOT / place).exists(), place


def test_links_for_an_index():
    text = (
        "[a](docs/a.md#b) ![c](docs/c.png) [d](https://d.org) [e](#e)\n```text\n[f](f.md)\n```\n"
        '[g]: g.md\n<img src="h.png">'
    )
    made = for_index(text, ADDRESS + "/", "1.2")
    assert f"[a]({ADDRESS}/blob/v1.2/docs/a.md#b) ![c]({ADDRESS}/raw/v1.2/docs/c.png)" in made
    assert "[d](https://d.org) [e](#e)\n```text\n[f](f.md)\n```\n" in made
    assert relative(text) == ["docs/a.md#b", "docs/c.png", "g.md", "h.png"]
    assert relative(made) == ["g.md", "h.png"]
