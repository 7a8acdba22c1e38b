"""Files of weights: written whole or not at all, and no damage is taken for weights."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint

from lit_ssl.checkpoints import whole
from lit_ssl.checkpoints.files import read_file
from lit_ssl.checkpoints.newest import refuse_damaged
from lit_ssl.checkpoints.whole import damage, save_whole
from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.parts import remove_leftovers
from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO

sys.path.insert(0, str(Path(__file__).parents[1]))
from damages import KINDS, damaged, flip_bit

CONTENT = {
    "epoch": 1,
    "global_step": 7,
    "state_dict": {"a": torch.arange(300.0), "b": torch.arange(40).reshape(8, 5)},
    "rates": [0.1, 0.2],
}


def same(one, two):
    """Whether two contents have the same values, bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two) and one.dtype == two.dtype
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(
            same(one[key], two[key]) for key in one
        )  # fmt: skip
    return type(one) is type(two) and one == two


@pytest.fixture
def path(tmp_path):
    save_whole(CONTENT, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_the_file_is_that_of_lightning(path, tmp_path):
    """Byte for byte, so that it loads wherever a checkpoint of Lightning does."""
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    TorchCheckpointIO().save_checkpoint(CONTENT, tmp_path / "theirs.ckpt")
    assert path.read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    assert same(torch.load(path, weights_only=True), CONTENT)
    assert damage(path) is None
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "theirs.ckpt"]


def refused(path):
    """How often a file is refused, of two ways to read it; each other time its values are right."""
    doors, count = [WholeCheckpointIO().load_checkpoint, read_file], 0
    for door in doors:
        try:
            found = door(path)
        except InputError:
            count += 1
        else:
            assert same(found, CONTENT)
    return count


def test_no_damage_is_taken_for_weights(path, tmp_path):
    """Of 600 damaged files each is refused, or has the very same values."""
    content = path.read_bytes()
    counts = dict.fromkeys(KINDS, 0)
    for seed in range(600):
        file = tmp_path / f"{seed}.ckpt"
        file.write_bytes(damaged(content, seed))
        counts[KINDS[seed % len(KINDS)]] += refused(file)
        file.unlink()
    assert counts["cut"] == 240
    assert counts["grow"] == 0
    assert sum(counts.values()) > 600


def test_no_bit_of_the_tables_changes_values(path, tmp_path):
    """Two programs read them: Python's for the checksums, and torch's."""
    content = path.read_bytes()
    tables = content.index(b"PK\x01\x02")
    starts = [n for n in range(tables) if content.startswith(b"PK\x03\x04", n)]
    places = [*(n + k for n in starts for k in range(48)), *range(tables, len(content))]
    file = tmp_path / "b.ckpt"
    for number, place in enumerate(places):
        for bit in (number % 4, 4 + number % 4):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            file.unlink(missing_ok=True)
            file.write_bytes(changed)
            refused(file)
    flag = content.index(b"archive/data/0", tables) - 8  # by which a folder is told
    for place, bit in ((flag, 16), (tables + 10, 8)):
        changed = bytearray(content)
        changed[place] ^= bit
        file.unlink()
        file.write_bytes(changed)
        assert refused(file) == 2


def test_one_file_behind_another(path, tmp_path):
    """Python's reader of archives finds the second file, torch the first, where they are alike."""
    other = {**CONTENT, "state_dict": {k: v + 1 for k, v in CONTENT["state_dict"].items()}}
    save_whole(other, tmp_path / "b.ckpt")
    both = tmp_path / "both.ckpt"
    for before in (path.read_bytes(), b"PK\x03\x04", b"\x80\x02"):
        both.write_bytes(before + (tmp_path / "b.ckpt").read_bytes())
        assert "stands before" in damage(both)


def test_every_bit_of_the_values_counts(path):
    """All bits of the pickle and of a tensor's record, one after the other."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = [one for one in archive.infolist() if one.filename.endswith(("data.pkl", "/1"))]
    assert len(records) == 2
    for record in records:
        with zipfile.ZipFile(path) as archive, archive.open(record) as opened:
            start = content.index(opened.read())
        for byte in range(start, start + record.file_size, 7):
            changed = bytearray(content)
            changed[byte] ^= 1 << byte % 8
            path.write_bytes(changed)
            assert "Bad CRC-32" in damage(path), byte


def test_a_file_is_read_once(path, monkeypatch):
    read = []
    monkeypatch.setattr(whole, "_of_archive", lambda file, path: read.append(path))
    for _ in range(3):
        damage(path)
    assert read == [path]
    flip_bit(path)
    damage(path)
    assert len(read) == 2


def test_what_cannot_be_verified(path, tmp_path):
    torch.save(CONTENT, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert damage(tmp_path / "old.pt") is None
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, tmp_path / "none.pt")
        save_whole(CONTENT, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.warns(UserWarning, match=r"none\.pt was written without checksums"):
        assert damage(tmp_path / "none.pt") is None
    flip_bit(path)
    assert "Bad CRC-32" in damage(path)


def test_other_files(tmp_path):
    save_file({"a": torch.arange(300.0)}, tmp_path / "a.safetensors")
    assert damage(tmp_path / "a.safetensors") is None
    os.truncate(tmp_path / "a.safetensors", 700)
    assert "no file of safetensors" in damage(tmp_path / "a.safetensors")
    (tmp_path / "b.pt").write_text("no weights")
    assert damage(tmp_path / "b.pt") == "it was not written by torch.save"
    (tmp_path / "c.pt").touch()
    assert damage(tmp_path / "c.pt") == "it is empty"
    with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    assert damage(tmp_path / "d.pt") == "it was not written by torch.save, which compresses nothing"
    shards = tmp_path / "shards.ckpt"
    shards.mkdir()
    assert damage(shards) == "it is an empty folder"
    (shards / "__0_0.distcp").touch()
    assert damage(shards).startswith("its writing was not finished")
    (shards / ".metadata").touch()
    assert damage(shards) == "its .metadata is empty"
    with pytest.raises(FileNotFoundError):
        damage(tmp_path / "none")


class Reduced:
    def __init__(self, function, *args):
        self.called = function, args

    def __reduce__(self):
        return self.called


@pytest.mark.filterwarnings("ignore")
def test_the_table_of_a_sharded_checkpoint_runs_nothing(tmp_path):
    module = torch.nn.Linear(2, 2)
    folder = tmp_path / "a.ckpt"
    content = {"state_dict": module.state_dict(), "epoch": 1, "lists": [OrderedDict(a=0.5)]}
    checkpoint.save(content, checkpoint_id=folder)
    assert damage(folder) is None
    whole_table = (folder / ".metadata").read_bytes()
    entered = tmp_path / "entered"
    for function, args in (
        (open, (str(entered), "w")),
        (checkpoint.filesystem.FileSystem().create_stream, ()),
        (eval, (f"open({str(entered)!r}, 'w')",)),
        (torch.load, (str(entered),)),
        (checkpoint.filesystem.pickle.loads, (b"",)),
    ):
        (folder / ".metadata").write_bytes(pickle.dumps(Reduced(function, *args)))
        assert "names code" in damage(folder)
        with pytest.raises(InputError, match="none is run"):
            refuse_damaged(folder)
    (folder / ".metadata").write_bytes(whole_table[: len(whole_table) // 2])
    assert "is damaged" in damage(folder)
    assert not entered.exists()


# writing

KILLED = """
import os, signal, sys, torch
from lit_ssl.checkpoints import whole

class Killing(whole._Target):
    def write(self, content):
        global left
        if len(content) > left:
            self._file.write(bytes(content)[:left])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        left -= len(content)
        return super().write(content)

whole._Target = Killing
for left in map(int, sys.argv[2:]):
    if os.fork() == 0:
        whole.save_whole({"global_step": 9, "a": torch.ones(20_000)}, sys.argv[1])
        os._exit(0)
    print(os.WTERMSIG(os.wait()[1]))
"""


def test_a_kill_leaves_the_file_before(path):
    """At any byte; what is left of the new file is removed by the next run."""
    before = path.read_bytes()
    places = ["0", "100", "5000", "60000", "81000"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, *places], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(places)
    assert path.read_bytes() == before
    left = [file for file in os.listdir(path.parent) if file.endswith(".part")]
    assert len(left) == len(places)
    assert sorted(file.name for file in remove_leftovers(path.parent)) == sorted(left)
    assert os.listdir(path.parent) == [path.name]


def test_only_leftovers_of_the_dead_are_removed(tmp_path):
    others = ".b.ckpt.17-" + "0" * 16 + ".part"  # of another machine, or before a restart
    before = ".b.ckpt.17-0123abcd.part"  # as files were called once
    for name in (others, before, ".person.part", "x.1-0123abcd.part"):
        (tmp_path / name).touch()
    seen = []

    def write(file):
        seen.append(remove_leftovers(tmp_path))
        seen.append(os.listdir(tmp_path))
        file.write("text")

    write_file(tmp_path / "a.txt", write)
    assert seen[0] == []
    assert len(seen[1]) == 5
    for name in (others, before):
        os.utime(tmp_path / name, (1000, 1000))
    assert sorted(p.name for p in remove_leftovers(tmp_path)) == sorted([others, before])
    assert remove_leftovers(tmp_path / "none") == []


def test_a_full_disk_leaves_the_file_before(path, monkeypatch):
    """The error is the system's, not torch's of a position in the file."""
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            save_whole({"a": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]

    def fails(number):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        save_whole({"a": torch.ones(10)}, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_nothing_goes_from_disk_to_disk(path, tmp_path, monkeypatch):
    """As where TMPDIR is on another disk, on which a rename does not work."""
    renamed = []
    replace = os.replace

    def on_one_disk(source, target):
        renamed.append((Path(source).parent, Path(target).parent))
        replace(source, target)

    monkeypatch.setenv("TMPDIR", "/dev/shm")
    monkeypatch.setattr(os, "replace", on_one_disk)
    save_whole(CONTENT, path)
    write_file(tmp_path / "a.txt", lambda file: file.write("a"))
    assert renamed == [(tmp_path, tmp_path)] * 2
