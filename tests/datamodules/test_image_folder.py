from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules import ImageFolderDataModule


def make(root, **arguments):
    options = {"num_workers": 0, "image_size": 16, "batch_size": 2, **arguments}
    return ImageFolderDataModule(root=str(root), **options)


@pytest.fixture
def classes(tmp_path, write_image):
    for split in ("train", "val"):
        for number in range(3):
            write_image(tmp_path / split / "cat" / f"{number}.png", seed=number)
            write_image(tmp_path / split / "dog" / "deep" / f"{number}.jpg", seed=number)
    (tmp_path / "train" / "dog" / "readme.md").touch()
    return tmp_path


def test_classes_and_own_validation(classes):
    data = make(classes)
    assert data.class_names == ["cat", "dog"]
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels("val").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels("test").tolist() == data.labels("val").tolist()


def test_root_may_be_the_training_folder(classes):
    data = make(classes / "train", val_size=2)
    assert data.class_names == ["cat", "dog"]
    assert data.labels("train").tolist() == [0, 0, 1, 1]
    assert data.labels("val").tolist() == [0, 1]


def test_flat_folder_has_no_labels(tmp_path, write_image):
    for number in range(5):
        write_image(tmp_path / f"{number}.jpg", height=20 + number)
    data = make(tmp_path)
    assert (data.num_classes, list(data.class_names)) == (0, [])
    assert data.labels("train").tolist() == [-1] * 5
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match="no images for the test split"):
        data.test_dataloader()


def test_folders_can_be_ignored(classes):
    data = make(classes, labelled=False)
    assert data.num_classes == 0
    assert np.unique(data.labels("train")).tolist() == [-1]
    assert len(data.labels("train")) == 6


def test_training_without_validation(tmp_path, write_image, fit):
    for number in range(4):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    module = fit(make(tmp_path), max_epochs=1, limit_val_batches=1.0)
    assert [labels for _, labels, _ in module.seen] == [(-1, -1), (-1, -1)]


def test_wrong_layouts(tmp_path, write_image):
    with pytest.raises(FileNotFoundError, match=r"nothing does not exist; .* is empty"):
        make(tmp_path / "nothing").setup("fit")
    with pytest.raises(FileNotFoundError, match=r"expected image files in .* is empty"):
        make(tmp_path).setup("fit")
    write_image(tmp_path / "val" / "cat" / "0.png")
    with pytest.raises(FileNotFoundError, match=r"train does not exist; .* holds val/"):
        _ = make(tmp_path).class_names
