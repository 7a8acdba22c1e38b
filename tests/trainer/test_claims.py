"""A folder of a run belongs to one living process, however that ends."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest

from lit_ssl.errors import InputError
from lit_ssl.trainer import claims
from lit_ssl.trainer.claims import NAME, FolderLock, holder, in_the_way, last_run_in, new_version


@pytest.fixture
def forked():
    """Runs a function in a process of its own, up to `yield`; it then waits to be killed."""
    running = []

    def start(work):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                os.write(write, b".")
                status = 0
                signal.pause()
            finally:
                os._exit(status)
        os.close(write)
        running.append(child)
        assert os.read(read, 1) == b"."
        os.close(read)
        return child

    def kill(child):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        running.remove(child)

    start.kill = kill
    yield start
    for child in list(running):
        kill(child)


def test_processes_that_start_together_get_folders_of_their_own(tmp_path, forked):
    parent = tmp_path / "lightning_logs"
    go = tmp_path / "go"

    def claim():
        while not go.exists():
            pass
        (tmp_path / f"{os.getpid()}.txt").write_text(str(new_version(parent)))

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                claim()
            finally:
                os._exit(0)
        children.append(child)
    go.touch()
    for child in children:
        os.waitpid(child, 0)
    assert sorted(p.read_text() for p in tmp_path.glob("*.txt")) == ["0", "1", "2"]
    assert sorted(p.name for p in parent.iterdir()) == ["version_0", "version_1", "version_2"]
    assert new_version(parent, 1) == 3


def test_a_lock_is_held_until_its_process_is_killed(tmp_path, forked):
    child = forked(lambda: FolderLock(tmp_path, "theirs"))
    with pytest.raises(InputError, match=f"still going .process {child} on .*wait for its end"):
        FolderLock(tmp_path, "mine")
    assert last_run_in(tmp_path)["run"] == "theirs"  # nothing was written over
    assert holder(tmp_path).startswith(f"process {child} on ")
    forked.kill(child)
    assert holder(tmp_path) is None
    lock = FolderLock(tmp_path, "mine")
    assert last_run_in(tmp_path) | {"host": ""} == {
        "run": "mine", "process": os.getpid(), "host": "", "finished": None,
    }  # fmt: skip
    lock.note(finished=12)
    assert last_run_in(tmp_path)["finished"] == 12
    lock.release()


def test_workers_of_a_killed_process_do_not_keep_its_lock(tmp_path, forked):
    worker = tmp_path / "worker"

    def work():
        FolderLock(tmp_path / "run", "theirs")
        child = os.fork()
        if child == 0:  # as a loader's worker
            signal.pause()
        worker.write_text(str(child))

    forked.kill(forked(work))
    try:
        os.kill(int(worker.read_text()), 0)  # it lives
        FolderLock(tmp_path / "run", "mine").release()
    finally:
        os.kill(int(worker.read_text()), signal.SIGKILL)


def test_nothing_of_an_unused_folder_is_left(tmp_path):
    FolderLock(tmp_path / "a/b", "mine").release()
    assert not (tmp_path / "a/b").exists()
    lock = FolderLock(tmp_path / "a", "mine")
    (tmp_path / "a/log.txt").touch()
    lock.release(keep_note=True)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {NAME, "log.txt"}
    FolderLock(tmp_path / "a", "next").release()  # free again
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"log.txt"}
    FolderLock(tmp_path / "a/c", "mine").release(keep_note=True)
    assert not (tmp_path / "a/c").exists()


def test_a_file_removed_between_opening_and_locking_counts_for_nothing(tmp_path, monkeypatch):
    real, calls = claims._flock, []

    def flock(file):
        real(file)
        calls.append(file)
        if len(calls) == 1:  # the run before has just gone, and its empty folder with it
            os.unlink(tmp_path / NAME)

    monkeypatch.setattr(claims, "_flock", flock)
    lock = FolderLock(tmp_path, "mine")
    assert len(calls) == 2
    assert last_run_in(tmp_path)["run"] == "mine"
    lock.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims, "_flock", flock)
    with pytest.warns(UserWarning, match=f"{tmp_path} has no locks .*no other run"):
        FolderLock(tmp_path, "mine").release()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/run cannot be written"):
        FolderLock(tmp_path / "file/run", "mine")


@pytest.mark.parametrize("text", ["", '{"run": "a', "[1]", "\x00"])
def test_what_a_killed_process_has_half_written_is_nothing(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    assert last_run_in(tmp_path) == {}
    FolderLock(tmp_path, "mine")
    assert json.loads((tmp_path / NAME).read_text())["run"] == "mine"


@pytest.mark.parametrize("thing", ["file", "link"])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_stands_in_the_place_of_the_folder_of_all_runs(tmp_path, thing, depth):
    parent = tmp_path / "run" / "lightning_logs"
    place = [parent, parent.parent][depth]
    place.parent.mkdir(exist_ok=True)
    place.write_text("") if thing == "file" else place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{place} is no folder, and the run needs one there"):
        new_version(parent)
    assert in_the_way(parent) == place


def test_a_link_is_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("a thesis")
    (tmp_path / NAME).symlink_to(precious)
    with pytest.raises(InputError, match="cannot be written"):
        FolderLock(tmp_path, "a")
    assert precious.read_text() == "a thesis"


def test_a_pipe_tells_nothing_of_a_run(tmp_path):
    os.mkfifo(tmp_path / NAME)
    assert last_run_in(tmp_path) == {}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"finished": "x"}', "\0", "[]", ""])
def test_a_damaged_note_tells_nothing(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    assert last_run_in(tmp_path).get("finished") is None
