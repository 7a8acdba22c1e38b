"""Words that need no training framework: configs, methods, --version, --help."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lit_ssl as package
from lit_ssl.cli import recipes as configs


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A folder that stands in for the packaged recipes."""
    root = tmp_path / "packaged"
    (root / "msn").mkdir(parents=True)
    (root / "msn" / "mnist5k.yaml").write_text(
        "# MSN on 5,000 digits\n# more\nmodel:\n  # a ViT\n  class_path: lit_ssl.methods.MSN\n"
    )
    (root / "msn" / "plain.yaml").write_text("trainer: {max_epochs: 1}\n# late\n")
    monkeypatch.setattr(configs, "_root", lambda: root)
    return root


def test_configs_lists_names_with_their_first_comment(packaged, lit_ssl):
    expected = "msn/mnist5k.yaml  MSN on 5,000 digits\nmsn/plain.yaml\n"
    assert lit_ssl("configs").out == expected
    assert lit_ssl("configs", "list").out == expected


@pytest.mark.parametrize("name", ["msn/mnist5k", "msn/mnist5k.yaml"])
def test_configs_show_prints_the_file(packaged, lit_ssl, name):
    assert lit_ssl("configs", "show", name).out == (packaged / "msn/mnist5k.yaml").read_text()


def test_configs_copy_to_folder_to_file_and_never_over_a_file(packaged, lit_ssl, workdir):
    assert lit_ssl("configs", "copy", "msn/mnist5k").out.strip() == "mnist5k.yaml"
    assert lit_ssl("configs", "copy", "msn/mnist5k", "new/mine.yaml").code == 0
    text = (packaged / "msn/mnist5k.yaml").read_text()
    assert (workdir / "mnist5k.yaml").read_text() == text
    assert (workdir / "new/mine.yaml").read_text() == text
    (workdir / "mnist5k.yaml").write_text("mine")
    result = lit_ssl("configs", "copy", "msn/mnist5k")
    assert (result.code, (workdir / "mnist5k.yaml").read_text()) == (2, "mine")
    assert result.err.startswith("error: mnist5k.yaml exists")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["configs", "show", "msn/mnist"], "no packaged config 'msn/mnist'. Did you mean msn"),
        (["configs", "shwo", "x"], "configs has no command 'shwo'. Did you mean show?"),
        (["configs", "show"], "usage: lit-ssl configs"),
        (["fitt", "--config", "x"], "no command 'fitt'. Did you mean fit?"),
        (["methods", "x"], "`lit-ssl methods` takes no words"),
        (["export", "a.ckpt"], "the following arguments are required: out"),
    ],
)  # fmt: skip
def test_wrong_words_give_one_line(packaged, lit_ssl, words, message):
    result = lit_ssl(*words)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1


def test_methods_come_with_their_summary_and_recipes(packaged, lit_ssl):
    lines = lit_ssl("methods").out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("MSN "))
    assert package.MSN.__doc__.split("\n")[0] in lines[start]
    assert lines[start + 1].strip() == "recipes: msn/mnist5k.yaml"


def test_version_and_help(lit_ssl):
    assert lit_ssl("--version").out == f"lit-ssl {package.__version__}\n"
    shown = lit_ssl("--help")
    assert shown.code == 0
    for word in ("fit", "validate", "test", "predict", "configs", "methods", "export"):
        assert f"\n  {word} " in shown.out
    assert lit_ssl() == (2, "", shown.out)


PREDICTIONS = "file_name,predicted_class,predicted_probability\na.jpg,3,0.9\nb.jpg,4,0.8\n"
ANNOTATIONS = "file_name,label,pose,texture\na.jpg,3,1,0\nb.jpg,5,0,1\n"
SCORE = "score a.csv --annotations own.csv"


@pytest.mark.parametrize(
    "line",
    [
        "configs",
        "configs show msn/mnist5k",
        "methods",
        "--version",
        "--help",
        f"imagenetx {SCORE}",
        f"imagenetx {SCORE} --out tables --no-plot",
        "imagenetx compare a.csv b.csv --annotations own.csv",
        "fitt",
        "--config msn/mnist5k.yaml fit",
    ],
)
def test_cheap_words_import_no_framework(line, tmp_path):
    (tmp_path / "own.csv").write_text(ANNOTATIONS)
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(PREDICTIONS)
    code = (
        f"import sys; sys.argv = ['lit-ssl', *{line.split()!r}]\n"
        "from lit_ssl.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 2 and 'fit' in sys.argv[-1], stop.code\n"
        "heavy = {'torch', 'lightning', 'timm', 'torchvision', 'torchmetrics', 'jsonargparse'}\n"
        "heavy |= {'matplotlib'} | (set() if 'imagenetx' in sys.argv else {'numpy', 'rich'})\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or line[0] == "-" or line == "fitt"
