"""Oldest versions: one of every package, the same wherever a file or a page names it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent))
import environment
import floors

ROOT = Path(__file__).parents[2]
PROJECT = floors.read_project()
# Packages whose older versions are for something else: the tests of bolts have their environment.
ELSEWHERE = ("bolts", "docs")


def test_every_package_has_an_oldest_version():
    lines = floors.pins(floors.requirements(PROJECT))
    assert len(lines) == len(set(lines)) > 20
    assert "jsonargparse[signatures]==4.40" in lines
    assert "lightning==2.6.0" in lines


@pytest.mark.parametrize(
    ("text", "oldest"),
    [("a>=1.2", "1.2"), ("a!=1.3,>=1.2,<2", "1.2"), ("a==3.0.1", "3.0.1"), ("a>=1,>=2", "2")],
)
def test_floor(text, oldest):
    assert str(floors.floor(Requirement(text))) == oldest


@pytest.mark.parametrize(("text", "why"), [("a", "no oldest"), ("a<2", "no oldest"),
                                           ("a>=1.2,!=1.2", "excludes")])  # fmt: skip
def test_no_floor(text, why):
    with pytest.raises(SystemExit, match=why):
        floors.floor(Requirement(text))


def test_extras_ask_for_the_same_versions():
    """What the floors are tested with is what every extra promises."""
    asked = {}
    for extra, texts in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        if extra in ELSEWHERE:
            continue
        for text in texts:
            one = Requirement(text)
            asked.setdefault(one.name, {})[extra] = str(one.specifier)
    unequal = {name: by for name, by in asked.items() if len(set(by.values())) > 1}
    assert unequal == {}


def test_extras_that_tests_need_are_in_dev():
    tested = {one.name for one in floors.requirements(PROJECT)}
    untested = {"boto3", "imagenet-x", "torchcodec"}  # moto brings boto3; the others have reasons
    for extra, texts in PROJECT["optional-dependencies"].items():
        if extra not in ELSEWHERE:
            missing = {Requirement(text).name for text in texts} - tested - untested
            assert missing == set(), extra


def test_pythons():
    versions = environment.supported()
    oldest = f"{versions[0][0]}.{versions[0][1]}"
    assert PROJECT["requires-python"] == f">={oldest}"
    assert versions == [(3, minor) for minor in range(versions[0][1], versions[-1][1] + 1)]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'python_version = "{oldest}"' in text  # mypy
    assert f'target-version = "py{oldest.replace(".", "")}"' in text  # ruff


def test_workflows_test_every_python():
    names = [f"{major}.{minor}" for major, minor in environment.supported()]
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python-version"] == names
    floor_job = next(s["with"] for s in jobs["floors"]["steps"] if "with" in s)
    assert floor_job["python-version"] == names[0]


def test_pages_name_the_same_versions():
    """``torch ≥ 2.6`` in README or a page is what pyproject.toml has."""
    oldest = {one.name: floors.floor(one) for one in floors.requirements(PROJECT)}
    oldest["Python"] = Version(PROJECT["requires-python"].removeprefix(">="))
    wrong, found = [], 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for name, version in re.findall(r"\b([A-Za-z][\w-]*) ?(?:≥|>=) ?(\d+(?:\.\d+)+)", text):
            if name in oldest:
                found += 1
                if Version(version) != oldest[name]:
                    wrong.append(f"{path.name}: {name} {version}, not {oldest[name]}")
    assert wrong == []
    assert found >= 3


def test_interpreters(tmp_path, monkeypatch):
    """The first that works; one that does not start, or is another version, is passed over."""
    (tmp_path / "bin").mkdir()
    for name, text in {"python3.10": "exit 1", "python3.11": "echo 3 12"}.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    real = tmp_path / "pyenv" / "versions" / "3.12.10" / "bin"
    real.mkdir(parents=True)
    (tmp_path / "pyenv" / "versions" / "3.12.9" / "bin").mkdir(parents=True)
    for folder in ("3.12.10", "3.12.9"):
        path = tmp_path / "pyenv" / "versions" / folder / "bin" / "python"
        path.write_text("#!/bin/sh\necho 3 12\n")
        path.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(environment.shutil, "which", lambda name: str(tmp_path / "bin" / name)
                        if (tmp_path / "bin" / name).exists() else None)  # fmt: skip
    assert environment.first_at_hand([(3, 10), (3, 11), (3, 12)]) == (
        (3, 12),
        str(real / "python"),
    )
    assert environment.first_at_hand([(3, 10), (3, 11)]) is None


def test_without_an_interpreter_it_says_why(monkeypatch, capsys):
    monkeypatch.setattr(environment, "first_at_hand", lambda versions: None)
    assert environment.main("floors", []) == 0
    assert "skipped floors: no interpreter of Python 3.10, 3.11" in capsys.readouterr().out


def test_usage():
    script = Path(environment.__file__)
    done = subprocess.run([sys.executable, script, "oldest"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "floors|newest|bolts" in done.stderr
