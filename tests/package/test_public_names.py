"""What `__all__` promises exists and is documented."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import lit_ssl


def module_names():
    yield lit_ssl.__name__
    yield from (m.name for m in pkgutil.walk_packages(lit_ssl.__path__, "lit_ssl."))
    for part in ("callbacks", "datamodules"):  # mapped: not below the path of an editable install
        package = import_module(f"lit_ssl.{part}")
        yield package.__name__
        yield from (m.name for m in pkgutil.walk_packages(package.__path__, f"lit_ssl.{part}."))


@pytest.mark.parametrize("name", sorted(set(module_names())))
def test_names_exist_and_have_docstrings(name):
    module = import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    public = getattr(module, "__all__", [])
    assert len(public) == len(set(public))
    missing = [
        item
        for item in public
        if (inspect.isclass(value := getattr(module, item)) or inspect.isroutine(value))
        and not (value.__doc__ or "").strip()
    ]
    assert missing == []


def test_lazy_names():
    assert dir(lit_ssl) == sorted(lit_ssl.__all__)
    for name in lit_ssl.__all__:
        assert getattr(lit_ssl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'MSNN'"):
        _ = lit_ssl.MSNN


def test_no_public_name_is_that_of_a_file_beside_it():
    """The import of the file would put the module in the place of what it defines."""
    for package in filter(lambda name: hasattr(import_module(name), "__path__"), module_names()):
        home = import_module(package)
        files = {module.name for module in pkgutil.iter_modules(home.__path__)}
        assert not files & set(getattr(home, "__all__", [])), package


@pytest.mark.parametrize("path", ["losses.MSNLoss", "losses.msn.MSNLoss", "metrics.knn.__doc__"])
def test_one_import_is_enough_for_what_lies_below(path):
    code = f"import lit_ssl; assert lit_ssl.{path}; assert not hasattr(lit_ssl, 'loses')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_class_names_are_unique():
    """Two classes of one name, Lightning's included, cannot be called by it on the command line."""
    places = {}
    for part in ("methods", "callbacks", "datamodules", "strategies"):
        package = import_module(f"lit_ssl.{part}")
        for module in pkgutil.walk_packages(package.__path__, f"lit_ssl.{part}."):
            for name, value in vars(import_module(module.name)).items():
                if inspect.isclass(value) and value.__module__ == module.name and name[0] != "_":
                    places.setdefault(name, set()).add(module.name)
    for part in ("callbacks", "loggers", "profilers", "strategies"):
        package = import_module(f"lightning.pytorch.{part}")
        for name in set(package.__all__) & set(places):
            places[name].add(package.__name__)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
