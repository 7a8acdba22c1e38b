"""Every reader gives values of the right form or says in one line what is wrong with a file."""

from __future__ import annotations

import random
import re
import shutil
import signal
import sys
import warnings
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutated_files
import reader_table
import readers_of_captions  # noqa: F401 -- fills the table
import readers_of_images  # noqa: F401
import readers_of_runs  # noqa: F401
import readers_of_tables  # noqa: F401

from lit_ssl.errors import InputError

SEED = 13
LONGEST_LINE = 3000  # characters of a message
MOST_MEMORY = 200  # MB above what there was before
HANGS = 20  # seconds, of a reader that takes milliseconds


@pytest.fixture(autouse=True)
def _alarm():
    def hang(*_):
        raise AssertionError("the reader hangs")

    before = signal.signal(signal.SIGALRM, hang)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def peak(reset=False):
    """Highest resident memory of this process in MB, since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def outcome(read, note):
    """What the one line says; None where the file was read."""
    signal.alarm(HANGS)
    try:
        read()
    except InputError as error:
        return str(error)
    except Exception as error:
        error.add_note(note)
        raise
    finally:
        signal.alarm(0)
    return None


def check(name, folder, cases):
    one = reader_table.READERS[name]
    for case in cases:
        place = folder / str(case)
        place.mkdir()
        path = one.write(place)
        rng = random.Random(f"{SEED} {name} {case}")
        path.write_bytes(mutated_files.mutated(path.read_bytes(), rng))
        before = peak(reset=True)
        line = outcome(lambda path=path: one.read(path), f"{name}, case {case}: {path}")
        assert line is None or 0 < len(line.strip()) < LONGEST_LINE + 3 * len(str(path)), line
        assert peak() - before < MOST_MEMORY, (name, case, peak() - before)
        shutil.rmtree(place)


@pytest.mark.parametrize("name", sorted(reader_table.READERS))
def test_a_damaged_file_gives_values_or_one_line(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = tmp_path / "whole"
        whole.mkdir()
        reader_table.is_sound(name, whole)
        check(name, tmp_path, range(6 // reader_table.READERS[name].cost))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(reader_table.READERS))
def test_hundreds_of_damages_of_each(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(name, tmp_path, range(6, 6 + 500 // reader_table.READERS[name].cost))


def test_damages_are_a_pure_function_of_the_seed():
    content = b'{"a": [1, 2.5], "b": "c"}\n' * 3
    damaged = [mutated_files.mutated(content, random.Random(case)) for case in range(50)]
    assert damaged == [mutated_files.mutated(content, random.Random(case)) for case in range(50)]
    assert len({zlib.crc32(one) for one in damaged}) > 40
