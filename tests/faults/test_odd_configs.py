"""Configs that stand for too much, and are refused before anything is built."""

from __future__ import annotations

import pytest
import yaml

from lit_ssl.cli.composing import read_entries
from lit_ssl.cli.trainer_options import check_strategy, with_strategy_classes
from lit_ssl.errors import InputError
from lit_ssl.yaml_text import YAMLError, load_yaml

LAUGHS = "a0: &a0 [1, 2]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "aliases stand for more than"),
        (MERGED, "aliases stand for more than"),
        ("a: &a [1, *a]", "stands for itself"),
        ("a: &a {b: *a}", "stands for itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("a: 2024-99-99", "cannot be read"),
        ("a: !!int x", "cannot be read"),
        ("a: !!bool x", "cannot be read"),
        ("a: 1\nb: 2\na: 3", "stands twice"),
    ],
)
def test_a_config_that_nobody_should_build_is_one_line(tmp_path, text, why):
    with pytest.raises(YAMLError, match=why):
        load_yaml(text)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        read_entries(["fit", "--config", str(path)])


def test_a_config_beside_a_config_is_measured_too(tmp_path):
    (tmp_path / "inner.yaml").write_text(LAUGHS)
    (tmp_path / "c.yaml").write_text("model: inner.yaml\n")
    with pytest.raises(InputError, match="aliases stand for more"):
        read_entries(["fit", "--config", str(tmp_path / "c.yaml")])


def test_yaml_makes_no_objects():
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.system [true]")


def test_usual_aliases_are_read():
    assert load_yaml("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}") == {
        "a": {"x": 1},
        "b": [{"x": 1}, {"x": 1}],
        "c": {"x": 1, "y": 2},
    }
    assert load_yaml("") is None


PATH = "lit_ssl.strategies.local_sgd.LocalSGDStrategy"


def test_a_strategy_by_its_class_name(tmp_path):
    import lit_ssl.strategies  # noqa: F401 -- classes that are loaded are known

    words = ["fit", "--trainer.strategy", "LocalSGDStrategy", "--trainer.strategy.sync_every", "4"]
    option = f'--trainer.strategy={{"class_path": "{PATH}"}}'
    assert with_strategy_classes(words) == ["fit", option, *words[3:]]
    assert with_strategy_classes(["fit", f"--trainer.strategy={PATH}"]) == ["fit", option]
    (tmp_path / "c.yaml").write_text("trainer: {strategy: LocalSGDStrategy}\n")
    words = ["fit", "--config", str(tmp_path / "c.yaml"), "--seed_everything", "1"]
    assert with_strategy_classes(words) == [*words[:3], option, *words[3:]]


@pytest.mark.parametrize("name", ["ddp", "auto", "local_sgd", "no_such"])
def test_short_names_of_strategies_stay(name):
    words = ["fit", "--trainer.strategy", name]
    assert with_strategy_classes(words) == words


def test_an_unknown_strategy_is_one_line():
    with pytest.raises(InputError, match=r"no strategy 'LocalSDGStrategy'.*LocalSGDStrategy"):
        check_strategy("LocalSDGStrategy")
