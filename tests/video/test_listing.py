"""Which files are videos."""

from __future__ import annotations

import os

import pytest

from lit_ssl.errors import InputError
from lit_ssl.video.listing import find_videos, read_video_list


def test_videos_of_a_folder(tmp_path):
    for name in ("b/two.MP4", "a.avi", "b/c/three.webm", "b/._two.mp4", ".trash/x.avi", "b/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "b" / "c")
    (tmp_path / "b" / "c" / "a").mkdir()
    (tmp_path / "b" / "c" / "a" / "across").symlink_to(tmp_path / "b" / "c2")
    (tmp_path / "b" / "c2").mkdir()
    (tmp_path / "b" / "c2" / "back").symlink_to(tmp_path / "b" / "c")
    found = find_videos(tmp_path)
    assert found[0] == "a.avi"
    assert "b/two.MP4" in found
    # as data modules name them, so that a cache has a folder that links to another
    assert "b/c/three.webm" in found
    assert "elsewhere/three.webm" in found
    assert len(found) == len(set(found))
    with pytest.raises(InputError, match="no videos"):
        find_videos(tmp_path / "a.avi")


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    (tmp_path / "a.avi").touch()
    (tmp_path / "closed").mkdir()

    def scandir(folder):
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return original(folder)

    original = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot list the folder .*closed \(Permission denied\)"):
        find_videos(tmp_path)


def test_lists(tmp_path):
    for name in ("a.avi", "a b.avi", "a 1"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfa b.avi 3\r\n./a.avi\r\na 1\r\nb.avi 2\r\na.avi 0\r\n"
    )
    found, missing = read_video_list(tmp_path / "list.txt", tmp_path)
    assert found == ["a b.avi", "a.avi", "a 1"]
    assert missing == ["b.avi 2"]
