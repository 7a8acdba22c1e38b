"""Readers by name, and whether all give the same frames."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("av")
from odd_videos import copied, hidden_start, open_gop, packed
from video_files import bar_number, bar_video

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.video.frames import UnreadableVideo, fitted_size, upright
from lit_ssl.video.pyav_reader import PyAVReader
from lit_ssl.video.readers import open_reader


def torchcodec_missing():
    try:
        open_reader("torchcodec")
    except InputImportError as error:
        return str(error.__cause__).strip().partition("\n")[0]
    return ""


needs_torchcodec = pytest.mark.skipif(bool(torchcodec_missing()), reason=torchcodec_missing())
X264 = {"codec": "libx264", "bframes": 2}


def test_pyav_is_the_default():
    assert (
        type(open_reader()) is type(open_reader("auto")) is type(open_reader("pyav")) is PyAVReader
    )
    with pytest.raises(InputError, match="reader must be 'auto', 'pyav' or 'torchcodec'"):
        open_reader("decord")


def test_without_torchcodec_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(InputImportError, match=r"torchcodec is missing.*lit-ssl\[torchcodec\]"):
        open_reader("torchcodec")


def test_torchcodec_without_ffmpeg_is_found_out_at_the_start(monkeypatch):
    def decoder(source):
        raise RuntimeError("Could not load libtorchcodec")

    module = types.SimpleNamespace(VideoDecoder=decoder)
    monkeypatch.setitem(sys.modules, "torchcodec", types.SimpleNamespace(decoders=module))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    with pytest.raises(InputImportError, match=r"FFmpeg is missing.*or take reader: pyav"):
        open_reader("torchcodec")


@needs_torchcodec
@pytest.mark.parametrize(
    "name", ["a.avi", "b.mp4", "v.mp4", "turned.mp4", "open.mp4", "hidden.mp4"]
)
def test_torchcodec_gives_the_same_frames(tmp_path, name):
    path = tmp_path / name
    if name == "open.mp4":
        open_gop(path)
    elif name == "hidden.mp4":
        hidden_start(path)
    else:
        options = {"a": {}, "b": X264, "v": {**X264, "variable": True}, "turned": {"rotation": 90}}
        bar_video(path, 48, **options[path.stem])
    reader = pickle.loads(pickle.dumps(open_reader("torchcodec")))
    wanted = np.array([30, 2, 2, 17, 41])
    for shorter in (None, 24, 100):
        one, other = (r.read(path, wanted, shorter) for r in (reader, PyAVReader()))
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert [bar_number(f) for f in one] == [bar_number(f) for f in other]
        assert np.abs(one.astype(int) - other).mean() < 3
    with pytest.raises(UnreadableVideo, match=r"has 4[38] frames, and frame 48 was asked for"):
        reader.read(path, np.array([48]))


@needs_torchcodec
def test_what_torchcodec_would_number_otherwise_pyav_reads(tmp_path):
    open_gop(tmp_path / "whole.mp4")
    files = [
        copied(tmp_path / "whole.mp4", tmp_path / "cut.mkv", first=4),
        bar_video(tmp_path / "untimed.avi", 30, **X264),
        bar_video(tmp_path / "stream.h264", 30, **X264),
        packed(tmp_path / "packed.avi"),
    ]
    reader = open_reader("torchcodec")
    expected = [PyAVReader().read(path, np.arange(20)) for path in files]
    with pytest.warns(UserWarning, match=r"torchcodec cannot read .*PyAV reads it") as caught:
        found = [reader.read(path, np.arange(20)) for path in files]
    np.testing.assert_array_equal(found, expected)
    assert len(caught) == 1


@needs_torchcodec
def test_torchcodec_names_unreadable_files(tmp_path):
    (tmp_path / "x.avi").write_text("no video")
    with pytest.raises(UnreadableVideo, match=r"x.avi cannot be read"):
        open_reader("torchcodec").read(tmp_path / "x.avi", np.array([0]))


def test_sizes_round_the_longer_side_down():
    assert fitted_size(240, 320, 64) == (64, 85)
    assert fitted_size(320, 240, 64) == (85, 64)
    assert fitted_size(50, 50, 7) == (7, 7)
    assert fitted_size(48, 64, None) == (48, 64)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_the_display_matrix_puts_frames_upright(quarters, mirrored):
    """Each pixel goes where the matrix takes its place."""
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), quarters)  # of rows (x, y)
    turn = turn @ np.diag([-1 if mirrored else 1, 1])
    (a, b), (c, d) = (turn * 65536).tolist()
    stored = np.arange(2 * 3).reshape(1, 2, 3, 1).repeat(3, axis=-1)
    shown = upright(stored, np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32))
    places = np.array([(x, y) for y in range(2) for x in range(3)]) @ turn
    places -= places.min(axis=0)
    assert shown.shape[1:3] == tuple(places.max(axis=0)[::-1] + 1)
    assert [shown[0, y, x, 0] for x, y in places] == list(range(6))
