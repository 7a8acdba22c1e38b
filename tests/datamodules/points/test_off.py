"""Meshes in OFF, as they are found, and what is wrong with broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules.points.clouds import CorruptPointsError
from lit_ssl.datamodules.points.off import Mesh, points_on_surface, read_off

SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


@pytest.fixture
def off(tmp_path):
    def write(text):
        path = tmp_path / "shape.off"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "head",
    ["OFF\n4 2 0\n", "OFF4 2 0\n", "OFF 4 2 0\n", "# a chair\nOFF # really\n\n4 2 0 # counts\n",
     "OFF\r\n4 2 5\r\n", "OFF\n4 2\n"],
)  # fmt: skip
def test_headers(off, head):
    mesh = read_off(off(head + SQUARE + "3 0 1 2\n3 0 2 3\n"))
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_comments_empty_lines_colours_and_more_columns(off):
    text = "OFF\n3 1 0\n 0 0 0 9 9 # first\n\n1e0 0 0 9 9\n#\n0 1 -0.5 9 9\n3 0 1 2 255 0 0\n"
    mesh = read_off(off(text + "\n# the end"))
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, -0.5]]
    assert mesh.triangles.tolist() == [[0, 1, 2]]


def test_polygons_become_fans_and_lines_no_surface(off):
    faces = "4 0 1 2 3\n3 1 2 3 0.5 0.5 0.5\n2 0 1\n1 3\n"
    mesh = read_off(off("OFF\n4 4 0\n" + SQUARE + faces))
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected OFF, found ''"),
        ("# only this\n", "line 1: expected OFF"),
        ("PLY\n3 1 0\n", "line 1: expected OFF, found 'PLY'"),
        ("\nCOFF\n", "line 2: expected OFF, found 'COFF'"),
        ("OFF", "line 1: expected the numbers of vertices, faces and edges, found ''"),
        ("OFF\nthree 1 0\n", "line 2: expected the numbers of .*, found 'three 1 0'"),
        ("OFF\n-3 1 0\n", "line 2: expected the numbers"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "line 5: the file ends here, after 3 of the 3 vert"),
        ("OFF\n3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n", "line 4: expected three coord.*, found '1 0'"),
        ("OFF\n3 1 0\n0 0 0\n1 x 0\n0 1 0\n3 0 1 2\n", "line 4: expected three coordinates"),
        ("OFF\n3 1 0\n0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n", "line 4: expected three coordinates"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n#\n0 1 0\n3 0 1 3\n", "line 7: a face has the vertex 3, but"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "line 6: expected the number of corners"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1.5 2\n", "line 6: expected the number of corners"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "line 6: expected the number of corners"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\nx 0 1 2\n", "line 6: expected the number of corners"),
        ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n0 0\n", "line 7: expected the number of"),
        # Counts that lie: a face that would be lost, a face taken for a vertex.
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 2 1\n", "line 7: a face follows the 1"),
        ("OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 2 1\n", "line 6: expected a vertex like"),
    ],
)  # fmt: skip
def test_broken_files_name_the_line(off, text, message):
    path = off(text)
    with pytest.raises(CorruptPointsError, match=message) as caught:
        read_off(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert "\n" not in str(caught.value)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "binary.off").write_bytes(b"\xff\xfe\x00\x01" * 20)
    with pytest.raises(CorruptPointsError, match="line 1: expected OFF"):
        read_off(tmp_path / "binary.off")
    with pytest.raises(CorruptPointsError, match=r"none\.off: No such file"):
        read_off(tmp_path / "none.off")


@pytest.fixture
def two_sizes():
    """A triangle of area 0.5 at z = 0, one without area, and one of area 4.5 at z = 1."""
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 1], [0, 3, 1]]
    return Mesh(np.array(vertices, dtype=float), np.array([[0, 1, 1], [0, 1, 2], [3, 4, 5]]))


def test_points_are_uniform_on_the_surface(two_sizes):
    points = points_on_surface(two_sizes, 20_000, key=4)
    x, y, z = points.T
    assert set(z.round(12).tolist()) == {0, 1}
    assert z.mean() == pytest.approx(0.9, abs=0.01)  # in proportion to the areas
    side = 1 + 2 * z
    assert ((x >= -1e-12) & (y >= -1e-12) & (x + y <= side + 1e-12)).all()
    # The mean of a triangle, and a quarter of the points in the triangle of half the side.
    assert (x / side).mean() == pytest.approx(1 / 3, abs=0.01)
    assert (y / side).mean() == pytest.approx(1 / 3, abs=0.01)
    for corner in (x + y < side / 2, x > side / 2, y > side / 2):
        assert corner.mean() == pytest.approx(1 / 4, abs=0.015)


def test_points_are_a_function_of_the_key(two_sizes):
    first = points_on_surface(two_sizes, 50, key=4)
    assert (points_on_surface(two_sizes, 20, key=4) == first[:20]).all()
    assert not (points_on_surface(two_sizes, 50, key=5)[:, :2] == first[:, :2]).any()


@pytest.mark.parametrize("triangles", [[], [[0, 1, 1]]])
def test_no_surface(two_sizes, triangles):
    mesh = Mesh(two_sizes.vertices, np.array(triangles, dtype=np.int64).reshape(-1, 3))
    with pytest.raises(CorruptPointsError, match="no surface"):
        points_on_surface(mesh, 5, key=0)


def test_what_is_no_face_may_follow_the_last_one(off):
    text = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\nmade by hand\n3 0 1 7\n"
    assert len(read_off(off(text)).triangles) == 1


def test_an_area_beyond_float64_is_no_surface(two_sizes, recwarn):
    with pytest.raises(CorruptPointsError, match="no surface"):
        points_on_surface(two_sizes._replace(vertices=two_sizes.vertices * 1e300), 5, key=0)
    assert not recwarn.list
