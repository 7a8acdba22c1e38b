"""The index of videos is made once, and anew when it has to be."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
pytest.importorskip("av")
from video_files import bar_video, truncated

from lit_ssl.errors import InputError, InputFileNotFoundError, InputRuntimeError
from lit_ssl.video import clip_index, probe_many
from lit_ssl.video.clip_index import build_clip_index
from lit_ssl.video.probe import VideoFacts, probe_video

NAMES = ("a/long.avi", "a/tall.mp4", "ü 1.mkv")


@pytest.fixture
def root(tmp_path):
    bar_video(tmp_path / "data" / NAMES[0], 30, fps=10)
    bar_video(tmp_path / "data" / NAMES[1], 20, size=(64, 48), rotation=90)
    bar_video(tmp_path / "data" / NAMES[2], 7, codec="libx264")
    return tmp_path / "data"


@pytest.fixture
def probed(monkeypatch):
    """Lists of the files that were looked at."""
    lists = []

    def probe(paths, num_workers):
        lists.append([path.name for path in paths])
        return original(paths, num_workers)

    original = probe_many.probe_videos
    monkeypatch.setattr(clip_index, "probe_videos", probe)
    return lists


def assert_right(index, root):
    assert index.paths == NAMES
    assert index.root == root
    assert index.frames.tolist() == [30, 20, 7]
    assert index.fps.tolist() == [10, 25, 25]
    assert (index.width.tolist(), index.height.tolist()) == ([64, 48, 64], [48, 64, 48])
    assert [c.dtype for c in (index.frames, index.fps, index.width)] == [np.int64, float, np.int64]


def test_an_index_is_made_once(root, tmp_path, probed):
    cache = tmp_path / "new" / "cache"
    for _ in range(2):
        assert_right(build_clip_index(root, NAMES, cache), root)
    assert len(probed) == 1
    assert [file.suffix for file in cache.iterdir()] == [".npz"]


def test_a_moved_data_set_keeps_its_index(root, tmp_path, probed):
    build_clip_index(root, NAMES, tmp_path / "cache")
    moved = root.rename(tmp_path / "moved")
    assert_right(build_clip_index(moved, NAMES, tmp_path / "cache"), moved)
    assert len(probed) == 1


def test_nothing_is_kept_without_a_folder(root, tmp_path, probed):
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        assert_right(build_clip_index(root, list(NAMES)), root)
    assert len(probed) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_another_list_or_a_changed_file_makes_another_index(root, tmp_path, probed):
    cache = tmp_path / "cache"
    build_clip_index(root, NAMES, cache)
    assert build_clip_index(root, NAMES[::-1], cache).frames.tolist() == [7, 20, 30]
    bar_video(root / NAMES[2], 9, codec="libx264")
    assert build_clip_index(root, NAMES, cache).frames.tolist() == [30, 20, 9]
    assert len(probed) == 3


@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_damaged_index_is_made_again_and_says_so(root, tmp_path, probed, share):
    cache = tmp_path / "cache"
    build_clip_index(root, NAMES, cache)
    truncated(next(cache.iterdir()), share)
    with pytest.warns(UserWarning, match=r"npz is damaged and is made again"):
        assert_right(build_clip_index(root, NAMES, cache), root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_clip_index(root, NAMES, cache)
    assert len(probed) == 2


@pytest.mark.parametrize("wrong", ["pickle", "shape", "missing", "names"])
def test_an_index_of_another_form_is_made_again(root, tmp_path, wrong):
    build_clip_index(root, NAMES, tmp_path)
    file = next(tmp_path.glob("*.npz"))
    content = dict(np.load(file))
    if wrong == "pickle":
        content["frames"] = np.array([30, "x", None], dtype=object)
    elif wrong == "shape":
        content["frames"] = content["frames"][:2]
    elif wrong == "missing":
        del content["fps"]
    else:
        content["names"] = content["names"][::-1]
    np.savez(file, **content)
    with pytest.warns(UserWarning, match="is damaged and is made again"):
        assert_right(build_clip_index(root, NAMES, tmp_path), root)


def test_unreadable_videos_have_no_frames_and_are_listed_once(root, tmp_path):
    truncated(root / NAMES[1])
    (root / "a.avi").write_text("not a video")
    names = (*NAMES, "a.avi")
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 of 4 videos in .* cannot be read") as caught:
            index = build_clip_index(root, names, tmp_path / "cache")
        assert len(caught) == 1
        assert index.frames.tolist() == [30, 0, 7, 0]
        listed = Path(str(caught[0].message).split("read: ")[1].split(" lists")[0])
        lines = [line.split("\t") for line in listed.read_text("utf-8").splitlines()]
        assert [line[0] for line in lines] == [NAMES[1], "a.avi"]
        assert lines[1][1] == "invalid data found when processing input"
    with pytest.warns(UserWarning, match=r"read: a/tall.mp4, a.avi$"):
        build_clip_index(root, names)


def test_names_need_not_be_utf_8(root, tmp_path):
    name = os.fsdecode(b"caf\xe9.avi")
    try:
        (root / name).write_bytes(b"not a video")
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    with pytest.warns(UserWarning, match="1 of 2 videos in .* cannot be read"):
        index = build_clip_index(root, (NAMES[0], name), tmp_path / "cache")
    assert index.frames.tolist() == [30, 0]
    (listing,) = (tmp_path / "cache").glob("*_unreadable.txt")
    assert listing.read_bytes().startswith(b"caf\xe9.avi\t")


def test_a_pipe_is_not_waited_for(root):
    os.mkfifo(root / "pipe.mp4")
    with pytest.warns(UserWarning, match="1 of 2 videos in .* cannot be read: pipe.mp4"):
        assert build_clip_index(root, ("pipe.mp4", NAMES[0])).frames.tolist() == [0, 30]
    with pytest.warns(UserWarning, match="1 of 1 videos in .* cannot be read"):
        build_clip_index(root, ("pipe.mp4",), root)


def test_an_index_that_cannot_be_written_is_one_line(root, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"cannot be written to .*file.* set index_dir"):
            build_clip_index(root, NAMES, folder)


def test_files_that_cannot_be_opened_may_be_otherwise_the_next_time(root, tmp_path, monkeypatch):
    def probe(paths, num_workers):
        facts, why = VideoFacts(0, 0.0, 0, 0), "permission denied"
        return [(facts, why), *original(paths[1:], num_workers)]

    def opened(path, *args):
        if path.name == Path(NAMES[0]).name:
            raise PermissionError(13, "Permission denied")
        return open(path, *args)

    original = probe_many.probe_videos
    with monkeypatch.context() as patch:
        patch.setattr(clip_index, "probe_videos", probe)
        patch.setattr(Path, "open", opened)
        with pytest.warns(UserWarning, match="1 of 3 videos in .* cannot be read: a/long.avi"):
            assert build_clip_index(root, NAMES, tmp_path).frames.tolist() == [0, 20, 7]
    assert_right(build_clip_index(root, NAMES, tmp_path), root)


def test_some_videos_of_an_index(root):
    index = build_clip_index(root, NAMES)
    some = index.select(np.array([2, 0]))
    assert some.paths == (NAMES[2], NAMES[0])
    assert some.frames.tolist() == [7, 30]
    assert index.select(index.frames > 10).paths == NAMES[:2]
    assert len(index.select(np.zeros(0, np.int64))) == 0


def test_no_videos_at_all(tmp_path):
    index = build_clip_index(tmp_path, [], tmp_path)
    assert len(index) == 0
    assert index.frames.dtype == np.int64


def test_missing_and_repeated_files_are_refused(root):
    with pytest.raises(InputFileNotFoundError, match=r"1 of 2 videos are not in .*: b.avi"):
        build_clip_index(root, [NAMES[0], "b.avi"])
    with pytest.raises(InputError, match=r"listed twice: a/long.avi"):
        build_clip_index(root, [NAMES[0], NAMES[2], NAMES[0]])


def test_several_processes_give_the_same_in_order(root, monkeypatch):
    monkeypatch.setattr(probe_many, "_IN_THIS_PROCESS", 3)
    paths = [root / name for name in (*NAMES, "missing.avi") * 3]
    answers = probe_many.probe_videos(paths, 2)
    assert [facts for facts, _ in answers] == [probe_video(path) for path in paths]
    assert answers[3][1] == "no such file or directory"


def test_a_file_that_brings_its_process_down_is_unreadable(root, monkeypatch):
    monkeypatch.setattr(probe_many, "_PROBE", ("-c", CRASHING))
    share = probe_many.Share([root / name for name in NAMES], probe_many.Progress(3))
    facts, reasons = zip(*share.run(), strict=True)
    assert [fact.frames for fact in facts] == [30, 0, 7]
    assert facts[1] == VideoFacts(0, 0.0, 0, 0)
    assert "ended the process" in reasons[1]


CRASHING = """
import json, os, signal, sys
from lit_ssl.video.probe import look_at_video
for line in sys.stdin:
    if "tall" in line:
        os.kill(os.getpid(), signal.SIGSEGV)
    facts, why = look_at_video(json.loads(line))
    print(json.dumps([*facts, why]), flush=True)
"""


def test_a_process_that_was_ended_from_outside_is_no_broken_file(root, monkeypatch):
    killed = CRASHING.replace("SIGSEGV", "SIGKILL")
    monkeypatch.setattr(probe_many, "_PROBE", ("-c", killed))
    share = probe_many.Share([root / name for name in NAMES], probe_many.Progress(3))
    with pytest.raises(InputRuntimeError, match=r"status -9 at .*tall.mp4: perhaps memory ran out"):
        share.run()


def test_a_process_that_cannot_start_is_no_broken_file(root, monkeypatch):
    monkeypatch.setattr(probe_many, "_PROBE", ("-c", "import no_such_module"))
    with pytest.raises(InputRuntimeError, match="cannot be probed"):
        probe_many.Share([root / NAMES[0]], probe_many.Progress(1)).run()


def test_what_takes_long_is_said_once(capsys, monkeypatch):
    times = iter([0.0, 1.0, 2.5, 4.0, 5.0])
    monkeypatch.setattr(probe_many, "monotonic", lambda: next(times))
    progress = probe_many.Progress(2000)
    for _ in range(4):
        progress.after((VideoFacts(1, 1.0, 1, 1), ""))
    assert capsys.readouterr().err == "Looking at 2,000 video files once: about 2,498 seconds\n"
