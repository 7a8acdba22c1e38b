"""ModelNet40 in any of its three releases."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.datamodules.points.clouds import Clouds, CorruptPointsError, FileClouds
from lit_ssl.datamodules.points.modelnet40_files import (
    NAME,
    listed_shapes,
    mesh_classes,
    mesh_files,
    read_clouds,
    read_names,
)
from lit_ssl.datamodules.points.off import points_on_surface, read_off
from lit_ssl.datamodules.points.points_module import PointsModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, check_choice
from lit_ssl.files import layout_error
from lit_ssl.opening import open_file

__all__ = ["ModelNet40DataModule"]

Release = Literal["resampled", "hdf5", "meshes"]

# In the order in which they are taken: by the number of points that are ready to be read.
_FOLDERS: dict[Release, str] = {
    "resampled": "modelnet40_normal_resampled",
    "hdf5": "modelnet40_ply_hdf5_2048",
    "meshes": "ModelNet40",
}
_SIGNS: dict[Release, str] = {
    "resampled": "modelnet40_shape_names.txt",
    "hdf5": "train_files.txt",
    "meshes": "airplane/train",
}
_NUM_CLASSES = 40
_SIZES = {"train": 9843, "test": 2468}


class ModelNet40DataModule(PointsModule):
    """ModelNet40: 9,843 training and 2,468 test shapes of 40 classes, such as airplane and bed.

    Expected: one of the three releases, below ``root`` or as ``root`` itself, as their archives
    unpack:

    - ``ModelNet40/<class>/{train,test}/*.off``: meshes; ``points_per_mesh`` points are drawn on the
      surface of each, uniformly by area, the same ones every time (they depend on class and name of
      the file only). Each reading of a mesh draws them anew, unless ``cache_dir`` keeps them.
    - ``modelnet40_normal_resampled/<class>/<class>_0001.txt`` with ``modelnet40_shape_names.txt``,
      ``modelnet40_train.txt`` and ``modelnet40_test.txt``: 10,000 points of each (x, y, z and
      normals, which are not used).
    - ``modelnet40_ply_hdf5_2048/*.h5`` with ``shape_names.txt``, ``train_files.txt`` and
      ``test_files.txt``: 2,048 points of each; needs h5py (``pip install lit-ssl[points]``).

    There are no official validation shapes: the test shapes stand in unless ``val_size`` holds some
    out. Rotation is about z in the meshes and about y in the other two, the axes that are up there.

    Args:
        root: Folder that holds a release, or is one.
        layout: Which release to read; "auto" takes the first that is there of resampled, hdf5 and
            meshes, and says so where there are several.
        points_per_mesh: Points drawn on each mesh, of which ``num_points`` are chosen.
        cache_dir: Folder for the points of meshes and text files, as arrays, which are read many
            times faster; it takes 25 KB a mesh, 120 KB a text file. None keeps nothing.
        num_points: Points per shape.
        kwargs: Arguments of ``PointsModule``.

    Attributes:
        release: Which release is read, and its folder.

    Raises:
        InputError: A mesh gives fewer points than a cloud has.
    """

    inputs: ClassVar[str] = "shapes"

    def __init__(
        self,
        *,
        root: str,
        layout: Literal["auto", "resampled", "hdf5", "meshes"] = "auto",
        points_per_mesh: int = 2048,
        cache_dir: str | None = None,
        num_points: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_points=num_points, **kwargs)
        check_choice("layout", layout, ("auto", *_FOLDERS))
        if points_per_mesh < num_points:
            raise InputError(
                f"points_per_mesh must be at least num_points = {num_points}, got {points_per_mesh}"
            )
        self.root = Path(root).expanduser()
        self.layout = layout
        self.points_per_mesh = points_per_mesh
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()

    @cached_property
    def release(self) -> tuple[Release, Path]:
        """The release that is read, and its folder.

        Raises:
            InputError: There is none where ``layout`` says.
        """
        wanted = list(_FOLDERS) if self.layout == "auto" else [self.layout]
        found = {name: folder for name in wanted if (folder := self._folder(name)) is not None}
        if not found:
            folders = " or ".join(f"{_FOLDERS[name]}/ ({name})" for name in wanted)
            raise layout_error(NAME, self.root, f"{folders} in {self.root}")
        taken = next(iter(found))
        if len(found) > 1:
            rank_zero_info(
                f"{NAME}: {self.root} has the releases {', '.join(found)}; {taken} is read. Set"
                " layout to read another"
            )
        return taken, found[taken]

    def _folder(self, release: Release) -> Path | None:
        for folder in (self.root / _FOLDERS[release], self.root):
            is_named = folder.name == _FOLDERS[release]
            if folder.is_dir() and (is_named or (folder / _SIGNS[release]).exists()):
                return folder
        return None

    @property
    def up_axis(self) -> int:
        """The axis that is up: z (2) in the meshes, y (1) in the others."""
        return 2 if self.release[0] == "meshes" else 1

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        release, folder = self.release
        if release == "meshes":
            names = mesh_classes(folder)
        else:
            file = "modelnet40_shape_names.txt" if release == "resampled" else "shape_names.txt"
            names = read_names(folder / file)
        if len(names) != _NUM_CLASSES:
            rank_zero_warn(f"{NAME} has {_NUM_CLASSES} classes; {folder} has {len(names)}")
        return names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the official training or test shapes; there is no own validation split."""
        if split == "val":
            return None
        release, folder = self.release
        names = self.class_names
        clouds: Clouds
        if release == "hdf5":
            clouds, labels = read_clouds(folder, split, len(names))
        elif release == "resampled":
            files, labels = listed_shapes(folder, split, names)
            clouds = FileClouds(folder, files, _read_text, self._cache("resampled"))
        else:
            files, labels = mesh_files(folder, split, names)
            cache = self._cache(f"meshes_{self.points_per_mesh}")
            sample = partial(_points_of_mesh, count=self.points_per_mesh)
            clouds = FileClouds(folder, files, sample, cache)
        self._compare(release, split, len(clouds))
        return Rows(clouds, {"label": labels})

    def _compare(self, release: Release, split: Split, found: int) -> None:
        """Say where a split has not the official number of shapes."""
        wanted = _SIZES[split]
        if found == wanted:
            return
        text = f"{NAME}: {found:,} {split} shapes; the official split has {wanted:,}"
        if release == "hdf5" and (split, found) == ("train", 9840):
            rank_zero_info(f"{text}, of which this release lacks three")
        else:
            rank_zero_warn(f"{text}. Results are not comparable with published ones")

    def _cache(self, kind: str) -> Path | None:
        return None if self.cache_dir is None else self.cache_dir / f"modelnet40_{kind}"


def _points_of_mesh(path: Path, name: str, count: int) -> np.ndarray:
    mesh = read_off(path)
    try:
        return points_on_surface(mesh, count, zlib.crc32(name.encode()))
    except CorruptPointsError as error:
        raise CorruptPointsError(f"{path}: {error}") from error


def _read_text(path: Path, name: str) -> np.ndarray:
    """Read x, y, z of a file with lines x,y,z,nx,ny,nz."""
    try:
        with open_file(path) as file:
            lines = file.read().decode("ascii").split("\n")
        if not any(line.strip() for line in lines):
            raise ValueError("it is empty")
        points = np.loadtxt(
            lines, delimiter=",", usecols=(0, 1, 2), dtype=np.float32, comments=None, ndmin=2
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorruptPointsError(f"{path}: {reason}; expected lines of x,y,z,nx,ny,nz") from error
    if not np.isfinite(points).all():
        raise CorruptPointsError(f"{path}: not all numbers in it are finite")
    return points
