"""Every packaged YAML file is valid: known classes, known options, values of the right type."""

from __future__ import annotations

import sys

import pytest
import yaml

from lit_ssl.__main__ import main
from lit_ssl.cli.recipes import describe_config, list_configs, packaged_config

# presets change a recipe and are complete only together with one
PRESETS = ("trainer/", "eval/")
# these change an object of it, whose class they do not say
AFTER = {"vl/uniform60.yaml": "vl/own_pairs.yaml", "vl/whole_word15.yaml": "vl/own_pairs.yaml"}


@pytest.mark.parametrize("name", list_configs())
def test_recipe_parses(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = ["--config", AFTER[name]] if name in AFTER else []
    words = ["lit-ssl", "fit", *before, "--config", name, "--print_config"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == 0, shown.err
    config = yaml.safe_load(shown.out)
    if not name.startswith(PRESETS):
        assert config["model"]["class_path"].startswith("lit_ssl.")
        assert config["data"]["class_path"].startswith("lit_ssl.")


@pytest.mark.parametrize("name", list_configs())
def test_recipe_says_what_it_is(name):
    assert 10 <= len(describe_config(name)) <= 100
    assert packaged_config(name).read_text().startswith("#")


def test_print_config_would_show_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("model: {class_path: MSN, init_args: {mask_ration: 1}}")
    monkeypatch.setattr(sys, "argv", ["lit-ssl", "fit", "--config=wrong.yaml", "--print_config"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "Did you mean mask_ratio?" in capsys.readouterr().err
