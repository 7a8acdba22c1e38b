import numpy as np
import pytest
from PIL import Image

from lit_ssl.drawing.palette import MOST_CLASSES, OTHER, class_colour, heat_colours, marker
from lit_ssl.drawing.scatter import THUMBNAIL, draw_map, rows_apart
from lit_ssl.errors import InputError


def cloud(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2)) * [3, 1]


def has(picture, colour, close=12):
    pixels = np.asarray(picture).astype(int)
    return bool((np.abs(pixels - colour).max(axis=2) < close).any())


def test_every_class_has_its_colour_and_unlabelled_rows_are_grey():
    labels = np.arange(40) % 4 - 1
    picture = draw_map(cloud(40), labels, ["a", "b"], title="a title", axes=("x", "y"))
    for number in range(3):
        # nearly opaque on white
        assert has(picture, 0.88 * np.array(class_colour(number)) + 0.12 * 255)
    assert has(picture, 0.88 * np.array(OTHER) + 0.12 * 255)


@pytest.mark.parametrize("classes", [1, 11, 59, 60, 61, 1000])
def test_any_number_of_classes_has_a_legend_within_the_picture(classes):
    labels = np.arange(2 * classes)[::-1] // 2
    picture = draw_map(cloud(2 * classes), labels)
    pixels = np.asarray(picture)
    assert (pixels[:, -6:] == 255).all()
    assert (pixels[-6:] == 255).all()


def test_marks_of_classes_differ():
    marks = {marker(number, 5.0).tobytes() for number in range(-1, MOST_CLASSES)}
    assert len(marks) == MOST_CLASSES + 1


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((1, 2)),
        np.zeros((3, 2)),
        np.array([[0.0, 0], [0, 1]]),
        np.array([[0.0, 0], [1, 0]]),
        np.array([[1e30, -1e30], [-1e30, 1e30]]),
        np.array([[1e-300, 0], [0, 0]]),
    ],
)
def test_points_in_a_line_or_in_one_place(points):
    assert draw_map(points).size[0] > 800
    assert len(rows_apart(points)) >= 1


def test_thumbnails_do_not_cover_each_other():
    points = cloud(300)
    rows = rows_apart(points, seed=3)
    assert np.array_equal(rows, rows_apart(points, seed=3))
    assert 10 < len(rows) < 300
    red = Image.new("RGB", (80, 80), (250, 0, 0))
    picture = draw_map(points, thumbnails=dict.fromkeys(rows.tolist(), red))
    pixels = np.asarray(picture)
    assert (pixels == (250, 0, 0)).all(axis=2).sum() == len(rows) * (THUMBNAIL - 4) ** 2


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.zeros((4, 3)), np.array([[0, np.nan]])])
def test_what_is_no_map_is_refused(points):
    with pytest.raises(InputError, match="a map needs"):
        draw_map(points)


def test_heat_grows_lighter():
    colours = heat_colours(np.linspace(0, 1, 50))
    light = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()


def test_names_of_classes_cover_no_lone_point():
    points = np.array([[0, 0], [1, 0], [0.5, 1], [0.2, 0.7]])
    names = ["a long name of a class"] * 4
    with_names = np.asarray(draw_map(points, np.arange(4), names)).astype(int)
    without = np.asarray(draw_map(points, np.arange(4), [""] * 4)).astype(int)
    # What is coloured, on the map alone: the legend stands to the right.
    coloured = [np.ptp(image[:, :872], axis=2) > 20 for image in (with_names, without)]
    assert coloured[0].sum() > 200
    assert (coloured[0] == coloured[1]).all()
