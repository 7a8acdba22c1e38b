"""Makes an environment of its own and runs tests in it: of the floors, of the newest, of bolts.

``python tests/environments/environment.py floors|newest|bolts [WORDS OF PYTEST]``, or by ``make``.
Environments lie in build/environments, or in the folder that ENVIRONMENTS names, and are made anew
when pyproject.toml changes. Needs nothing but Python: the script runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
USUAL = ["-m", "not slow and not gpu"]


def supported(pyproject=ROOT / "pyproject.toml"):
    """The Pythons that pyproject.toml says to support, such as (3, 10), the oldest first."""
    text = pyproject.read_text(encoding="utf-8")
    found = re.findall(r'"Programming Language :: Python :: (\d+)\.(\d+)"', text)
    return sorted((int(major), int(minor)) for major, minor in found)


def interpreters(version):
    """Places where an interpreter of a version may be: on the path, of pyenv, of uv."""
    name = f"{version[0]}.{version[1]}"
    if found := shutil.which(f"python{name}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = pyenv.glob(f"{name}.*/bin/python")
    yield from sorted(map(str, found), key=lambda path: [*map(int, re.findall(r"\d+", path))])[::-1]
    if uv := shutil.which("uv"):
        done = subprocess.run([uv, "python", "find", name], capture_output=True, text=True)
        yield from done.stdout.split("\n")[:1]


def works(python, version):
    """Whether it starts, is of that version, and can make environments."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.split() == [str(part) for part in version]


def first_at_hand(versions):
    """The first version of which an interpreter is there, and its path; None without any."""
    for version in versions:
        for python in interpreters(version):
            if python and works(python, version):
                return version, python
    return None


def commands(kind, python):
    """What installs an environment; ``python`` is the one inside it."""
    pip = [python, "-m", "pip", "install", "--quiet"]
    if kind == "newest":
        return [[*pip, "--upgrade", "--editable", ".[demo,dev]"]]
    if kind == "bolts":
        tools = ["pytest>=8", "pytest-timeout>=2.3.1"]
        return [[*pip, "--editable", ".[demo,bolts]", *tools]]
    lines = subprocess.run(
        [python, str(HERE / "floors.py")], capture_output=True, text=True, check=True
    )
    return [
        [*pip, *lines.stdout.split()],
        [*pip, "--no-deps", "--editable", "."],
        [python, "-m", "pip", "check"],
    ]


def build(kind, base, folder):
    """Install an environment unless it is there already; returns its Python."""
    python = folder / "bin" / "python"
    project = (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(project + base.encode()).hexdigest()
    mark = folder / "made_of"
    if mark.is_file() and mark.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"{kind}: installs into {folder}", flush=True)
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    tools = ["pip", "packaging", "tomli; python_version < '3.11'"]
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--upgrade", *tools], check=True
    )
    for command in commands(kind, str(python)):
        subprocess.run(command, check=True, cwd=ROOT)
    mark.write_text(wanted)
    return python


def main(kind, words):
    """Run it; returns the exit status."""
    versions = supported()
    if kind == "newest":
        versions.reverse()
    at_hand = first_at_hand(versions)
    if at_hand is None:
        names = ", ".join(f"{major}.{minor}" for major, minor in versions)
        print(f"skipped {kind}: no interpreter of Python {names} on the path, of pyenv or of uv")
        return 0
    (major, minor), base = at_hand
    print(f"{kind}: Python {major}.{minor} ({base})", flush=True)
    home = Path(os.environ.get("ENVIRONMENTS", ROOT / "build" / "environments"))
    python = build(kind, base, home / kind)
    command = [str(python), "-m", "pytest"]
    if kind == "bolts":
        command += words or ["tests/datamodules/test_bolts.py"]
    else:
        command += [*USUAL, *words]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "LIT_SSL_ENV": kind}).returncode


if __name__ == "__main__":
    if sys.argv[1:2] not in (["floors"], ["newest"], ["bolts"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
