"""Semi-iNat 2021's layout with a few species."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules import (
    ImageFolderDataModule,
    SemiINat2021DataModule,
    SemiSupervisedDataModule,
    Subset,
)
from lit_ssl.transforms import CropSpec, MultiCrop

LABELLED = {"0": 3, "2": 1, "10": 2, "11": 3}  # as numbers, not as text, in this order
VIEWS = MultiCrop([CropSpec(size=16, count=2), CropSpec(size=8, count=1)])


def write(root, write_image, nested):
    def folder(name):
        return root / name / name if nested else root / name

    for number, count in LABELLED.items():
        for image in range(count):
            write_image(folder("l_train") / number / f"{image}.jpg", seed=image)
        write_image(folder("val") / number / "0.jpg", seed=7)
    for image in range(7):
        write_image(folder("u_train") / f"{image:04x}.jpg", seed=20 + image)
    write_image(folder("test") / "0000.jpg", seed=30)
    (root / "annotation_v2.json").write_text("{}")
    return root


@pytest.fixture(params=[False, True], ids=["official", "Kaggle's"])
def root(request, tmp_path, write_image):
    return write(tmp_path, write_image, request.param)


def make(root, **arguments):
    options = {"num_workers": 0, "image_size": 16, "batch_size": 5, "train_transform": VIEWS}
    return SemiINat2021DataModule(**{"root": str(root), **options, **arguments})


def test_splits(root):
    data = make(root)
    data.setup()
    assert data.class_names == ["0", "2", "10", "11"]
    assert data.num_classes == 4
    assert data.labels("train").tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3] + 7 * [-1]
    assert data.labels("val").tolist() == data.labels("test").tolist() == [0, 1, 2, 3]
    names = [data.rows("train").source.images.name(row) for row in (0, 4, 9)]
    assert [name.rsplit("train/", 1)[1] for name in names] == ["0/0.jpg", "10/0.jpg", "0000.jpg"]
    images, labels = next(iter(data.val_dataloader()))
    assert (images.shape, labels.tolist()) == ((4, 3, 16, 16), [0, 1, 2, 3])


def test_root_in_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(make(f"~/{root.name}").labels("val")) == len(make(root).labels("val")) > 0


def test_labelled_images_alone(root):
    data = make(root, unlabelled=False)
    data.setup("fit")
    assert len(data.labels("train")) == 9
    assert data.labels("train").min() == 0


@pytest.mark.parametrize(
    ("subset", "found"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (Subset(per_class=1), 4),
        (Subset(fraction=0.5), 5),
    ],
)
def test_supports_are_labelled_images(root, subset, found):
    """Also where a subset is drawn; it draws from the unlabelled ones as from one more class."""
    data = SemiSupervisedDataModule(make(root), subset=subset, images_per_class=2)
    data.setup("fit")
    positions = data.support_positions
    assert (data.labels("train")[positions] >= 0).all()
    if subset is None:
        assert positions.tolist() == found
    else:
        assert len(positions) == found
        assert set(data.labels("train")[positions]) == {0, 1, 2, 3}
    batches = [batch for batch, *_ in data.train_dataloader()]
    assert len(batches) == 3  # 16 images
    unlabelled = np.concatenate([batch["unlabelled"][1] for batch in batches])
    assert (unlabelled == -1).any()
    for batch in batches:
        assert sorted(batch["support"][1].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_list_with_unlabelled_images_is_refused(root, tmp_path):
    (tmp_path / "list.txt").write_text("0\n3\n4\n6\n12\n")
    subset = Subset(file=str(tmp_path / "list.txt"))
    data = SemiSupervisedDataModule(make(root), subset=subset, images_per_class=2)
    with pytest.raises(ValueError, match="label"):
        data.setup("fit")


def test_images_without_any_label_are_refused(tmp_path, write_image):
    for number in range(3):
        write_image(tmp_path / f"{number}.png")
    images = ImageFolderDataModule(root=str(tmp_path), train_transform=VIEWS)
    with pytest.raises(ValueError, match="need labels, but no training image has one"):
        SemiSupervisedDataModule(images).setup("fit")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda root: (root / "l_train").rename(root / "labelled"), "expected .*l_train"),
        (lambda root: (root / "u_train").rename(root / "x"), "unlabelled: false"),
        (lambda root: (root / "l_train" / "2").rename(root / "l_train" / "Felis"), "Felis"),
        (lambda root: (root / "val").rename(root / "x"), "val"),
        (lambda root: (root / "val" / "2").rename(root / "val" / "3"), "3"),
    ],
)
def test_another_layout_is_told(tmp_path, write_image, wrong, message):
    wrong(write(tmp_path, write_image, nested=False))
    with pytest.raises(ValueError, match=f"(?i){message}"):
        make(tmp_path).setup("fit")
