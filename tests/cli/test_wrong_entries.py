"""A wrong entry: exit status 2 and one line that names it and the nearest valid one."""

from __future__ import annotations

from importlib import import_module

import pytest

BASE = ["fit", "--config", "recipe.yaml"]

# What is typed after BASE; below it, what the line says.
TYPED = """
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
    check(lit_ssl(*BASE, *words.split()), message)


@pytest.mark.parametrize(("text", "message"), pairs(IN_A_FILE))
def test_in_a_file(lit_ssl, workdir, text, message):
    (workdir / "wrong.yaml").write_text(text)
    check(lit_ssl(*BASE, "--config", "wrong.yaml"), message)


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
