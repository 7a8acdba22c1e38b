"""Contact sheets show the right frames, whole, beside their captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.errors import InputError
from lit_ssl.video.sheet import contact_sheet, write_png


def plain(count, length, size):
    """uint8 [N, T, 3, H, W]: frame t of video n is of the colour (40 n, t, 7)."""
    videos = torch.zeros(count, length, 3, *size, dtype=torch.uint8)
    videos[:, :, 0] = 40 * torch.arange(count).view(-1, 1, 1, 1)
    videos[:, :, 1] = torch.arange(length).view(-1, 1, 1)
    videos[:, :, 2] = 7
    return videos


def colours(sheet):
    """Colours of the frames in the sheet and how often they come, row by row."""
    pixels = sheet[(sheet[..., 2] == 7) & (sheet[..., 0] != 7)]  # text is grey
    values, counts = np.unique(pixels[:, :2], axis=0, return_counts=True)
    return {(int(a) // 40, int(b)): int(n) for (a, b), n in zip(values, counts, strict=True)}


@pytest.mark.parametrize("size", [(16, 16), (7, 13), (1, 3), (130, 90)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("captions", [True, False])
def test_every_frame_is_there_whole(size, count, captions):
    videos = plain(count, 5, size)
    zoom = -(-64 // max(size))
    sheet = contact_sheet(videos, ["class 1"] * count if captions else ())
    assert sheet.dtype == np.uint8
    pixels = size[0] * size[1] * zoom**2
    assert colours(sheet) == {(n, t): pixels for n in range(count) for t in range(5)}
    assert (sheet[:, [0, -1]] == 255).all()
    assert (sheet[[0, -1]] == 255).all()


def test_time_runs_to_the_right_and_videos_downwards():
    sheet = contact_sheet(plain(3, 4, (20, 20)), zoom=1)
    y, x = np.nonzero(sheet[..., 2] == 7)
    middles = sheet[y.min() + 10 :: 22, x.min() + 10 :: 22]
    assert (middles[:3, :4, 0] // 40 == np.arange(3)[:, None]).all()
    assert (middles[:3, :4, 1] == np.arange(4)).all()


@pytest.mark.parametrize(
    ("length", "most", "shown"),
    [(16, 16, list(range(16))), (48, 4, [0, 16, 31, 47]), (5, 16, [0, 1, 2, 3, 4]), (9, 1, [0])],
)
def test_of_long_videos_even_frames(length, most, shown):
    sheet = contact_sheet(plain(1, length, (8, 8)), max_frames=most)
    assert sorted(t for _, t in colours(sheet)) == shown


def test_captions_are_drawn_beside_their_rows():
    videos = plain(2, 3, (16, 16))
    without = contact_sheet(videos)
    sheet = contact_sheet(videos, ["a", "a very long name of a class that no sheet has room for"])
    margin = sheet.shape[1] - without.shape[1]
    assert 150 < margin <= 210
    dark = (sheet[:, :margin] < 90).all(axis=-1)
    half = sheet.shape[0] // 2 + 7
    assert 0 < dark[:half].sum() < dark[half:].sum()
    assert not dark[:, -1].any()
    tiny = contact_sheet(videos[..., :3, :3], ["up", "down"], zoom=1)
    rows = np.flatnonzero((tiny[:, :20] < 90).all(axis=-1).any(axis=1))
    assert np.diff(rows).max() > 3  # the captions of flat rows do not touch


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        (torch.zeros(1, 2, 3, 4, 4), {}, "must be uint8, 0 to 255, not torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), {}, r"must be \[N, T, 3, H, W\], not \[2, 3"),
        (torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8), {}, r"not \[1, 2, 4, 4, 3\]"),
        (torch.zeros(0, 2, 3, 4, 4, dtype=torch.uint8), {}, r"not \[0, 2, 3, 4, 4\]"),
        (plain(2, 2, (4, 4)), {"captions": ["a"]}, "1 captions for 2 videos"),
        (plain(2, 2, (4, 4)), {"max_frames": 0}, "max_frames must be at least 1, not 0"),
        (plain(2, 2, (4, 4)), {"zoom": 0}, "zoom must be at least 1, not 0"),
    ],
)
def test_mistakes(videos, options, message):
    with pytest.raises(InputError, match=message):
        contact_sheet(videos, **options)


def test_a_sheet_is_written_once(tmp_path):
    sheet = contact_sheet(plain(1, 2, (5, 9)).numpy())
    path = write_png(tmp_path / "new" / "sheet.png", sheet)
    assert (np.array(Image.open(path)) == sheet).all()
    with pytest.raises(InputError, match="is there already"):
        write_png(path, sheet)
    write_png(path, sheet[:9], overwrite=True)
    assert np.array(Image.open(path)).shape[0] == 9
    with pytest.raises(InputError, match="must end in"):
        write_png(tmp_path / "sheet.jpg", sheet)
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
