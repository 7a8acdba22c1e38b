"""A folder of real photographs in class folders, of the pictures that come with scikit-image and
scikit-learn: nothing is fetched.

Each photograph is cut into tiles that do not overlap, and is a class: "which photograph is this
tile from". Files have the sizes, the formats and the modes (colour and grey) of a real folder.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

# class -> the file, and the package that holds it
PHOTOGRAPHS = {
    "astronaut": ("skimage", "astronaut.png"),
    "bricks": ("skimage", "brick.png"),
    "cat": ("skimage", "chelsea.png"),
    "coffee": ("skimage", "coffee.png"),
    "coins": ("skimage", "coins.png"),
    "dahlia": ("sklearn", "flower.jpg"),
    "galaxies": ("skimage", "hubble_deep_field.jpg"),
    "grass": ("skimage", "grass.png"),
    "gravel": ("skimage", "gravel.png"),
    "motorcycle": ("skimage", "motorcycle_left.png"),
    "temple": ("sklearn", "china.jpg"),
    "tissue": ("skimage", "ihc.png"),
}
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def lay_photographs(folder, per_class=24, classes=tuple(PHOTOGRAPHS)):
    """Write `folder/CLASS/NN.jpg` (of some classes: PNG); return the folder, a Path.

    Args:
        folder: Where the class folders go; it is made.
        per_class: Tiles of each photograph, 1 to 60 or so: the more, the smaller they are.
        classes: Which photographs, of `PHOTOGRAPHS`.
    """
    folder = Path(folder)
    for name in classes:
        package, file = PHOTOGRAPHS[name]
        with Image.open(_folder_of(package) / file) as photograph:
            tiles = _tiles(photograph, per_class)
        (folder / name).mkdir(parents=True, exist_ok=True)
        suffix = "png" if name in ("cat", "coins") else "jpg"
        for number, tile in enumerate(tiles):
            tile.save(folder / name / f"{number:02}.{suffix}", quality=90)
    return folder


def _folder_of(package):
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"needs the photographs of {package}")
    return Path(spec.origin).parent / _FOLDERS[package]


def _tiles(photograph, count):
    """Cut a picture into a grid of nearly square tiles; the first `count`, spread over it."""
    width, height = photograph.size
    rows = max(1, round(math.sqrt(count * height / width)))
    columns = math.ceil(count / rows)
    boxes = [
        (
            width * column // columns,
            height * row // rows,
            width * (column + 1) // columns,
            height * (row + 1) // rows,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    chosen = [boxes[len(boxes) * number // count] for number in range(count)]
    return [photograph.crop(box) for box in chosen]
