"""Configs over configs: keys once, lists replaced, what is kept and where a value came from."""

from __future__ import annotations

import pytest
import yaml

from lit_ssl.cli.composing import kept_options, origin_of, read_entries, with_empty_lists
from lit_ssl.cli.nulls import with_whole_nulls
from lit_ssl.cli.recipes import config_name, packaged_config

BASE = ["fit", "--config", "recipe.yaml", "--config", "first.yaml"]
FIRST = """\
data:
  init_args:
    train_transform:
      class_path: MultiCrop
      init_args: {crops: [{size: 8, count: 2, rotation: 15}]}
trainer:
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {save_last: true, filename: first}
    - class_path: toy_callbacks.Two
      init_args: {items: [{class_path: KNNEvaluator, init_args: {k: 7}}], numbers: [1, 2]}
"""
CALLBACKS = """\
import lightning.pytorch as pl


class Two(pl.Callback):
    def __init__(self, items: list[pl.Callback], numbers: list[int] = ()):
        self.items = items
        self.numbers = numbers
"""


@pytest.fixture
def first(workdir, monkeypatch):
    (workdir / "toy_callbacks.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(workdir)
    (workdir / "first.yaml").write_text(FIRST)
    return workdir


def crops(cli):
    return cli.datamodule.train_transform.crops


def of_kind(cli, name):
    (found,) = (c for c in cli.trainer.callbacks if type(c).__name__ == name)
    return found


@pytest.mark.parametrize("way", ["file", "typed", "whole", "text", "init_args"])
def test_a_list_replaces_a_list_of_the_same_length(built, first, way):
    tree = {"data": {"init_args": {"train_transform": {"init_args": {"crops": [{"size": 6}]}}}}}
    (first / "second.yaml").write_text(yaml.safe_dump(tree))
    whole = {"class_path": "MultiCrop", **tree["data"]["init_args"]["train_transform"]}
    words = {
        "file": ["--config", "second.yaml"],
        "typed": ["--data.train_transform.crops", "[{size: 6}]"],
        "whole": [f"--data.train_transform={whole}"],
        "text": [f"-c={tree}"],
        "init_args": ["--data.init_args.train_transform.init_args.crops=[{size: 6}]"],
    }[way]
    (crop,) = crops(built(*BASE, *words))
    assert (crop.size, crop.count, crop.rotation) == (6, 1, 0.0)


@pytest.mark.parametrize("items", ["[ModelCheckpoint, {class_path: KNNEvaluator}]", "[]"])
def test_callbacks_are_replaced(built, first, items):
    (first / "second.yaml").write_text(f"trainer: {{callbacks: {items}}}")
    for words in (["--config", "second.yaml"], [f"--trainer.callbacks={items}"]):
        cli = built(*BASE, *words)
        names = [type(callback).__name__ for callback in cli.trainer.callbacks]
        assert names.count("KNNEvaluator") == (items != "[]")
        assert "Two" not in names
        saver = of_kind(cli, "ModelCheckpoint")
        assert (saver.filename, saver.save_last) == (None, None)


def test_adding_goes_on_with_the_list_that_is_there(built, first):
    (first / "second.yaml").write_text("trainer: {callbacks+: [{class_path: KNNEvaluator}]}")
    cli = built(*BASE, "--config=second.yaml", "--trainer.callbacks.k=3")
    assert of_kind(cli, "Two").items[0].k == 7
    assert of_kind(cli, "KNNEvaluator").k == 3
    cli = built(*BASE, "--trainer.callbacks+=KNNEvaluator", "--trainer.callbacks.k=4")
    assert of_kind(cli, "KNNEvaluator").k == 4


def test_mappings_are_still_composed_and_numbers_replaced(built, first):
    cli = built(*BASE, "--trainer.callbacks.numbers=[3]", "--data.batch_size=2")
    assert of_kind(cli, "Two").numbers == [3]
    assert of_kind(cli, "Two").items[0].k == 7
    assert crops(cli)[0].rotation == 15


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.subset={fraction: 0.5}"], (None, 0.5, 0)),
        (["--config=second.yaml"], (None, 0.5, 0)),
        (["--data.subset.per_class=3"], (3, None, 5)),
        (["--data.subset={seed: 4}"], (2, None, 4)),
    ],
)
def test_a_whole_subset_replaces_the_choice_before(built, first, words, expected):
    tree = "{class_path: MNIST5kDataModule, init_args: {subset: {per_class: 2, seed: 5}}}"
    (first / "digits.yaml").write_text(f"data: {tree}")
    (first / "second.yaml").write_text("data: {init_args: {subset: {fraction: 0.5}}}")
    subset = built("fit", "--model=MSN", "--config=digits.yaml", *words).datamodule.subset
    assert (subset.per_class, subset.fraction, subset.seed) == expected


def test_a_list_in_a_file_of_its_own(built, first):
    (first / "transform.yaml").write_text("class_path: MultiCrop\ninit_args: {crops: [{size: 5}]}")
    (crop,) = crops(built(*BASE, "--data.train_transform", "transform.yaml"))
    assert (crop.size, crop.rotation) == (5, 0.0)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "data: b.yaml", "b": "{class_path: %s, init_args: {train_transform: c.yaml}}"}, ()),
        ({"a": "data: {init_args: {train_transform: c.yaml}}"}, ()),
        ({"a": "data: {init_args: {train_transform: {init_args: {crops: d.yaml}}}}"}, ()),
        ({"a": "{}"}, ("--data.train_transform", "inner/c.yaml")),
        ({"a": "{}"}, ("--data.train_transform={class_path: MultiCrop, init_args: "
                       "{crops: inner/d.yaml}}",)),
    ],
)  # fmt: skip
def test_lists_in_files_that_a_config_names(built, first, files, words, capsys):
    (first / "inner").mkdir()
    files = {"c": "{class_path: MultiCrop, init_args: {crops: d.yaml}}", "d": "[{size: 5}]"} | files
    for file, text in files.items():
        (first / f"inner/{file}.yaml").write_text(text.replace("%s", "toy_project.ToyData"))
    cli = built(*BASE, "--config=inner/a.yaml", *words)
    assert [(crop.size, crop.rotation) for crop in crops(cli)] == [(5, 0.0)]
    assert "yaml keeps" not in capsys.readouterr().out


def test_a_later_list_without_a_class_is_refused(lit_ssl, first):
    (first / "second.yaml").write_text("trainer: {callbacks: [{init_args: {k: 3}}, Timer]}")
    result = lit_ssl(*BASE, "--config", "second.yaml")
    assert result.code == 2
    assert "option 'k' is given but no class" in result.err
    assert result.err.count("\n") == 1


def test_nothing_is_added_to_a_single_config(first):
    words = ["fit", "--config", "first.yaml", "--model.lr", "3", "--trainer.devices=[1]"]
    assert with_empty_lists(words) == words


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("trainer:\n  max_epochs: 1\n  max_epochs: 2\n", "max_epochs", "lines 2 and 3"),
        ("model: {init_args: {lr: 1}}\ntrainer: {}\nmodel: {}\n", "model", "lines 1 and 3"),
        ("trainer: {callbacks: [{class_path: A, class_path: B}]}", "class_path", "line 1"),
        ('model: {"lr": 1, lr: 2}', "lr", "line 1"),
    ],
)
def test_a_key_that_stands_twice(lit_ssl, workdir, text, name, lines):
    (workdir / "twice.yaml").write_text(text)
    start = f"error: twice.yaml: {name!r} stands twice in one place, in {lines}, and only the last"
    result = lit_ssl("fit", "--config", "recipe.yaml", "--config=twice.yaml")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(start)


def test_a_key_that_stands_twice_in_what_is_typed(lit_ssl):
    result = lit_ssl("fit", "--config=recipe.yaml", "--model={class_path: A, class_path: B}")
    assert result.err.startswith("error: the config: 'class_path' stands twice")


def test_merged_keys_may_be_given_again(workdir):
    text = "a: &a {x: 1}\nb: {c: &c {<<: *a, x: 2}}\nd: {<<: *c, x: 3}\n"
    (workdir / "merged.yaml").write_text(text)
    (entry,) = read_entries(["fit", "--config", "merged.yaml"])
    assert entry.value == {"a": {"x": 1}, "b": {"c": {"x": 2}}, "d": {"x": 3}}


def test_what_a_new_class_keeps_is_said(lit_ssl, workdir):
    words = ["fit", "--config", "recipe.yaml", "--trainer.fast_dev_run=true"]
    result = lit_ssl(*words, "--model", "toy_project.OtherModel")
    assert "model: OtherModel keeps lr of the ToyModel before it\n" in result.out
    result = lit_ssl(*words, "--model={class_path: toy_project.OtherModel, init_args: {lr: 1}}")
    assert "keeps" not in result.out
    assert "keeps" not in lit_ssl(*words, "--model", "toy_project.ToyModel").out


def test_kept_options_of_objects_inside_objects():
    typed = "--data={class_path: A, init_args: {inner: {class_path: B, init_args: {x: 1, y: 2}}}}"
    entries = read_entries(["fit", typed, "--data.init_args.inner=pkg.C", "--data.inner.y=3"])
    assert kept_options(entries) == {"data.inner": ("C", "B", ["x", "y"])}


def test_a_value_that_its_class_refuses_is_traced_to_the_recipe(lit_ssl, workdir):
    (workdir / "msn.yaml").write_text(
        "model: {class_path: MSN, init_args: {num_prototypes: 1, backbone: vit_tinny}}\n"
        "data: toy_project.ToyData\n"
    )
    result = lit_ssl("fit", "--config", "msn.yaml")
    assert result.err.splitlines()[-1].endswith("(num_prototypes: 1 is set in msn.yaml)")
    result = lit_ssl("fit", "--config", "msn.yaml", "--model.num_prototypes=2")
    assert result.err.splitlines()[-1].endswith("(backbone: vit_tinny is set in msn.yaml)")
    result = lit_ssl("fit", "--config", "msn.yaml", "--model.num_prototypes=0")
    assert "is set in" not in result.err


def test_origin_needs_name_and_value(workdir):
    (workdir / "x.yaml").write_text("model: {init_args: {size: 3, root: images}}")
    entries = read_entries(["fit", "--config", "x.yaml"])
    assert origin_of(entries, "size must be 4") == ""
    assert origin_of(entries, "size must be 4, not 3.5") == ""
    assert origin_of(entries, "size must be 4, not 3") == " (size: 3 is set in x.yaml)"
    assert origin_of(entries, "no folder 'images'") == " (root: images is set in x.yaml)"


def test_what_lightning_refuses_is_traced_too(lit_ssl, workdir):
    (workdir / "second.yaml").write_text("trainer: {accelerator: gpuu}")
    line = lit_ssl("fit", "--config", "recipe.yaml", "--config=second.yaml").err.splitlines()[-1]
    assert "accelerator='gpuu'" in line
    assert line.endswith(" (accelerator: gpuu is set in second.yaml)")


def test_packaged_recipes_go_by_their_short_name():
    assert config_name(str(packaged_config("msn/mnist5k"))) == "msn/mnist5k.yaml"
    assert config_name("msn/mnist5k.yaml") == "msn/mnist5k.yaml"
    assert config_name("/elsewhere/x.yaml") == "/elsewhere/x.yaml"


def test_values_with_a_null_deep_inside_are_written_as_a_mapping():
    words = ["fit", "--data.data.name", "null", "--model.a.b=[1, null]", "--model.a.c", "1"]
    assert with_whole_nulls(words) == [
        "fit", '--data={"data": {"name": null}}', '--model={"a": {"b": [1, null]}}',
        "--model.a.c", "1",
    ]  # fmt: skip
    same = ["fit", "--model.a=null", "--trainer.logger.a.b=null", "--model.a.b=", "--model.a.b"]
    assert with_whole_nulls(same) == same
