"""A wrong entry: exit status 2 and one line that names it and the nearest valid one."""

from __future__ import annotations

import shlex
from importlib import import_module

import pytest
import yaml

from lit_ssl.cli.mistakes.entries import wrong_entry
from lit_ssl.cli.recipes import list_configs, packaged_config
from lit_ssl.cli.training import LitSSLCLI
from lit_ssl.trainer.private import option_types, subcommand_parsers

BASE = ["fit", "--config", "recipe.yaml"]

# What is typed after BASE; below it, what the line says.
TYPED = r"""
--model.lrr 3
    model: ToyModel has no option 'lrr'. Did you mean lr?
--data.batchsize=3
    data: ToyData has no option 'batchsize'. Did you mean batch_size?
--trainer.max_epoch 3
    no option --trainer.max_epoch. Did you mean --trainer.max_epochs?
--modle.lr 3
    no option --modle.lr. Did you mean --model?
--confg x.yaml
    no option --confg. Did you mean --config?
more
    unexpected 'more': options are written --name value.
--model.lr fast
    model.lr: expected float, got 'fast'.
--model.width 3.5
    model.width: expected int, got '3.5'.
--trainer.max_epochs many
    trainer.max_epochs: expected int or null, got 'many'.
--seed_everything x
    seed_everything: expected bool or int, got 'x'.
--model ToyModell
    model: no class named 'ToyModell'. Did you mean ToyModel?
--model toy_project.ToyModell
    model: toy_project has no class 'ToyModell'. Did you mean ToyModel?
--model toy_projekt.ToyModel
    model: no module named 'toy_projekt'. Did you mean toy_project?
--model lit_ssl.method.MSN
    model: no module named 'lit_ssl.method'. Did you mean methods?
--model torch.nn.Linear
    model: torch.nn.Linear is no LightningModule.
--model.optimizer SGDD
    model.optimizer: no class named 'SGDD'. Did you mean SGD?
--model.optimizer SGD --model.optimizer.momentun=1
    model.optimizer: SGD has no option 'momentun'. Did you mean momentum?
--trainer.callbacks+=KNNEvaluatr
    trainer.callbacks: no class named 'KNNEvaluatr'. Did you mean KNNEvaluator?
--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr=x
    trainer.callbacks: EarlyStopping has no option 'monitr'. Did you mean monitor?
--trainer.callbacks+=EarlyStopping
    trainer.callbacks: EarlyStopping needs monitor.
--trainer.callbacks+=[{class_path:\ EarlyStopping,init_args:\ {monitor:\ x,mod:\ y}}]
    trainer.callbacks: EarlyStopping has no option 'mod'. Did you mean mode?
--trainer.callbacks+=EarlyStopping --trainer.callbacks.patience=x --trainer.callbacks.monitor=y
    trainer.callbacks.patience: expected int, got 'x'.
--trainer.callbacks+=EarlyStopping --trainer.callbacks+=RichProgressBar
    trainer.callbacks: EarlyStopping needs monitor.
--model.init_args.lrr=3
    model: ToyModel has no option 'lrr'. Did you mean lr?
--model.lr=2 --model.lr=fast
    model.lr: expected float, got 'fast'.
--data.subset.fractoin=0.1
    data.subset: Subset has no option 'fractoin'. Did you mean fraction?
--trainer.limit_val_batches=some
    trainer.limit_val_batches: expected int or float or null, got 'some'.
--ckpt_path
    argument --ckpt_path: expected one argument
--ckpt_path recipe.ckpt
    no checkpoint recipe.ckpt.
--ckpt_path recipe.yaml
    recipe.yaml cannot be read as a checkpoint:
--config recip.yaml
    --config recip.yaml: no such config file, here or among the packaged ones. Did you mean recipe
"""

# What wrong.yaml holds.
IN_A_FILE = """
model: {class_path: toy_project.ToyModel, init_args: {lrr: 3}}
    model: ToyModel has no option 'lrr'. Did you mean lr? (in wrong.yaml)
trainer: {max_epoch: 3}
    no option 'trainer.max_epoch'. Did you mean trainer.max_epochs? (in wrong.yaml)
modle: {class_path: toy_project.ToyModel}
    no option 'modle.class_path'. Did you mean model? (in wrong.yaml)
model: {init_args: {lr: fast}}
    model.lr: expected float, got 'fast'. (in wrong.yaml)
model: {class_path: ToyModell}
    model: no class named 'ToyModell'. Did you mean ToyModel? (in wrong.yaml)
model: toy_project.ToyModell
    model: toy_project has no class 'ToyModell'. Did you mean ToyModel? (in wrong.yaml)
model: {class_path: toy_project.ToyModel, lr: 3}
    model: options of ToyModel (lr) belong under init_args. (in wrong.yaml)
model: {init_args: {optimizer: {class_path: SGD, init_args: {lrr: 3}}}}
    model.optimizer: SGD has no option 'lrr'. Did you mean lr? (in wrong.yaml)
trainer: {callbacks: [{class_path: KNNEvaluatr}]}
    trainer.callbacks: no class named 'KNNEvaluatr'. Did you mean KNNEvaluator? (in wrong.yaml)
trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitr: x}}]}
    trainer.callbacks: EarlyStopping has no option 'monitr'. Did you mean monitor? (in wrong.yaml)
trainer: {strategy: {class_path: SlowMomentumStrategy, init_args: {buffers: keep}}}
    trainer.strategy.buffers: expected 'auto' or 'maintain' or 'reset' or 'average', got 'keep'.
trainer: {callbacks: 3}
    trainer.callbacks: expected list[lightning.pytorch.callbacks.callback.Callback] or Callback or
trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitr: x}}]}
    trainer.callbacks: EarlyStopping has no option 'monitr'. Did you mean monitor? (in wrong.yaml)
trainer: {callbacks+: {class_path: KNNEvaluatr}}
    trainer.callbacks: no class named 'KNNEvaluatr'. Did you mean KNNEvaluator? (in wrong.yaml)
data: {init_args: {train_transform: {class_path: MultiCrop, init_args: {crops: [{siz: 8}]}}}}
    data.train_transform.crops: CropSpec has no option 'siz'. Did you mean size? (in wrong.yaml)
trainer: {max_time: {days: 1}, max_epoch: 3}
    no option 'trainer.max_epoch'. Did you mean trainer.max_epochs? (in wrong.yaml)
model: {init_args: null}
    model.init_args: expected options, as {name: value}, got None (in wrong.yaml)
model: [a
    wrong.yaml is no valid YAML:
"""


def pairs(text):
    lines = [line.strip() for line in text.strip().splitlines()]
    return list(zip(lines[::2], lines[1::2], strict=True))


def check(result, message):
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"error: {message}"), result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), pairs(TYPED))
def test_typed(lit_ssl, words, message):
    check(lit_ssl(*BASE, *shlex.split(words)), message)


@pytest.mark.parametrize(("text", "message"), pairs(IN_A_FILE))
def test_in_a_file(lit_ssl, workdir, text, message):
    (workdir / "wrong.yaml").write_text(text)
    check(lit_ssl(*BASE, "--config", "wrong.yaml"), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wrong.yaml is empty: a config has entries"),
        ("some words", "wrong.yaml holds 'some words': a config has entries"),
        ("trainer:", "wrong.yaml has nothing under trainer: a config has entries"),
        ("trainer:\n\tmax_epochs: 1", "wrong.yaml is no valid YAML: "),
    ],
)
def test_the_file_that_is_wrong_is_named_not_the_one_before(lit_ssl, workdir, text, message):
    (workdir / "wrong.yaml").write_text(text)
    result = lit_ssl(*BASE, "--config", "wrong.yaml")
    check(result, message)
    assert "recipe.yaml" not in result.err


def test_a_file_that_is_no_text_is_named(lit_ssl, workdir):
    (workdir / "wrong.yaml").write_bytes(b"\xff\xfe\x00")
    check(lit_ssl(*BASE, "--config", "wrong.yaml"), "wrong.yaml is no valid YAML: ")


def test_literal(lit_ssl):
    result = lit_ssl(*BASE, "--model.mode", "gel")
    check(result, "model.mode: ")
    # jsonargparse before 4.41 does not say which values there are
    assert "expected 'relu' or 'gelu', got 'gel'. Did you mean gelu?" in result.err or (
        "no valid value" in result.err
    )


def test_form_without_class(lit_ssl, workdir):
    (workdir / "wrong.yaml").write_text("model: {lr: 0.2}\ndata: toy_project.ToyData")
    check(
        lit_ssl("fit", "--config", "wrong.yaml"),
        "model: option 'lr' is given but no class; write model: "
        "{class_path: CLASS, init_args: {lr: ...}}. (in wrong.yaml)",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model and data missing: give --config NAME"),
        (["--model", "toy_project.ToyModel"], "data missing: give --config NAME"),
        (["--data", "toy_project.ToyData"], "model missing: give --config NAME"),
    ],
)
def test_missing_classes(lit_ssl, words, message):
    check(lit_ssl("fit", *words), message)


def test_options_before_the_command(lit_ssl):
    check(lit_ssl("--config", "recipe.yaml", "fit"), "options come after the command: ")


def test_two_classes_of_one_name(lit_ssl, workdir, monkeypatch):
    monkeypatch.syspath_prepend(workdir)
    text = "import toy_project\n\nclass Double(toy_project.ToyModel):\n    pass\n"
    (workdir / "first_double.py").write_text(text)
    (workdir / "second_double.py").write_text(text)
    import_module("first_double"), import_module("second_double")
    check(
        lit_ssl(*BASE, "--model", "Double"),
        "model: several classes are called Double: write first_double.Double or second_double.Dou",
    )


def test_module_that_fails_to_import_names_the_missing_one(lit_ssl, workdir, monkeypatch):
    monkeypatch.syspath_prepend(workdir)
    (workdir / "needs_more.py").write_text("import not_installed_here\n")
    check(
        lit_ssl(*BASE, "--model", "needs_more.X"),
        "model: needs_more.X cannot be imported: no module named 'not_installed_here'.",
    )


def test_debug_shows_the_text_of_the_parser(lit_ssl, monkeypatch):
    monkeypatch.setenv("LIT_SSL_DEBUG", "1")
    with pytest.raises(Exception, match="has no option 'lrr'") as caught:
        lit_ssl(*BASE, "--model.lrr", "3")
    assert 'Parser key "model"' in str(caught.value.__cause__)


@pytest.fixture(scope="module")
def options():
    """The options of `lit-ssl fit`, with their types."""

    class Stop(LitSSLCLI):
        def parse_arguments(self, parser, args):
            self.found = option_types(subcommand_parsers(self)["fit"])
            raise InterruptedError(self)

    with pytest.raises(InterruptedError) as stopped:
        Stop(args=["fit"])
    return stopped.value.args[0].found


# these change an object of the recipe before them, whose class they do not say
AFTER = {"vl/uniform60.yaml": "vl/own_pairs.yaml", "vl/whole_word15.yaml": "vl/own_pairs.yaml"}


@pytest.mark.parametrize("name", list_configs())
def test_nothing_is_wrong_with_a_packaged_recipe(options, name):
    file = str(packaged_config(name))
    recipe = "msn/mnist5k.yaml" if name.startswith("eval/") else AFTER.get(name, name)
    words = ["--config", str(packaged_config(recipe)), "--config", file]
    assert wrong_entry(options, words, linked=["model.num_classes"]) is None
    loaded = yaml.safe_load(packaged_config(name).read_text())
    parts = [p for p in ("model", "data") if "class_path" in (loaded.get(p) or {})]
    for part in parts:
        loaded[part].setdefault("init_args", {})["q"] = 1
        line = wrong_entry(options, {part: loaded[part]}, linked=[])
        assert line.startswith(f"{part}: ")
        assert "has no option 'q'" in line


VALID = r"""
--model MSN --model.backbone_kwargs.depth=1 --model.backbone_kwargs={img_size:\ 8}
--model MSN --model.optimizer=SGD --model.optimizer.lr=0.1 --model.lr=1e-3 --model.optimizer=null
--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.filename={step}
--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=x
--trainer.callbacks=null --trainer.callbacks=[] --trainer.devices=[0,1] --trainer.devices=auto
--trainer.strategy=ddp --trainer.strategy=SlowMomentumStrategy --trainer.strategy.sync_every=2
--trainer.max_time={days:\ 1} --trainer.max_time=00:01:00:00 --trainer.max_epochs=-1
--trainer.logger=true --trainer.logger=CSVLogger --trainer.logger.save_dir=x
--data MNIST5kDataModule --data.subset.fraction=0.1 --data.subset={per_class:\ 2} --data.subset=null
--data CIFAR10DataModule --data.mean=[0.1,0.2,0.3] --data.mean+=0.4
--data CIFAR10DataModule --data.train_transform=SingleView --data.train_transform.crop.size=8
--data.class_path=CIFAR10DataModule --data.init_args.root=x --print_config --seed_everything true
--model ImageClassifier --model.help MSN --config {trainer:\ {max_epochs:\ 1}} --weights_only=false
--model FineTuning --model.dict_kwargs.other=1
"""


@pytest.mark.parametrize("words", VALID.strip().splitlines())
def test_nothing_is_wrong_with_what_the_parser_takes(options, words):
    assert wrong_entry(options, shlex.split(words), linked=["model.num_classes"]) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--model.masker", "lit_ssl.text.SpanMasker", "--model.masker.sampling=ceil"],
        ["--model.masker=lit_ssl.text.corrupt", "--model.rate_schedule=math.sqrt"],
        ["--model.masker={class_path: lit_ssl.text.PMIMasker, init_args: {rate: 0.4}}"],
    ],
)
def test_nothing_is_wrong_with_what_stands_for_a_function(options, words):
    recipe = ["--config", str(packaged_config("vl/digit_scenes.yaml"))]
    assert wrong_entry(options, [*recipe, *words], linked=["model.num_classes"]) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.masker.rat=0.2", "model.masker: UniformMasker has no option 'rat'. Did you mean"),
        ("--model.masker.rate=x", "model.masker.rate: expected float, got 'x'."),
        (
            "--model.masker=lit_ssl.text.UniformMaskr",
            "lit_ssl.text has no class or function 'UniformMaskr'. Did you mean UniformMasker?",
        ),
        (
            "--data VLPretrainDataModule --data.sources=PairList",
            "Write a list, as [{class_path: PairList}], or --data.sources+=PairList",
        ),
        (
            "--model.masker.help lit_ssl.text.SpanMasker",
            "has no help here: python -m pydoc",
        ),
        ("--model.masker=nowhere.mask", "model.masker: no module named 'nowhere'."),
        ("--model.masker=3", "model.masker: expected Callable[..., Any], got '3'."),
        # options of a right one are not blamed for what is wrong behind them
        ("--model.masker.rate=0.2 --model.lr=x", "model.lr: expected float, got 'x'."),
        (
            "--model.rate_schedule=lit_ssl.text.LinearRate --model.rate_schedule.start=0.6",
            "model.rate_schedule: LinearRate needs end.",
        ),
    ],
)
def test_what_stands_for_a_function(options, words, message):
    recipe = ["--config", str(packaged_config("vl/digit_scenes.yaml"))]
    line = wrong_entry(options, [*recipe, *words.split()], linked=["model.num_classes"])
    assert message in line


def test_module_with_a_syntax_error(lit_ssl, workdir, monkeypatch):
    monkeypatch.syspath_prepend(workdir)
    (workdir / "half_written.py").write_text("class X(\n")
    result = lit_ssl(*BASE, "--model", "half_written.X")
    check(result, "model: half_written.X cannot be imported: SyntaxError: ")
