from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toys():
    """The module toys.py beside this file."""
    spec = importlib.util.spec_from_file_location(
        "lit_ssl_callback_toys", Path(__file__).with_name("toys.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_trainer(toys, tmp_path):
    """A quiet CPU trainer that writes into the test's own folder."""

    def make(**settings):
        return toys.make_trainer(tmp_path, **settings)

    return make
