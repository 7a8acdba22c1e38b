"""The page of results says what the stored runs say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from fences import ROOT

sys.path.insert(0, str(ROOT / "docs" / "site"))
import results

STORED = sorted(results.STORED.glob("*/*/report.json"))


def test_the_tables_are_those_of_the_stored_runs():
    text = results.PAGE.read_text(encoding="utf-8")
    assert text == results.page_text(text), "run python docs/site/results.py"


def test_all_that_is_stored_is_on_the_page():
    text = results.PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"<!-- results: ([\w-]+) -->", text))
    assert shown == {path.name for path in results.STORED.iterdir()}
    assert shown <= set(results.RECIPES)


@pytest.mark.parametrize("file", STORED, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_a_stored_run_says_how_it_was_made_and_no_place_on_a_machine(file):
    report = json.loads(file.read_text(encoding="utf-8"))
    made = report["protocol"]["made_with"]
    assert re.fullmatch("[0-9a-f]{40}", made["commit"])  # without changes
    assert made["device"]
    config = (file.parent / "config.yaml").read_text(encoding="utf-8")
    assert file.parent.name == f"seed_{yaml.safe_load(config)['seed_everything']}"
    for text in (json.dumps(report), config):
        assert not re.search(r"(^|[\s\"'])/\w+/", text)
    assert file.stat().st_size + len(config) < 12_000


def test_sections_are_replaced_and_nothing_else():
    text = "a\n<!-- results: msn -->\nold\n<!-- end -->\nb\n"
    found = results.page_text(text)
    assert found.startswith("a\n<!-- results: msn -->\n\n**MNIST5kDataModule, 1,000 test images")
    assert found.endswith("\n<!-- end -->\nb\n")
    assert "old" not in found
