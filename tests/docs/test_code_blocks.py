"""Every code block of every page is run, as its marker says."""

from __future__ import annotations

import ast
import importlib
import io
import linecache
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from commands import Command, Failed, commands, run
from fences import PAGES, ROOT, Block, blocks, page_blocks
from laid import LAID

# A yaml block with one of these on top is a configuration of `lit-ssl`.
CONFIG_KEYS = {"model", "data", "trainer", "execution", "seed_everything", "ckpt_path"}


class Folder:
    """A working folder that the blocks of a page share, and the names of its Python blocks."""

    def __init__(self, page: str) -> None:
        self.laid: set[str] = set()
        self.module = ModuleType("page_" + Path(page).stem)
        sys.modules[self.module.__name__] = self.module

    def run(self, block: Block) -> None:
        marker = block.marker
        if marker.skip is not None:
            return
        for name in marker.laid:
            if name not in self.laid:
                self.laid.add(name)
                LAID[name](vars(self.module))
        if marker.file is not None:
            Path(marker.file).parent.mkdir(parents=True, exist_ok=True)
            Path(marker.file).write_text(block.text)
            importlib.invalidate_caches()
        match block.language:
            case "bash":
                for command in commands(block.text):
                    self._run_command(block, command)
            case "yaml":
                self._read(block)
            case "python":
                self._execute(block)

    def _run_command(self, block: Block, command: Command) -> None:
        try:
            run(command, block.marker.options, block.marker.check)
        except Failed as error:
            pytest.fail(f"{block.place}: {' '.join(command.words)}\n{error}", pytrace=False)

    def _read(self, block: Block) -> None:
        entries = yaml.safe_load(block.text)
        if not CONFIG_KEYS & set(entries):
            return
        file = Path("block.yaml")
        file.write_text(block.text)
        base = [] if block.marker.onto is None else ["--config", block.marker.onto]
        words = ["lit-ssl", "fit", *base, "--config", str(file)]
        try:
            run(Command(words), "", check=True)
        except Failed as error:
            pytest.fail(f"{block.place}: {error}", pytrace=False)

    def _execute(self, block: Block) -> None:
        # so that classes find their source, as those of a file do, and a traceback its lines
        linecache.cache[block.place] = (
            len(block.text),
            None,
            block.text.splitlines(True),
            block.place,
        )
        tree = ast.parse(block.text, block.place)
        if block.marker.file is not None:
            return  # later blocks import it
        if block.marker.check:
            imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            tree = ast.Module(imports, [])
        out = io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(out):
                exec(compile(tree, block.place, "exec"), vars(self.module))
        except Exception:
            printed = out.getvalue()[-1000:]
            pytest.fail(f"{block.place}:\n{printed}\n{traceback.format_exc()}", pytrace=False)


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """An empty working folder, from which a page's own modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with patch.dict(os.environ):
        for name in ("LIT_SSL_DEBUG", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            os.environ.pop(name, None)
        yield Folder(request.getfixturevalue("page"))
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")) or "page_" in name:
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_language_and_known_markers(page):
    for block in page_blocks(page):
        unknown = set(block.marker.laid) - set(LAID)
        assert not unknown, f"{block.place}: laid.py lays no {unknown}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, folder):
    for block in page_blocks(page):
        if not block.marker.slow:
            folder.run(block)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if "slow" in (ROOT / page).read_text(encoding="utf-8")]
)
def test_slow_blocks_run(page, folder):
    found = page_blocks(page)
    if any(block.marker.slow for block in found):
        for block in found:
            folder.run(block)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nx\n```", "the language is one of"),
        ("```sh\nx\n```", "the language is one of"),
        ("```python\nx", "without an end"),
        ("<!-- run: chek -->\n```python\nx\n```", "no part 'chek'"),
        ("<!-- run: check -->\n\n```python\nx\n```", "no block in the line below"),
        ("text <!-- run: check -->", "a marker is a line"),
        ("<!--run: check -->\n```python\nx\n```", "a marker is a line"),
        ("> ```python\n> x\n> ```", "on a line of its own"),
        ("\t```python\n\tx\n\t```", "on a line of its own"),
        ("- ~~~python\n  x\n  ~~~", "on a line of its own"),
        ("<pre>x</pre>", "between fences"),
        ("Text:\n\n    lit-ssl fit", "not behind four spaces"),
        ("Text:\n\n\tlit-ssl fit", "not behind four spaces"),
        ('<!-- run: cut "a -> b" -->\n```python\nx\n```', "there is no 'a'"),
        ("<!-- run: skip -->\n```python\nx\n```", "no part 'skip'"),
    ],
)
def test_wrong_blocks_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        blocks("page.md", text)


def test_indented_text_of_lists_is_no_block():
    text = "- item\n\n    its second paragraph\n\n    ```python\n    x\n    ```\n"
    assert [block.text for block in blocks("page.md", text)] == ["x\n"]


def test_markers_are_read():
    marker = 'with photos; cut "--a 1; 2"; cut "x -> y"; slow; as a/b.py'
    text = f"<!-- run: {marker} -->\n```python\nx\n```"
    (block,) = blocks("page.md", f"# Page\n\n{text}\n")
    assert (block.line, block.text) == (4, "y\n")
    assert block.marker.laid == ("photos",)
    assert block.marker.options == "--a 1; 2"
    assert block.marker.slow
    assert block.marker.file == "a/b.py"


def test_commands_are_found_behind_what_a_shell_has():
    text = (
        "# nothing\nuntil lit-ssl fit --x 'a b' --auto_resume; do   # said\n"
        "    [ $? -ne 2 ] || exit 2\n"
        "done\nsrun --mpi=none lit-ssl fit \\\n    --y 2 > out.txt\nA=1 lit-ssl test && make lint\n"
    )
    found = list(commands(text))
    assert Command(["lit-ssl", "fit", "--x", "a b", "--auto_resume"]) in found
    assert Command(["lit-ssl", "fit", "--y", "2"], "out.txt") in found
    assert found[-2:] == [Command(["lit-ssl", "test"]), Command(["make", "lint"])]


@pytest.mark.parametrize(
    "line",
    [
        "make no-such-target",
        "pip install 'lit-ssl[no-such-extra]'",
        "python examples/no_such.py",
        "python examples/vl_masking_rates.py --no-such-option",
        "lit-ssl fit --config no/such",
        "lit-ssl fit --config msn/mnist5k.yaml --model.no_such 1",
        "lit-ssl export one.ckpt",
        "lit-ssl no-such-word",
        "unknown-program",
    ],
)
def test_wrong_commands_fail(line):
    (command,) = commands(line)
    with pytest.raises(Failed):
        run(command, "", check=True)
