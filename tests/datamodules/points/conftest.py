"""ModelNet40 in its official layouts, with three of its classes."""

from __future__ import annotations

import numpy as np
import pytest

CLASSES = ("airplane", "night_stand", "sofa")
COUNTS = {"train": (4, 3, 2), "test": (1, 2, 2)}


def shape_names(split):
    """Names as in the lists: <class>_<four digits>; the test shapes follow the training shapes."""
    for name, train, count in zip(CLASSES, COUNTS["train"], COUNTS[split], strict=True):
        first = 1 if split == "train" else train + 1
        yield from (f"{name}_{number:04d}" for number in range(first, first + count))


def box(width, depth, height):
    """A mesh of a box from the origin, of six quadrilaterals, as the text of an OFF file."""
    corners = [(x, y, z) for x in (0, width) for y in (0, depth) for z in (0, height)]
    faces = ["0 1 3 2", "4 5 7 6", "0 1 5 4", "2 3 7 6", "0 2 6 4", "1 3 7 5"]
    lines = [" ".join(map(str, corner)) for corner in corners] + [f"4 {face}" for face in faces]
    return "\n".join(["8 6 0", *lines, ""])


@pytest.fixture
def meshes(tmp_path):
    """``ModelNet40/<class>/{train,test}/*.off``: boxes of height 1, 2, …, half of them glued."""
    for split in COUNTS:
        for i, name in enumerate(shape_names(split)):
            folder = tmp_path / "ModelNet40" / name.rpartition("_")[0] / split
            folder.mkdir(parents=True, exist_ok=True)
            head = "OFF" if i % 2 else "OFF\n"
            (folder / f"{name}.off").write_text(head + box(1, 1, i + 1))
    return tmp_path / "ModelNet40"


@pytest.fixture
def resampled(tmp_path):
    """``modelnet40_normal_resampled``: 30 points each; x of the first point is the row."""
    folder = tmp_path / "modelnet40_normal_resampled"
    rng = np.random.default_rng(0)
    for split in COUNTS:
        names = list(shape_names(split))
        folder.mkdir(exist_ok=True)
        (folder / f"modelnet40_{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            points = rng.normal(size=(30, 6))
            points[0, 0] = i
            path = folder / name.rpartition("_")[0] / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(",".join(f"{v:.6f}" for v in p) + "\n" for p in points))
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


@pytest.fixture
def hdf5(tmp_path):
    """``modelnet40_ply_hdf5_2048``: two training files and one test file, of 16 points a cloud."""
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    rng = np.random.default_rng(0)
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    files = {"train": [[0, 2, 1], [2, 0]], "test": [[1, 1, 0]]}
    for split, parts in files.items():
        names = [f"ply_data_{split}{i}.h5" for i in range(len(parts))]
        listing = "".join(f"data/modelnet40_ply_hdf5_2048/{name}\n" for name in names)
        (folder / f"{split}_files.txt").write_text(listing)
        for name, labels in zip(names, parts, strict=True):
            with h5py.File(folder / name, "w") as file:
                file["data"] = rng.normal(size=(len(labels), 16, 3)).astype(np.float32)
                file["label"] = np.array(labels, dtype=np.uint8)[:, None]
                file["normal"] = rng.normal(size=(len(labels), 16, 3)).astype(np.float32)
    return folder
