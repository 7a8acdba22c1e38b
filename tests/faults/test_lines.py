"""What is printed of files: one line, for terminals of any encoding, without what they obey."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from lit_ssl.cli.mistakes.one_line import disk_line, one_line
from lit_ssl.errors import InputError


def test_a_line_is_short_and_obeyed_by_no_terminal():
    line = one_line(InputError("no file \x1b[2J\x07 " + "x" * 10**6))
    assert line.startswith(r"no file \x1b[2J\x07 ")
    assert len(line) < 4100


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_is_one_line_at_any_time(number):
    line = disk_line(OSError(number, "No space left on device", "runs/a.ckpt"))
    assert "No space left on device at runs/a.ckpt" in line
    assert "--ckpt_path last" in line
    assert disk_line(OSError(errno.EIO, "bad")) is None
    assert disk_line(ValueError()) is None


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_no_terminal_can_show_are_printed(tmp_path, encoding):
    code = (
        "import sys, lit_ssl.__main__ as m; "
        "m.run_word = lambda words: print('caf\\udce9 \\u2603'); m.main()"
    )
    environment = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, cwd=tmp_path
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.startswith(rb"caf\udce9 ")


def test_who_is_not_logged_in_is_told_in_one_line():
    kind = type("UsageError", (Exception,), {})
    names = {"__name__": "wandb.sdk.wandb_login", "UsageError": kind}
    with pytest.raises(kind) as caught:
        exec("def login():\n raise UsageError('No API key configured.')\nlogin()", names)
    assert one_line(caught.value).startswith("No API key configured. (LIT_SSL_DEBUG=1 shows where)")
    assert one_line(ValueError("No API key configured.")) is None
