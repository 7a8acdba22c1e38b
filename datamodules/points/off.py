"""Meshes in the Object File Format (OFF): reading them, and points on their surface."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.datamodules.points.clouds import CorruptPointsError
from lit_ssl.numerals import whole_number
from lit_ssl.opening import open_file
from lit_ssl.seeding import Stream, uniform

__all__ = ["Mesh", "points_on_surface", "read_off"]

_Lines = list[tuple[int, str]]  # what is on a line, with its number from 1


class Mesh(NamedTuple):
    """A surface of triangles.

    Attributes:
        vertices: float64 ``[V, 3]``.
        triangles: int64 ``[T, 3]``, rows of ``vertices``.
    """

    vertices: np.ndarray
    triangles: np.ndarray


def read_off(path: str | Path) -> Mesh:
    """Read a mesh in OFF, as text.

    Comments (``#`` to the end of a line) and empty lines may stand anywhere; the counts may stand
    on the line of the word OFF, with or without a space after it (``OFF123 456 0``, as in many
    files of ModelNet40). Polygons are cut into triangles that share their first corner; faces of
    fewer than three corners have no surface and are left out, as is what follows the last face,
    unless it is another face: then the counts are wrong.

    Args:
        path: The file.

    Raises:
        CorruptPointsError: It is no such file; the message says which line is wrong.
    """
    lines = _meaningful_lines(path)
    number, head = lines[0] if lines else (1, "")
    if not head.startswith("OFF"):
        raise _broken(path, number, f"expected OFF, found {head[:30]!r}")
    counts = head.removeprefix("OFF").strip()
    rest = lines[1:]
    if not counts and rest:
        (number, counts), rest = rest[0], rest[1:]
    if not re.fullmatch(r"[0-9]{1,9}\s+[0-9]{1,9}(\s+-?[0-9]+)?", counts):
        wanted = "the numbers of vertices, faces and edges"
        raise _broken(path, number, f"expected {wanted}, found {counts[:30]!r}")
    num_vertices, num_faces = map(int, counts.split()[:2])
    if num_vertices + num_faces > len(rest):
        last = rest[-1][0] if rest else number
        raise _broken(
            path,
            last,
            f"the file ends here, after {len(rest):,} of the {num_vertices:,} vertices and"
            f" {num_faces:,} faces that it says it has, one a line",
        )
    vertices = _read_vertices(path, rest[:num_vertices])
    triangles = _read_faces(path, rest[num_vertices : num_vertices + num_faces], num_vertices)
    if more := rest[num_vertices + num_faces :]:
        _check_end(path, more[0], num_vertices, num_faces)
    return Mesh(vertices, triangles)


def points_on_surface(mesh: Mesh, count: int, key: int) -> np.ndarray:
    """Draw points that are uniform on the surface of a mesh.

    Args:
        mesh: A surface.
        count: Number of points.
        key: The only source of randomness; the first points do not depend on ``count``.

    Returns:
        float64 ``[count, 3]``.

    Raises:
        CorruptPointsError: The mesh has no area.
    """
    a, b, c = (mesh.vertices[mesh.triangles[:, corner]] for corner in range(3))
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite area is refused below
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        total = np.cumsum(areas)
    if not len(total) or not 0 < total[-1] < np.inf:
        raise CorruptPointsError("the mesh has no surface that points could lie on")
    which, along, across = (
        uniform(Stream.MESH_SURFACE, key, number, np.arange(count)) for number in range(3)
    )
    # "right" never picks a triangle without area; rounding must not lead behind the last one.
    last = int(np.flatnonzero(areas)[-1])
    chosen = np.minimum(np.searchsorted(total, which * total[-1], side="right"), last)
    # Uniform on a triangle: Osada et al., "Shape distributions", 2002, section 3.1.
    root, across = np.sqrt(along)[:, None], across[:, None]
    return (1 - root) * a[chosen] + root * (1 - across) * b[chosen] + root * across * c[chosen]


def _meaningful_lines(path: str | Path) -> _Lines:
    try:
        with open_file(path) as file:
            text = file.read().decode("ascii", errors="replace")
    except OSError as error:
        raise CorruptPointsError(f"{path}: {error.strerror or error}") from error
    stripped = (line.partition("#")[0].strip() for line in text.splitlines())
    return [(number, line) for number, line in enumerate(stripped, start=1) if line]


def _read_vertices(path: str | Path, lines: _Lines) -> np.ndarray:
    vertices = _table(lines, 3)
    if lines and len(lines[-1][1].split()) != len(lines[0][1].split()):
        number, line = lines[-1]
        wanted = f"a vertex like the first of the {len(lines):,} that the file says it has"
        raise _broken(path, number, f"expected {wanted}, found {line[:40]!r}")
    if vertices is not None and np.isfinite(vertices).all():
        return vertices
    for number, line in lines:
        if not _are_numbers(line.split()[:3]):
            raise _broken(path, number, f"expected three coordinates, found {line[:40]!r}")
    raise _broken(path, 1, "its vertices cannot be read")


def _table(lines: _Lines, columns: int) -> np.ndarray | None:
    """The first numbers of each line, float64 ``[n, columns]``; None where they are no numbers."""
    if not lines:
        return np.empty((0, columns))
    text = [line for _, line in lines]
    try:
        return np.loadtxt(text, comments=None, usecols=range(columns), ndmin=2)
    except ValueError:
        return None


def _are_numbers(words: list[str]) -> bool:
    try:
        return len(words) == 3 and bool(np.isfinite([float(word) for word in words]).all())
    except ValueError:
        return False


def _read_faces(path: str | Path, lines: _Lines, num_vertices: int) -> np.ndarray:
    faces = _table(lines, 4)
    if faces is not None and (faces[:, 0] == 3).all():  # the usual case, at once
        corners = faces[:, 1:]
        if ((corners == np.rint(corners)) & (corners >= 0) & (corners < num_vertices)).all():
            return corners.astype(np.int64)
    fans = (_fan(path, line, num_vertices) for line in lines)
    return np.array(list(itertools.chain.from_iterable(fans)), dtype=np.int64).reshape(-1, 3)


def _fan(path: str | Path, line: tuple[int, str], num_vertices: int) -> list[list[int]]:
    """The triangles of one polygon."""
    number, text = line
    words = text.split()
    size = whole_number(words[0]) or -1
    rows = [-1 if n is None else n for n in map(whole_number, words[1 : size + 1])]
    if size < 1 or len(rows) < size or min(rows) < 0:
        wanted = "the number of corners of a face, then so many numbers of vertices"
        raise _broken(path, number, f"expected {wanted}, found {text[:40]!r}")
    if max(rows) >= num_vertices:
        raise _broken(
            path,
            number,
            f"a face has the vertex {max(rows):,}, but there are {num_vertices:,}, numbered from 0",
        )
    return [[rows[0], rows[i], rows[i + 1]] for i in range(1, len(rows) - 1)]


def _check_end(path: str | Path, line: tuple[int, str], vertices: int, faces: int) -> None:
    """Refuse a face behind the last one: the counts lie, and part of the mesh would be lost."""
    try:
        is_face = bool(_fan(path, line, vertices))
    except CorruptPointsError:
        return
    if is_face:
        raise _broken(path, line[0], f"a face follows the {faces:,} that the file says it has")


def _broken(path: str | Path, line: int, what: str) -> CorruptPointsError:
    return CorruptPointsError(f"{path}, line {line}: {what}")
