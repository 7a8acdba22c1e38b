"""Reports say which code and which machine made them."""

from __future__ import annotations

import json
import subprocess

import lightning.pytorch as pl
import torch

from lit_ssl.trainer import made_with as place
from lit_ssl.trainer.made_with import made_with


def test_it_is_plain_and_names_versions_and_machine():
    found = made_with(pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
    assert json.loads(json.dumps(found)) == found
    assert torch.__version__.startswith(found["torch"])
    assert found["processes"] == 1
    assert found["threads"] >= 1
    assert found["device"]


def test_the_commit_is_that_of_the_package_and_not_of_a_repository_around_it(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "lit_ssl"
    (package / "trainer").mkdir(parents=True)
    (package / "version.py").write_text("")
    monkeypatch.setattr(place, "__file__", str(package / "trainer" / "made_with.py"))
    git("init")
    assert place._commit.__wrapped__() is None
    git("add", ".")
    git("commit", "-m", "first")
    assert place._commit.__wrapped__() == git("rev-parse", "HEAD")
    (package / "version.py").write_text("changed")
    assert place._commit.__wrapped__() == git("rev-parse", "HEAD") + "+"


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert place._commit.__wrapped__() is None
