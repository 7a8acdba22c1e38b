"""Readers of images, archives of them, and points, for the table of those that are fuzzed."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reader_table import READERS, Reader, picture, put, reader, same_rows


@reader(
    lambda folder: put(
        folder,
        "a/data_batch_1",
        pickle.dumps(
            {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 9], "filenames": ["x"]},
            protocol=2,
        ),
    )
)
def cifar10(path: Path) -> None:
    from lit_ssl.datamodules import CIFAR10DataModule

    pixels, labels = CIFAR10DataModule(root=str(path.parent))._read(path)
    assert pixels.shape == (len(labels), 3072)
    assert pixels.dtype == np.uint8
    assert labels.min() >= 0
    assert labels.max() < 10


@reader(lambda folder: put(folder, "a/data_batch_1.bin", (bytes([3]) + bytes(3072)) * 2))
def cifar10_binary(path: Path) -> None:
    from lit_ssl.datamodules import CIFAR10DataModule

    pixels, labels = CIFAR10DataModule(root=str(path.parent))._read(path)
    assert pixels.shape == (len(labels), 3072)
    assert labels.max() < 10


INAT = {
    "images": [
        {"id": 5, "file_name": "train_val2018/a/1.jpg"},
        {"id": 7, "file_name": "train_val2018/b/2.jpg"},
    ],
    "annotations": [{"image_id": 5, "category_id": 3}, {"image_id": 7, "category_id": 4}],
    "categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "y"}],
}


@reader(lambda folder: put(folder, "train2018.json", json.dumps(INAT)))
def inaturalist(path: Path) -> None:
    from lit_ssl.datamodules import INaturalist2018DataModule

    for name in ("a/1.jpg", "b/2.jpg"):
        put(path.parent, f"train_val2018/{name}", b"")
    data = INaturalist2018DataModule(root=str(path.parent), num_workers=0)
    same_rows(data.load_rows("train"), 0, len(data.class_names))


def _tiny(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        put(folder, "wnids.txt", "n01\nn02\n")
        for n in range(3):
            put(folder, f"val/images/val_{n}.JPEG", b"")
        put(
            folder,
            "val/val_annotations.txt",
            "".join(f"val_{n}.JPEG n0{1 + n % 2} 0 32 44 62\n" for n in range(3)),
        )
        return folder / name

    return write


def _read_tiny(path: Path) -> None:
    from lit_ssl.datamodules import TinyImageNetDataModule

    root = path.parent if path.name == "wnids.txt" else path.parents[1]
    data = TinyImageNetDataModule(root=str(root), num_workers=0)
    same_rows(data.load_rows("val"), 0, len(data.class_names))


READERS["tiny_imagenet_wnids"] = Reader(_tiny("wnids.txt"), _read_tiny)
READERS["tiny_imagenet_val"] = Reader(_tiny("val/val_annotations.txt"), _read_tiny)

FILES = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)]


@reader(
    lambda folder: put(
        folder,
        "LOC_val_solution.csv",
        "ImageId,PredictionString\n" + "".join(f"{f[:-5]},n01751748 1 2 3 4\n" for f in FILES),
    )
)
def imagenet_labels(path: Path) -> None:
    from lit_ssl.datamodules.images.imagenet_labels import read_validation_labels

    assert len(read_validation_labels(path, FILES)) == 3


def _devkit(folder: Path) -> Path:
    from scipy.io import savemat

    synsets = np.array(
        [(n, f"n0{n}") for n in (1, 2, 3)], dtype=[("ILSVRC2012_ID", "u2"), ("WNID", "O")]
    )
    savemat(folder / "meta.mat", {"synsets": synsets})
    put(folder, "ILSVRC2012_validation_ground_truth.txt", "1\n3\n2\n")
    return folder / "meta.mat"


def _read_devkit(path: Path) -> None:
    from lit_ssl.datamodules.images.imagenet_labels import read_validation_labels

    labels = path.parent / "ILSVRC2012_validation_ground_truth.txt"
    found = read_validation_labels(labels, FILES)
    assert len(found) == 3
    assert all(isinstance(name, str) for name in found)


READERS["devkit_meta"] = Reader(_devkit, _read_devkit, cost=6)
READERS["devkit_labels"] = Reader(
    lambda folder: _devkit(folder).with_name("ILSVRC2012_validation_ground_truth.txt"),
    _read_devkit,
    cost=6,
)


def _read_picture(path: Path) -> None:
    from lit_ssl.datamodules.reading.decoding import read_image

    image = read_image(str(path), max_side=64)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    assert max(image.shape) <= 64


for _kind, _mode in (
    ("JPEG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("PNG", "I;16"),
    ("GIF", "P"),
    ("BMP", "RGB"),
    ("TIFF", "CMYK"),
    ("WEBP", "RGB"),
    ("PPM", "RGB"),
    ("ICO", "RGBA"),
    ("TGA", "RGB"),
    ("PCX", "RGB"),
    ("SGI", "RGB"),
    ("JPEG2000", "RGB"),
):

    def _write(folder: Path, kind: str = _kind, mode: str = _mode) -> Path:
        return put(folder, f"image.{kind.lower()}", picture(kind, mode))

    READERS[f"image_{_kind}_{_mode}"] = Reader(_write, _read_picture)


def _tar(folder: Path) -> Path:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for n in range(3):
            for ending, content in (
                ("jpg", picture()),
                ("txt", b"a dog"),
                ("json", b'{"caption": "a"}'),
            ):
                info = tarfile.TarInfo(f"{n:09d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return put(folder, "00000.tar", file.getvalue())


@reader(_tar)
def tar_of_pairs(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.tar_members import read_pairs

    for caption in ("txt", "caption"):
        with path.open("rb") as file:
            for pair in read_pairs(file, str(path), caption, lambda why, key: None, True):
                assert pair.caption
                assert len(pair.image) == pair.size


def _tar_index(folder: Path) -> Path:
    from lit_ssl.datamodules.vision_language.shards.tar_index import index_tar

    tar = _tar(folder)
    index_tar(tar, "txt", folder / "index.npz")
    return folder / "index.npz"


@reader(_tar_index)
def tar_index(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.tar_index import stored_index

    found = stored_index(path.with_name("00000.tar"), "txt", path)
    assert found is None or len(found.keys) == len(found.offsets) == len(found.captions)


@reader(lambda folder: put(folder, "0_stats.json", '{"successes": 12, "count": 13}'))
def shard_stats(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.shard_sets import stated_pairs

    assert stated_pairs(str(path.with_name("0.tar"))) >= 0


CUBE = "OFF\n4 4 0\n" + "0 0 0\n1 0 0\n0 1 0\n0 0 1\n" + "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@reader(lambda folder: put(folder, "cube.off", CUBE))
def off(path: Path) -> None:
    from lit_ssl.datamodules.points.off import points_on_surface, read_off

    mesh = read_off(path)
    assert mesh.triangles.min(initial=0) >= 0
    assert mesh.triangles.max(initial=-1) < len(mesh.vertices)
    assert np.isfinite(points_on_surface(mesh, 10, 0)).all()


def _resampled(folder: Path) -> Path:
    for name, text in (("shape_names", "sofa\n"), ("train", "sofa_1\n"), ("test", "sofa_2\n")):
        put(folder, f"modelnet40_normal_resampled/modelnet40_{name}.txt", text)
    put(folder, "modelnet40_normal_resampled/sofa/sofa_2.txt", "0,0,1,0,0,1\n")
    return put(
        folder, "modelnet40_normal_resampled/sofa/sofa_1.txt", "0,0,1,0,0,1\n0.5,1,2,1,0,0\n"
    )


@reader(_resampled)
def resampled_points(path: Path) -> None:
    from lit_ssl.datamodules import ModelNet40DataModule

    rows = ModelNet40DataModule(root=str(path.parents[2]), num_workers=0).load_rows("train")
    points = rows.source.read(0)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()


def _hdf5(folder: Path) -> Path:
    import h5py

    folder = folder / "modelnet40_ply_hdf5_2048"
    put(folder, "shape_names.txt", "sofa\nbed\n")
    put(folder, "train_files.txt", "data/modelnet40_ply_hdf5_2048/a.h5\n")
    with h5py.File(folder / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 8, 3), np.float32)
        file["label"] = np.array([[0], [1]], np.uint8)
    return folder / "a.h5"


def _read_hdf5(path: Path) -> None:
    from lit_ssl.datamodules.points.modelnet40_files import read_clouds

    clouds, labels = read_clouds(path.parent, "train", 2)
    assert len(clouds) == len(labels)
    assert labels.min() >= 0
    assert labels.max() < 2


if find_spec("h5py") is not None:
    READERS["hdf5"] = Reader(_hdf5, _read_hdf5)
