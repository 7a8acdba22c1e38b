"""Files that other programs read: workflows, hooks, citation, forms of issues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import lit_ssl

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(
    path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"
)


def steps(workflow):
    for name, job in workflow["jobs"].items():
        for step in job["steps"]:
            yield name, step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert True in workflow  # YAML's reading of `on`
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 360, name
        assert "permissions" not in job, name
    for name, step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), name
        else:
            command, target, *settings = step["run"].split()
            assert command == "make", name
            assert target in targets, name
            assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in settings), name


def test_workflows_run_every_check():
    found = {
        step["run"].split()[1]
        for path in WORKFLOWS
        for _, step in steps(yaml.safe_load(path.read_text(encoding="utf-8")))
        if "run" in step
    }
    assert found >= {
        "lint", "typecheck", "test", "test-slow", "test-floors", "test-newest", "test-bolts",
        "docs", "release-check",
    }  # fmt: skip


def test_hooks_are_those_of_make_lint():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    local, other = config["repos"]
    entries = [hook["entry"].split()[0] for hook in local["hooks"]]
    assert local["repo"] == "local"
    assert set(entries) == {".venv/bin/ruff"}
    assert re.fullmatch(r"v\d+\.\d+\.\d+", other["rev"])


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == lit_ssl.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The lit_ssl developers"}]
    known = {"authors", "cff-version", "keywords", "license", "message", "title", "type", "version"}
    assert set(citation) == known  # a DOI or an address only once there is one


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_form(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 1
    for field in form["body"]:
        assert field["type"] in ("checkboxes", "dropdown", "input", "textarea")
        assert field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])
