import numpy as np
import pytest
from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import cut_to, put_text, text_width, wrapped
from lit_ssl.drawing.sheet import Tile, draw_sheet
from lit_ssl.drawing.thumbnails import GROUND, fitted, shown_as_rgb
from lit_ssl.errors import InputError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def colours(image):
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)}


def test_images_keep_their_aspect_on_a_neutral_ground():
    sheet = draw_sheet([Tile(Image.new("RGB", (200, 100), RED))], columns=5, edge=64)
    pixels = np.asarray(sheet)
    assert ((pixels == RED).all(axis=2)).sum() == 64 * 32
    assert ((pixels == GROUND).all(axis=2)).sum() == 64 * 32


@pytest.mark.parametrize("count", [1, 3, 4])
def test_rows_and_columns(count):
    tiles = [Tile(Image.new("RGB", (64, 64), RED), frame=BLUE)] * count
    sheet = draw_sheet(tiles, columns=3, edge=64)
    pixels = np.asarray(sheet)
    assert ((pixels == RED).all(axis=2)).sum() == count * 64 * 64
    assert ((pixels == BLUE).all(axis=2)).sum() == count * (72 * 72 - 64 * 64)


def test_captions_do_not_touch_the_next_image():
    tiles = [
        Tile(Image.new("RGB", (64, 64), RED), "a name that is far too long for it\nsecond")
    ] * 6
    sheet = draw_sheet(tiles, columns=3, edge=64, title="a title " * 20)
    pixels = np.asarray(sheet)
    assert ((pixels == RED).all(axis=2)).sum() == 6 * 64 * 64
    dark = (pixels.max(axis=2) < 80).any(axis=0)
    assert not dark[-10:].any()  # nothing runs out of the picture


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_images_of_every_mode(mode):
    assert shown_as_rgb(Image.new(mode, (3, 5))).mode == "RGB"
    draw_sheet([Tile(Image.new(mode, (3, 5)))], columns=1)


def test_what_is_transparent_shows_the_ground():
    assert colours(shown_as_rgb(Image.new("RGBA", (2, 2), (9, 9, 9, 0)))) == {GROUND}


def test_wide_greys_are_stretched():
    grey = Image.fromarray(np.array([[100, 1100], [2100, 4100]], dtype=np.uint16))
    assert np.asarray(shown_as_rgb(grey))[..., 0].tolist() == [[0, 64], [128, 255]]


def test_sizes_of_thumbnails():
    assert fitted(Image.new("L", (28, 28)), 128).size == (112, 112)
    assert fitted(Image.new("L", (96, 48)), 128).size == (128, 64)
    assert fitted(Image.new("L", (5000, 1)), 128).size == (128, 1)
    assert fitted(Image.new("L", (1, 1)), 16).size == (16, 16)


def test_text_is_cut_to_a_width():
    cut = cut_to("a long name of a file.jpg", 60)
    assert cut.endswith("…")
    assert text_width(cut) <= 60
    assert cut_to("short", 60) == "short"
    assert cut_to("wide", 1) == "…"
    assert all(
        text_width(line) <= 80 for line in wrapped("some words and averyveryverylongone", 80)
    )
    assert wrapped("two\nlines", 80) == ["two", "lines"]


@pytest.mark.parametrize(
    "text",
    [
        "Käfer",
        "кошка",
        "ἄλφα",
        "猫と犬",
        "قطة",
        "🐈",
        "bad\udcffname",
        "a\x00b\tc\n",
        "",
        "e\u0301",
    ],
)
def test_any_text_is_written(text):
    pen = ImageDraw.Draw(Image.new("RGB", (200, 20), "white"))
    put_text(pen, (0, 0), text, width=100)
    assert text_width(cut_to(text, 30)) <= 30


@pytest.mark.parametrize(("columns", "edge", "count"), [(0, 64, 1), (1, 4, 1), (1, 64, 0)])
def test_wrong_numbers_are_refused(columns, edge, count):
    with pytest.raises(InputError, match="a sheet needs"):
        draw_sheet([Tile(Image.new("L", (8, 8)))] * count, columns, edge)


def test_names_that_differ_at_their_end_still_do():
    name = "a folder with a long name/a photograph of it 1.jpg"
    cut = cut_to(name, 120, keep_end=True)
    assert text_width(cut) <= 120
    assert cut.startswith("a fol")
    assert cut.endswith("1.jpg")
    image = Image.new("RGB", (64, 64), RED)
    sheets = [draw_sheet([Tile(image, name.replace("1", end))], 1) for end in "17"]
    assert sheets[0].tobytes() != sheets[1].tobytes()
