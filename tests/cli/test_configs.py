"""`--config`: files here, packaged recipes by name, several composed."""

from __future__ import annotations

import pytest

from lit_ssl.cli import recipes as configs
from lit_ssl.errors import InputError


@pytest.fixture
def packaged(tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("packaged")
    (root / "toy").mkdir()
    (root / "toy" / "digits.yaml").write_text(
        "model:\n  class_path: toy_project.ToyModel\n  init_args: {lr: 0.7, width: 5}\n"
        "data: toy_project.ToyData\n"
        "trainer: {accelerator: cpu, logger: false, max_epochs: 3, enable_progress_bar: false}\n"
    )
    monkeypatch.setattr(configs, "_root", lambda: root)
    return root


@pytest.mark.parametrize(
    "words", ["--config toy/digits", "--config=toy/digits.yaml", "-c toy/digits"]
)
def test_recipe_by_name_from_any_folder(packaged, built, words):
    cli = built("fit", *words.split())
    assert (cli.model.hparams.lr, cli.trainer.max_epochs) == (0.7, 3)


def test_file_here_beats_packaged_one(packaged, built, workdir):
    (workdir / "toy").mkdir()
    (workdir / "toy/digits.yaml").write_text(
        (packaged / "toy/digits.yaml").read_text().replace("lr: 0.7", "lr: 0.9")
    )
    assert built("fit", "--config", "toy/digits.yaml").model.hparams.lr == 0.9
    assert built("fit", "--config", "toy/digits").model.hparams.lr == 0.7


def test_later_configs_and_typed_values_win(packaged, built, workdir):
    (workdir / "change.yaml").write_text(
        "model: {init_args: {lr: 0.8, width: 6}}\ntrainer: {max_epochs: 4}\n"
    )
    cli = built("fit", "--config", "toy/digits", "--config", "change.yaml", "--model.width", "7")
    assert (cli.model.hparams.lr, cli.model.hparams.width, cli.trainer.max_epochs) == (0.8, 7, 4)


def test_unknown_recipe_names_near_ones(packaged, workdir):
    with pytest.raises(InputError, match=r"--config toy/digit: no such .* mean toy/digits\.yaml\?"):
        configs.resolve_config("toy/digit")
    with pytest.raises(InputError, match=r"Did you mean recipe\.yaml\?"):
        configs.resolve_config("recipes.yaml")
    (workdir / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder, not a config file"):
        configs.resolve_config("folder")


@pytest.mark.parametrize("value", ["-", "s3://bucket/x.yaml", "{trainer: {max_epochs: 1}}"])
def test_what_is_no_name_stays(value):
    assert configs.resolve_config(value) == value
