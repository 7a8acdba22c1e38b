"""ImageNet's layout with three classes."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import ImageNetDataModule, Subset

WNIDS = ["n01440764", "n01443537", "n02085620"]
VAL = [2, 0, 0, 1, 2]  # classes of the validation images 1 ... 5


@pytest.fixture
def root(tmp_path, write_image):
    """train/ with 4, 5 and 6 images, out of order on disk, and files that do not belong there."""
    for label in (2, 0, 1):
        for number in reversed(range(4 + label)):
            path = tmp_path / "train" / WNIDS[label] / f"{WNIDS[label]}_{number}.JPEG"
            write_image(path, height=20 + number, width=30, seed=label)
    (tmp_path / "train" / "notes.txt").touch()
    (tmp_path / "train" / ".DS_Store").touch()
    (tmp_path / "train" / WNIDS[0] / "._n01440764_0.JPEG").touch()
    return tmp_path


@pytest.fixture
def sorted_val(root, write_image):
    for number, label in enumerate(VAL, start=1):
        write_image(root / "val" / WNIDS[label] / f"ILSVRC2012_val_{number:08}.JPEG", seed=number)
    return root


@pytest.fixture
def flat_val(root, write_image):
    for number in range(1, 6):
        write_image(root / "val" / f"ILSVRC2012_val_{number:08}.JPEG", seed=number)
    return root


def make(root, **arguments):
    options = {"num_workers": 0, "image_size": 16, "batch_size": 4, **arguments}
    return ImageNetDataModule(root=str(root), **options)


def test_training_images(sorted_val):
    data = make(sorted_val)
    assert data.class_names == WNIDS
    assert (data.num_classes, data.image_size, data.in_channels) == (3, 16, 3)
    assert np.bincount(data.labels("train")).tolist() == [4, 5, 6]
    assert data.eval_transform.resize == 18
    images, labels = next(iter(data.bank_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 0, 0]
    assert make(sorted_val, image_size=224).eval_transform.resize == 256


def test_validation_in_class_folders(sorted_val):
    data = make(sorted_val)
    assert data.labels("val").tolist() == sorted(VAL)
    assert data.labels("test").tolist() == sorted(VAL)


def test_held_out_validation_keeps_the_official_one_for_testing(sorted_val):
    data = make(sorted_val, val_size=3)
    assert len(data.labels("train")) == 12
    assert data.labels("val").tolist() == [0, 1, 2]
    assert data.labels("test").tolist() == sorted(VAL)


def test_flat_validation_with_kaggle_csv(flat_val):
    rows = [f"ILSVRC2012_val_{i:08},{WNIDS[VAL[i - 1]]} 1 2 3 4" for i in (5, 1, 3, 2, 4)]
    (flat_val / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    assert make(flat_val).labels("val").tolist() == VAL


def test_flat_validation_with_a_list(flat_val, tmp_path):
    rows = [f"ILSVRC2012_val_{i:08}.JPEG {WNIDS[VAL[i - 1]]}" for i in range(1, 6)]
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(rows))
    assert make(flat_val, val_labels=str(path)).labels("val").tolist() == VAL
    path.write_text("\n".join(rows[:-1]))
    with pytest.raises(ValueError, match=r"no label for 1 of the 5 .*val_00000005.JPEG"):
        make(flat_val, val_labels=str(path)).setup("validate")
    path.write_text("\n".join([*rows[:-1], "ILSVRC2012_val_00000005.JPEG n99999999"]))
    with pytest.raises(ValueError, match=r"1 classes that .*train does not have.*n99999999"):
        make(flat_val, val_labels=str(path)).setup("validate")


def test_flat_validation_with_fewer_images_than_labels(flat_val):
    rows = [f"ILSVRC2012_val_{i:08},{WNIDS[0]} 1 2 3 4" for i in range(1, 8)]
    (flat_val / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    with pytest.warns(UserWarning, match=r"2 of the 7 images .*val_00000006, .*val_00000007\."):
        make(flat_val).setup("validate")


def write_devkit(root, numbers):
    """The devkit numbers the classes 3, 1, 2; number 1001 is an inner node."""
    savemat = pytest.importorskip("scipy.io").savemat
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(3, WNIDS[0], 0), (1, WNIDS[1], 0), (2, WNIDS[2], 0), (1001, "n00001740", 3)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    path = folder / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text("".join(f"{number}\n" for number in numbers))
    return path


def test_flat_validation_with_the_devkit(flat_val):
    write_devkit(flat_val, [{0: 3, 1: 1, 2: 2}[label] for label in VAL])
    assert make(flat_val).labels("val").tolist() == VAL


def test_devkit_goes_by_position(flat_val):
    write_devkit(flat_val, [1, 2, 3, 1])
    with pytest.raises(ValueError, match="4 labels but the validation folder has 5 images"):
        make(flat_val).setup("validate")


def test_devkit_with_unknown_numbers(flat_val):
    write_devkit(flat_val, [1, 2, 3, 1, 1001])
    with pytest.raises(ValueError, match=r"does not have: \[1001\]"):
        make(flat_val).setup("validate")


def test_devkit_without_its_parts(flat_val, monkeypatch):
    path = write_devkit(flat_val, [1] * 5)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"pip install scipy.*val_labels"):
        make(flat_val).setup("validate")
    (path.parent / "meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"meta.mat, which names them, is missing"):
        make(flat_val).setup("validate")


def test_flat_validation_without_labels(flat_val):
    with pytest.raises(FileNotFoundError, match=r"holds its images flat.*val_labels"):
        make(flat_val).setup("validate")


def test_low_shot_list(sorted_val):
    path = sorted_val / "1imgs_class.txt.gz"
    with gzip.open(path, "wt") as file:
        file.write("".join(f"{wnid}_3.JPEG\n" for wnid in reversed(WNIDS)))
    data = make(sorted_val, subset=Subset(file=str(path)))
    assert data.labels("train").tolist() == [0, 1, 2]
    assert data.rows("train").name(2) == "n02085620/n02085620_3.JPEG"


def test_wrong_layouts(tmp_path, write_image):
    with pytest.raises(FileNotFoundError, match=r"absent/train does not exist; .* is empty"):
        make(tmp_path / "absent").setup("fit")
    write_image(tmp_path / "n01440764" / "n01440764_0.JPEG")
    with pytest.raises(FileNotFoundError, match=r"expected folders .*/train/<wnid>/.*n01440764/"):
        _ = make(tmp_path).num_classes
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"image files in .*train/<class>/"):
        make(tmp_path).setup("fit")


def test_missing_validation(root):
    with pytest.raises(FileNotFoundError, match=r"val/<wnid>/, or flat in .*val does not exist"):
        make(root).setup("validate")


def test_validation_class_without_training_images(sorted_val, write_image):
    write_image(sorted_val / "val" / "n03445777" / "ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(FileNotFoundError, match=r"1 class folders .*n03445777"):
        make(sorted_val).setup("validate")
