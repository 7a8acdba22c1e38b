"""The newest checkpoint: by version and step, whatever the clocks say, and whole."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from lit_ssl.checkpoints import newest
from lit_ssl.checkpoints.newest import newest_checkpoint, refuse_damaged, whole_before
from lit_ssl.checkpoints.whole import save_whole
from lit_ssl.errors import InputError, InputFileNotFoundError

sys.path.insert(0, str(Path(__file__).parents[1]))
from damages import flip_bit


def write(path, step=None, when=1000):
    """A checkpoint of a step, written at a time."""
    content = {} if step is None else {"epoch": 0, "global_step": step}
    save_whole({**content, "state_dict": {"a": torch.arange(200.0)}}, path)
    os.utime(path, (when, when))
    return path


def found(*folders):
    return newest_checkpoint(folders).path


def test_versions_and_steps_count_not_clocks(tmp_path):
    assert newest_checkpoint([tmp_path, tmp_path / "none"]) == (None, [])
    logs = tmp_path / "lightning_logs"
    write(logs / "version_9/checkpoints/a.ckpt", 900, when=9000)
    small = write(logs / "version_10/checkpoints/b.ckpt", 99, when=8000)
    assert found(tmp_path) == small
    large = write(logs / "version_10/checkpoints/c.ckpt", 100, when=7000)
    assert found(tmp_path) == large  # and "99" is the larger text
    best = write(large.with_name("epoch=3.ckpt"), 300)
    assert found(tmp_path) == best
    last = write(large.with_name("last.ckpt"), 300)
    assert found(tmp_path) == last
    again = write(large.with_name("last-v2.ckpt"), 300)
    write(large.with_name("last-v1.ckpt"), 300, when=9000)
    assert found(tmp_path) == again
    write(tmp_path / "lightning_logs/.lr_find_x.ckpt", 1000, when=9000)
    assert found(tmp_path) == again


def test_a_copied_or_touched_file_does_not_win(tmp_path):
    old = write(tmp_path / "version_0/old.ckpt", 10)
    new = write(tmp_path / "version_0/new.ckpt", 20)
    os.utime(old, (9000, 9000))
    write(tmp_path / "version_0/copy.ckpt", 10, when=9500)
    assert found(tmp_path) == new


def test_places_without_an_order_are_compared_by_their_newest(tmp_path):
    """Of each the newest by step, not the one that was touched."""
    write(tmp_path / "a1b2/checkpoints/step=1.ckpt", 1, when=9000)
    write(tmp_path / "a1b2/checkpoints/step=2.ckpt", 2, when=2000)
    other = write(tmp_path / "c3d4/checkpoints/step=1.ckpt", 1, when=3000)
    assert found(tmp_path) == other


def test_folders_of_shards(tmp_path):
    write(tmp_path / "version_0/a.ckpt", 5)
    shards = tmp_path / "version_1/step=2.ckpt"
    shards.mkdir(parents=True)
    (shards / "__0_0.distcp").touch()
    path, passed = newest_checkpoint([tmp_path])
    assert path == tmp_path / "version_0/a.ckpt"
    assert [(one.path, one.why[:27]) for one in passed] == [
        (shards, "its writing was not finished"[:27])
    ]
    (shards / ".metadata").touch()
    assert found(tmp_path) == found(shards) == shards


def test_the_step_is_read_without_the_tensors(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ckpt", 123_456)
    monkeypatch.setattr(torch, "load", None)
    assert newest._step(path) == 123_456
    write(path, 2**40)
    assert newest._step(path) == 2**40
    assert newest._step(write(tmp_path / "epoch=1-step=77.ckpt")) == 77
    assert newest._step(write(tmp_path / "b.ckpt")) == -1
    os.truncate(path, 900)
    assert newest._step(path) == float("inf")


def test_damaged_files_are_passed_over_with_a_reason(tmp_path):
    good = write(tmp_path / "version_0/a.ckpt", 1)
    flipped = write(tmp_path / "version_0/b.ckpt", 2)
    flip_bit(flipped)
    cut = write(tmp_path / "version_0/last.ckpt", 3)
    os.truncate(cut, 1000)
    empty = tmp_path / "version_1/last.ckpt"
    empty.parent.mkdir()
    empty.touch()
    path, passed = newest_checkpoint([tmp_path])
    assert path == good
    assert [one.path for one in passed] == [empty, cut, flipped]
    assert [one.why[:13] for one in passed] == ["it is empty", "it was cut sh", "it is damaged"]


def test_links_and_closed_folders(tmp_path):
    good = write(tmp_path / "version_0/a.ckpt", 1)
    (tmp_path / "version_0/last.ckpt").symlink_to("a.ckpt")
    assert found(tmp_path) == tmp_path / "version_0/last.ckpt"
    (tmp_path / "version_0/last.ckpt").unlink()
    circle, lost = (tmp_path / f"version_1/{name}.ckpt" for name in ("circle", "lost"))
    circle.parent.mkdir()
    circle.symlink_to(circle)
    lost.symlink_to("gone.ckpt")
    os.mkfifo(tmp_path / "version_1/pipe.ckpt")
    path, passed = newest_checkpoint([tmp_path])
    assert path == good
    assert {one.path.name: one.why for one in passed} == {
        "circle.ckpt": "it cannot be reached (Too many levels of symbolic links)",
        "lost.ckpt": "it is a link that leads nowhere",
        "pipe.ckpt": "it is a pipe",
    }


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    """Root may read everything, so the system's answer is a given one."""
    good = write(tmp_path / "open/a.ckpt", 1)
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    path, passed = newest_checkpoint([tmp_path])
    assert path == good
    assert passed == [(tmp_path / "shut", "it cannot be listed (Permission denied)")]


def test_files_that_are_rotated_meanwhile(tmp_path):
    """Another process writes a new file, then removes the old one, all the time."""
    write(tmp_path / "step=0.ckpt", 0)
    stop = threading.Event()

    def rotate():
        step = 0
        while not stop.is_set():
            step += 1
            write(tmp_path / f"step={step}.ckpt", step)
            (tmp_path / f"step={step - 1}.ckpt").unlink()

    thread = threading.Thread(target=rotate)
    thread.start()
    steps = []
    try:
        for _ in range(60):
            path, passed = newest_checkpoint([tmp_path])
            assert path is not None
            assert passed == []
            steps.append(int(path.stem.partition("=")[2]))
    finally:
        stop.set()
        thread.join()
    assert steps == sorted(steps)


def test_files_that_never_stay(tmp_path, monkeypatch):
    write(tmp_path / "a.ckpt", 1)

    def gone(path):
        raise FileNotFoundError(2, "No such file", str(path))

    monkeypatch.setattr(newest, "damage", gone)
    with pytest.raises(InputFileNotFoundError, match="being exchanged all the time"):
        newest_checkpoint([tmp_path])


def test_the_line_for_a_damaged_file_names_the_one_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in (1, 2, 3, 4):
        write(tmp_path / f"step={step}.ckpt", step)
    flip_bit(tmp_path / "step=3.ckpt")
    flip_bit(tmp_path / "step=2.ckpt")
    line = r"it is damaged: Bad CRC-32 .*\. The newest whole checkpoint before it is step=1\.ckpt$"
    with pytest.raises(InputError, match=line):
        refuse_damaged("step=3.ckpt")
    assert whole_before("step=4.ckpt") == tmp_path / "step=1.ckpt"
    assert whole_before("step=1.ckpt") is None
    refuse_damaged("step=4.ckpt")
    refuse_damaged("none.ckpt")
