"""Which files are videos."""

from __future__ import annotations

import pytest

from lit_ssl.errors import InputError
from lit_ssl.video.listing import find_videos, read_video_list


def test_videos_of_a_folder(tmp_path):
    for name in ("b/two.MP4", "a.avi", "b/c/three.webm", "b/._two.mp4", ".trash/x.avi", "b/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "b" / "c")
    found = find_videos(tmp_path)
    assert found[0] == "a.avi"
    assert "b/two.MP4" in found
    assert sum("three" in name for name in found) == 1
    assert len(found) == 3
    with pytest.raises(InputError, match="no videos"):
        find_videos(tmp_path / "a.avi")


def test_lists(tmp_path):
    for name in ("a.avi", "a b.avi", "a 1"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfa b.avi 3\r\n./a.avi\r\na 1\r\nb.avi 2\r\na.avi 0\r\n"
    )
    found, missing = read_video_list(tmp_path / "list.txt", tmp_path)
    assert found == ["a b.avi", "a.avi", "a 1"]
    assert missing == ["b.avi 2"]
