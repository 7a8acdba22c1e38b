import numpy as np
import pytest
from PIL import Image

from lit_ssl.drawing.overlay import heat_over
from lit_ssl.drawing.rows import Row, draw_rows
from lit_ssl.drawing.sheet import Tile
from lit_ssl.errors import InputError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def area(picture, colour):
    return int((np.asarray(picture) == colour).all(axis=2).sum())


@pytest.mark.parametrize("lines", [(), ("prototype 1", "a very long line that does not fit", "x")])
@pytest.mark.parametrize("has_head", [True, False])
def test_all_images_are_whole(lines, has_head):
    red, blue = Image.new("RGB", (64, 64), RED), Image.new("RGB", (64, 64), BLUE)
    rows = [
        Row([Tile(red, "two\nlines")] * count, Tile(blue, "head") if has_head else None, lines)
        for count in (3, 1)
    ]
    picture = draw_rows(rows, edge=64, title="a title " * 30, columns=["image", "nearest"])
    assert area(picture, RED) == 4 * 64 * 64
    assert area(picture, BLUE) == (2 * 64 * 64 if has_head else 0)
    assert (np.asarray(picture)[:, -6:] == 255).all()


def test_a_row_without_images():
    draw_rows([Row([], lines=["nothing"])])


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="needs a row"):
        draw_rows([])


def test_patches_are_painted_where_they_are():
    values = np.zeros((2, 4))
    values[1, 3] = 0.5
    for size in ((8, 4), (400, 200)):
        painted = heat_over(Image.new("L", size, 255), values)
        light = np.asarray(painted.convert("L")).astype(int)
        height, width = light.shape
        assert light[height // 2 :, 3 * width // 4 :].min() > 200
        light[height // 2 :, 3 * width // 4 :] = 0
        assert light.max() < 40
    assert heat_over(Image.new("RGB", (8, 8)), np.zeros((2, 2))).mode == "RGB"
    half = heat_over(Image.new("L", (8, 4), 255), values, most=1.0)
    assert 40 < np.asarray(half.convert("L")).max() < 200
    with pytest.raises(InputError, match="need values"):
        heat_over(Image.new("L", (8, 4)), np.zeros(4))
