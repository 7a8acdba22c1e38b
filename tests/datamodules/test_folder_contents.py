"""What is in a folder, what is taken for a class or a split, and what is said of the rest."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from lit_ssl.datamodules import ImageFolderDataModule, ImageNetDataModule
from lit_ssl.datamodules.images.imagenet_complete import warn_of_missing_images
from lit_ssl.datamodules.reading import walking
from lit_ssl.errors import InputError


@pytest.fixture
def make(tmp_path, write_image):
    """Writes images and empty files (ending in !), and returns a data module over the folder."""

    def build(*names, kind=ImageFolderDataModule, **arguments):
        for number, name in enumerate(names):
            if name.endswith("!"):
                (tmp_path / name[:-1]).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name[:-1]).touch()
            else:
                write_image(tmp_path / name, seed=number)
        options = {"num_workers": 0, "image_size": 16, "batch_size": 2, **arguments}
        return kind(root=str(tmp_path), **options)

    return build


def setup(data, stage="fit"):
    """Returns the warnings of a setup."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        data.setup(stage)
    return [str(entry.message) for entry in record]


CLASSES = ("a/1.png", "b/1.png")


def test_classes_named_like_splits(make):
    data = make(*(f"{name}/{i}.png" for name in ("car", "bus", "train") for i in range(3)))
    said = setup(data)
    assert data.class_names == ["bus", "car", "train"]
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(said) == 1
    assert "train is taken for a class" in said[0]
    assert "layout: splits" in said[0]


@pytest.mark.parametrize("names", [("test",), ("val",), ("train", "test"), ("Train", "VALID")])
def test_ambiguous_folders_are_refused_and_can_be_told(make, names):
    files = [f"{name}/{i}.png" for name in ("cat", "dog", *names) for i in range(2)]
    with pytest.raises(InputError, match="layout: classes if they are all classes"):
        make(*files).setup("fit")
    assert make(layout="classes").class_names == sorted(["cat", "dog", *names])
    with pytest.raises(InputError, match="layout must be 'auto', 'splits' or 'classes'"):
        make(layout="folders")


def test_splits_beside_other_images(make):
    data = make("train/a/1.png", "train/b/1.png", "extra/1.png", "notes/readme.txt!")
    assert ["extra" in line for line in setup(data)] == [True]
    assert data.class_names == ["a", "b"]
    assert setup(make(layout="splits")) == []


@pytest.mark.parametrize("name", ["Val", "valid", "VALIDATION"])
def test_other_names_of_splits(make, name):
    data = make(
        *(f"Training/{c}" for c in CLASSES), *(f"{name}/{c}" for c in CLASSES), "Test/a/1.png"
    )
    data.setup("fit")
    assert [len(data.labels(split)) for split in ("train", "val", "test")] == [2, 2, 1]


@pytest.mark.parametrize("name", ["train", "Val", "test"])
def test_split_that_is_a_lost_link(make, tmp_path, name):
    data = make(*("a/1.png", "b/1.png") if name == "train" else ("train/a/1.png", "train/b/1.png"))
    (tmp_path / name).symlink_to("/no/such/disk")
    with pytest.raises(InputError, match=f"{name} is a link that leads nowhere"):
        data.setup("fit")


def test_classes_of_validation_images_alone(make):
    data = make("train/1.png", "train/2.png", "val/a/1.png", "val/b/1.png")
    (told,) = setup(data)
    assert "val has folders, but" in told
    assert data.labels("val").tolist() == [-1, -1]
    assert setup(make(labelled=False)) == []


def test_two_folders_of_one_split(make):
    files = [f"{split}/a/1.png" for split in ("train", "val", "validation")]
    with pytest.raises(InputError, match="several folders for the val split, val and validation"):
        make(*files).setup("fit")


@pytest.mark.parametrize("name", ["__MACOSX/a/._1.png!", ".git/1.png!", "@eaDir/a/1.png!"])
def test_folders_of_the_system_are_no_classes(make, name):
    data = make("train/a/1.png", "train/b/1.png", f"train/{name}")
    said = setup(data)
    assert data.class_names == ["a", "b"]
    assert len(said) == 1
    assert f"hidden or put there by the operating system (1: {name.split('/')[0]})" in said[0]


def test_empty_classes(make, tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    data = make("train/b/1.png", "train/c/1.png", "train/aa/notes.txt!")
    with pytest.raises(InputError, match=r"2 of the 4 class folders in .*: a, aa .*allow_empty"):
        _ = data.num_classes
    data = make(allow_empty=True)
    data.setup("fit")
    assert data.class_names == ["a", "aa", "b", "c"]
    assert data.labels("train").tolist() == [2, 3]


def test_why_there_is_no_image_is_told(make):
    data = make("train/b/1.png", "train/a/1.heic!", "train/a/2.heic!")
    with pytest.raises(InputError, match=r"no image: a \(there are: files in .*a/1.heic, a/2.heic"):
        data.setup("fit")
    with pytest.raises(InputError, match=r"expected image files in .*test \(there are: .*x.dcm"):
        make("test/x.dcm!", labelled=False).setup("test")


def test_empty_folder_beside_images_without_labels(make, tmp_path):
    (tmp_path / "thumbs").mkdir()
    data = make("1.png", "2.png")
    assert data.class_names == []
    assert data.labels("train").tolist() == [-1, -1]


@pytest.mark.parametrize("suffix", ["avif", "jfif", "pnm", "webp", "JPEG", "jp2", "tga", "gif"])
def test_every_format_that_pillow_reads(make, suffix):
    data = make(f"a/1.{suffix}", "b/1.png")
    data.setup("fit")
    assert data.labels("train").tolist() == [0, 1]
    assert next(iter(data.bank_dataloader()))[0].shape == (2, 3, 16, 16)


def test_formats_that_pillow_only_knows_are_none():
    suffixes = walking.image_suffixes()
    assert not suffixes & {".h5", ".pdf", ".mpg", ".eps", ".grib", ".txt"}
    assert {".jpg", ".png", ".tif", ".ppm"} <= suffixes


def test_what_is_left_out_is_told(make, tmp_path):
    others = ["a/x.xml!", "a/y.xml!", "b/z.csv!", "b/LICENSE!", "a/.hidden.png!", "c.zip!"]
    data = make("a/1.png", "b/1.png", *others, "loose.png")
    (tmp_path / "b/lost.png").symlink_to("nowhere.png")
    (told,) = setup(data)
    assert "no format that Pillow reads (2 .xml, 1 without ending, 1 .csv)" in told
    assert "(1: a/.hidden.png)" in told
    assert "links that lead nowhere (1: b/lost.png)" in told
    assert "unpacked if they belong to the data (1: c.zip)" in told
    assert "images outside of the class folders (1: loose.png)" in told
    assert len(data.labels("train")) == 2


def test_folder_named_like_an_image(make):
    data = make("a/set.jpg/1.png", "b.png/1.png")
    data.setup("fit")
    assert data.class_names == ["a", "b.png"]
    assert [data.rows("train").name(i) for i in (0, 1)] == ["a/set.jpg/1.png", "b.png/1.png"]


def test_loops_of_links(make, tmp_path):
    data = make(*CLASSES)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a/back").symlink_to("../..")
    (tmp_path / "a/itself").symlink_to("itself")
    (tmp_path / "b/one").mkdir()
    (tmp_path / "b/one/two").symlink_to("../one")
    (told,) = setup(data)
    assert "links back to a folder above (3: a/back, b/one/two, loop)" in told
    assert "links that lead nowhere (1: a/itself)" in told
    assert data.class_names == ["a", "b"]
    assert data.labels("train").tolist() == [0, 1]


def test_classes_are_known_without_listing_all_their_images(make, monkeypatch):
    looked_at = []
    real = walking._is_hidden
    monkeypatch.setattr(walking, "_is_hidden", lambda name: looked_at.append(name) or real(name))
    data = make(*(f"train/{name}/{i}.png" for name in "ab" for i in range(30)))
    assert data.class_names == ["a", "b"]
    assert len(looked_at) < 15
    data.setup("fit")
    assert len(looked_at) > 60


def test_links_are_followed(make, tmp_path):
    make("elsewhere/1.png", "elsewhere/2.png", "root/train/b/1.png")
    (tmp_path / "root/train/a").symlink_to(tmp_path / "elsewhere")
    data = ImageFolderDataModule(root=str(tmp_path / "root"), image_size=16, num_workers=0)
    assert data.labels("train").tolist() == [0, 0, 1]


def test_class_that_is_a_lost_link(make, tmp_path):
    data = make(*CLASSES)
    (tmp_path / "aa").symlink_to("/no/such/disk")
    with pytest.raises(InputError, match=r"1 class folders in .* lead nowhere: aa"):
        data.setup("fit")


def test_folder_that_cannot_be_listed(make, monkeypatch):
    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    data, real = make(*CLASSES), os.scandir
    monkeypatch.setattr(walking.os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot list the folder .*b \(Permission denied\)"):
        data.setup("fit")


def test_one_class_that_is_a_level_too_high(make):
    data = make("data/train/a/1.png", "data/train/b/1.png")
    (told,) = setup(data)
    assert "one class only, data, which holds train/: set root to" in told


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("lit_ssl.datamodules.loading.rows_module.rank_zero_info", lines.append)
    return lines


def test_test_images_without_labels(make, said, tmp_path):
    data = make("train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png")
    told = setup(data)
    assert (len(data.labels("train")), data.val_dataloader()) == (2, [])
    assert told == []
    (told,) = setup(data, "predict")
    assert "test has no class folders: its images have the label -1" in told
    assert data.labels("predict").tolist() == [-1, -1]
    assert said[-1] == f"predict: 2 images without labels in {tmp_path}/test"
    with pytest.raises(InputError, match="no images for the val split"):
        data.setup("validate")


def test_every_split_is_told_once(make, said, tmp_path):
    classes = [f"train/{name}/{i}.png" for name in "abc" for i in range(4)]
    data = make(*classes, "val/a/1.png", "val/c/1.png", "val/a/2.png", val_size=3)
    for stage in ("fit", "validate", "test", "fit"):
        data.setup(stage)
    assert said == [
        f"train: 9 of 12 images of 3 classes in {tmp_path}/train",
        f"val: 3 of 12 images of 3 classes in {tmp_path}/train",
        f"test: 3 images of 2 of 3 classes (none of b) in {tmp_path}/val",
    ]


def test_images_without_labels_are_told(make, said, tmp_path):
    make("1.png").setup("fit")
    assert said == [f"train: 1 image without labels in {tmp_path}"]


def test_images_in_memory_are_not_told(toy, said):
    toy().setup("fit")
    assert said == []


def test_labels_that_count_from_one(toy):
    class FromOne(type(toy())):
        def load_rows(self, split):
            rows = super().load_rows(split)
            if rows is not None:
                rows.columns["label"] = rows.labels + 1
            return rows

    message = r"labels of the train split go from 1 to 4, but 4 classes .* 0 to 3 .*subtract 1"
    with pytest.raises(InputError, match=message):
        FromOne().setup("fit")


WNIDS = ("n01440764", "n01443537", "n02085620")


def imagenet(make, *names, count=4, **arguments):
    images = [f"train/{w}/{w}_{i}.JPEG" for w in WNIDS[:2] for i in range(count)]
    images += [f"val/{w}/ILSVRC2012_val_{i:08}.JPEG" for i, w in enumerate(WNIDS[:2], 1)]
    return make(*images, *names, kind=ImageNetDataModule, **arguments)


def test_archives_of_imagenet_that_are_not_unpacked(make):
    data = imagenet(make, f"train/{WNIDS[0]}.tar!", f"train/{WNIDS[2]}.tar!")
    with pytest.raises(InputError, match=rf"1 archives in .* not unpacked: {WNIDS[2]}.tar\."):
        data.setup("validate")


def test_class_of_imagenet_without_images(make):
    with pytest.raises(InputError, match=f"1 of the 3 class folders .*{WNIDS[2]}"):
        imagenet(make, f"train/{WNIDS[2]}/part!").setup("test")


def test_classes_of_imagenet_that_are_much_too_small(make):
    data = imagenet(make, f"train/{WNIDS[2]}/{WNIDS[2]}_0.JPEG", f"val/{WNIDS[2]}/3.JPEG")
    (told,) = setup(data)
    assert f"1 of the 3 classes in {data.root}/train have less than half of the usual 4" in told
    assert f"{WNIDS[2]} (1)" in told
    assert np.bincount(data.labels("train")).tolist() == [4, 4, 1]


@pytest.mark.parametrize("lacking", [0, 1])
def test_number_of_images_of_all_of_imagenet(tmp_path, lacking):
    labels, names = np.repeat(np.arange(1000), 50), [f"n{i:08}" for i in range(1000)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_missing_images("val", tmp_path, labels[lacking:], names)
    assert len(told) == lacking
    assert all("has 49,999 images of 1,000 classes, not the 50,000" in str(t.message) for t in told)


def test_validation_of_imagenet_without_a_class(make):
    data = imagenet(make, *(f"train/{WNIDS[2]}/{WNIDS[2]}_{i}.JPEG" for i in range(4)))
    assert [f"{WNIDS[2]} (0)" in line for line in setup(data, "validate")] == [True]
