"""The script that ``lit-ssl completion`` prints, in a real shell."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from lit_ssl.cli import completion
from lit_ssl.cli.words import WORDS

pytest.importorskip("shtab")

ASK = """
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _shtab_lit_ssl
  echo "${COMPREPLY[@]}"
}
complete -p lit-ssl >/dev/null || exit 1
"""


@pytest.fixture(scope="module")
def program():
    """Made once: the parsers of training take seconds."""
    known = {name: word for section in WORDS.values() for name, word in section.items()}
    return completion._program(known)


@pytest.fixture
def script(program, monkeypatch, capsys):
    monkeypatch.setattr(completion, "_program", lambda known: program)

    def make(shell):
        completion.run([shell], {})
        return capsys.readouterr().out

    return make


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash(script, tmp_path):
    (tmp_path / "lit-ssl.bash").write_text(script("bash") + ASK)
    (tmp_path / "mine.yaml").write_text("")
    questions = {
        "fi": {"fit"},
        "fit --conf": {"--config"},
        "fit --config mi": {"mine.yaml"},
        "fit --config msn/mnist5k.": {"msn/mnist5k.yaml"},
        "fit --trainer.max_": {"--trainer.max_epochs", "--trainer.max_steps"},
        "fit --model MS": {"MSN"},
        "fit --config msn/mnist5k.yaml --model.mask_r": {"--model.mask_ratio"},
        "test --data CIFAR10": {"CIFAR10DataModule", "CIFAR100DataModule"},
        "test --ckpt_path mi": {"mine.yaml"},
        "fit --execution.compile b": {"blocks"},
        "configs sh": {"show"},
        "configs show msn/mnist5k.": {"msn/mnist5k.yaml"},
        "export --class": {"--class"},
        "imagenetx score --err": {"--errors"},
        "shard --data.roo": {"--data.root"},
        "shard --outp": {"--output"},
        "completion ba": {"bash"},
    }
    asked = "\n".join(f"ask lit-ssl {words}" for words in questions)
    lines = subprocess.run(
        ["bash", "-c", f"source ./lit-ssl.bash\n{asked}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for (words, expected), line in zip(questions.items(), lines, strict=True):
        assert set(line.split()) >= expected, words


@pytest.mark.parametrize(("shell", "words"), [("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])])
def test_other_shells(script, tmp_path, shell, words):
    text = script(shell)
    for expected in ("trainer.max_epochs", "msn/mnist5k.yaml", "nac-prune"):
        assert expected in text
    if shutil.which(shell):  # its own check of the syntax
        (tmp_path / "script").write_text(text)
        subprocess.run([*words, tmp_path / "script"], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish(script, tmp_path):
    (tmp_path / "script").write_text(script("fish"))
    for words, expected in {"fit --config msn/mnist5k.": "msn/mnist5k.yaml", "fi": "fit"}.items():
        ask = f"source script; complete -C 'lit-ssl {words}'"
        done = subprocess.run(["fish", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
        assert expected in done.stdout.split(), done.stderr


def test_every_word_is_there_with_its_options(program):
    (commands,) = (action for action in program._actions if action.dest == "==SUPPRESS==")
    assert set(commands.choices) == {name for section in WORDS.values() for name in section}
    for name, command in commands.choices.items():
        assert len(command._actions) > 1 or name == "methods", name


def test_wrong_words_and_help(lit_ssl):
    assert "such as `lit-ssl completion bash > FILE`" in lit_ssl("completion", "--help").out
    assert "completion takes the name of a shell. usage" in lit_ssl("completion").err
    assert "Did you mean bash?" in lit_ssl("completion", "bas").err


def test_without_shtab(lit_ssl, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = lit_ssl("completion", "bash")
    assert result.code == 2
    assert (
        result.err == "error: completion needs the package shtab: pip install lit-ssl[completion]\n"
    )
