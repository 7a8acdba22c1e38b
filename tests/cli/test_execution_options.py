"""``--execution``: of every command, in every recipe, saved, and of no weight for what a run is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from lit_ssl.callbacks import Execution
from lit_ssl.cli.auto_resume import _differences
from lit_ssl.cli.output import quiet

BASE = ["--config", "recipe.yaml"]
RECIPES = Path(__file__).parents[2] / "cli_configs"


def execution(cli):
    (found,) = [c for c in cli.trainer.callbacks if isinstance(c, Execution)]
    return found


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_command_has_it(built, command):
    assert execution(built(command, *BASE)).compile == "none"
    chosen = execution(built(command, *BASE, "--execution.compile=blocks"))
    assert chosen.compile == "blocks"


def test_it_is_saved_with_the_configuration_and_old_ones_lack_it(lit_ssl, built, workdir):
    shown = lit_ssl("fit", *BASE, "--execution.float32_matmul=high", "--print_config").out
    content = yaml.safe_load(shown)
    assert content["execution"]["float32_matmul"] == "high"
    (workdir / "new.yaml").write_text(shown)
    assert execution(built("fit", "--config", "new.yaml")).float32_matmul == "high"
    del content["execution"]
    (workdir / "old.yaml").write_text(yaml.safe_dump(content))
    assert execution(built("fit", "--config", "old.yaml")).float32_matmul is None


def test_a_run_is_the_same_however_it_is_executed():
    old = {"model": {"init_args": {"channels_last": True, "lr": 1}}}
    new = {"model": {"init_args": {"lr": 1}}, "execution": {"channels_last": True}}
    assert not _differences(new, old)
    assert "lr is 2" in _differences({"model": {"init_args": {"lr": 2}}}, old)


def test_two_of_them_are_one_line(lit_ssl):
    result = lit_ssl("fit", *BASE, "--trainer.callbacks+=Execution")
    assert result.code == 2
    assert "lit-ssl adds it" in result.err


def test_wrong_words_name_the_option(lit_ssl):
    result = lit_ssl("fit", *BASE, "--execution.compile=bloks")
    assert result.code == 2
    assert "execution.compile" in result.err
    assert "Did you mean blocks?" in result.err


def test_the_hint_about_tensor_cores_is_not_printed(caplog):
    quiet()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO):
        logger.info("You are using a CUDA device ('NVIDIA X') that has Tensor Cores. …")
        logger.info("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_recipes_of_float32_on_gpus_allow_tf32():
    for path in RECIPES.glob("*/*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        if str(recipe.get("trainer", {}).get("precision")).startswith("32"):
            assert recipe["execution"]["float32_matmul"] == "high", path
