"""Waterbirds, CelebA and your own CSV file, as they lie on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from lit_ssl import datamodules
from lit_ssl.datamodules import (
    CelebADataModule,
    GroupCSVDataModule,
    Subset,
    WaterbirdsDataModule,
)
from lit_ssl.datamodules.groups.images import CropThenResize, SquareThenCrop
from lit_ssl.errors import InputError

ROWS = [
    ("a/1.png", "train", 0, 0),
    ("a/2.png", "train", 1, ""),
    ("b/3.png", "train", 1, 1),
    ("b/4.png", "val", 0, 1),
    ("b/5.png", "test", 1, -1),
]


def shades(batch):
    """The shade of each image, which the fixtures count up."""
    return batch[0][:, 0, 4, 4].tolist()


# Waterbirds


@pytest.mark.parametrize("inside", [False, True])
def test_waterbirds(waterbirds, inside):
    root = waterbirds / "waterbird_complete95_forest2water2" if inside else waterbirds
    data = WaterbirdsDataModule(root=str(root), num_workers=0, image_size=16, batch_size=8)
    data.setup()
    assert data.group_names == [
        "landbird on land", "landbird on water", "waterbird on land", "waterbird on water",
    ]  # fmt: skip
    assert (data.num_classes, data.num_attributes, data.num_groups) == (2, 2, 4)
    assert data.group_array("train").tolist() == [3, 0, 1, 2, 0]
    assert data.group_array("val").tolist() == [2, 3]
    assert data.group_array("test").tolist() == [0]
    assert data.group_counts("train").tolist() == [2, 1, 1, 1]
    assert data.adjusted_average
    images, labels, groups = next(iter(data.bank_dataloader()))
    assert images.shape == (5, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [1, 0, 0, 1, 0]
    assert groups.tolist() == [3, 0, 1, 2, 0]


def test_mislabelled_species_are_flagged_and_kept_unless_told_otherwise(waterbirds):
    data = WaterbirdsDataModule(root=str(waterbirds), num_workers=0)
    assert data.group_array("train").tolist() == [3, 0, 1, 2, 0]
    dropped = WaterbirdsDataModule(root=str(waterbirds), num_workers=0, mislabelled="drop")
    assert dropped.group_array("train").tolist() == [3, 0, 1, 0]
    assert dropped.group_array("val").tolist() == [2]
    with pytest.raises(ValueError, match="'keep' or 'drop', got 'flag'"):
        WaterbirdsDataModule(root="x", mislabelled="flag")


def test_waterbirds_errors(waterbirds, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Waterbirds: expected .*metadata.csv.*not exist"):
        WaterbirdsDataModule(root=str(tmp_path / "nowhere")).setup("fit")
    folder = waterbirds / "waterbird_complete95_forest2water2"
    (folder / "004.Groove_billed_Ani" / "Groove_billed_Ani_0003.jpg").unlink()
    (folder / "021.Eastern_Towhee" / "Eastern_Towhee_0004.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 5 images .*Ani_0003.jpg, 021.*_0004"):
        WaterbirdsDataModule(root=str(waterbirds)).setup("fit")
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_text(text.replace(",1,0,1,/o", ",1,0,5,/o"))
    with pytest.raises(InputError, match=r"1 unknown value in column 'place' \(line 2: '5'\)"):
        WaterbirdsDataModule(root=str(waterbirds)).setup("fit")
    (folder / "metadata.csv").write_text(text.replace("place,", "places,"))
    with pytest.raises(InputError, match=r"no column 'place', .*Did you mean places\?"):
        WaterbirdsDataModule(root=str(waterbirds)).setup("fit")
    (folder / "metadata.csv").write_text(text.rpartition(",")[0])
    with pytest.raises(
        InputError, match=r"line 9 of .* has 5 of 6 columns: the file is incomplete"
    ):
        WaterbirdsDataModule(root=str(waterbirds)).setup("fit")
    (folder / "metadata.csv").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="has no rows below its header"):
        WaterbirdsDataModule(root=str(waterbirds)).setup("fit")


def test_transforms_of_the_released_code():
    image = torch.randint(0, 256, (3, 218, 178), dtype=torch.uint8)
    square = F.center_crop(F.resize(image, [256, 256], antialias=True), [224, 224])
    assert torch.equal(SquareThenCrop(224, resize=256)(image), square)
    middle = F.resize(image[:, 20:198], [224, 224], antialias=True)
    assert torch.equal(CropThenResize(224, crop=178)(image), middle)
    assert CropThenResize(32, crop=178)(torch.zeros(3, 50, 40, dtype=torch.uint8)).shape[-1] == 32


# CelebA


@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_celeba(celeba, kind):
    data = CelebADataModule(root=str(celeba(kind)), num_workers=0, image_size=32)
    data.setup()
    assert data.group_array("train").tolist() == [2, 1, 0, 3]
    assert data.group_array("val").tolist() == [1]
    assert data.group_array("test").tolist() == [2]
    assert data.group_names[2] == "Blond_Hair, not Male"
    assert not data.adjusted_average
    images, _, _ = next(iter(data.test_dataloader()))
    assert images.shape == (1, 3, 32, 32)
    other = CelebADataModule(root=str(data.root), target="Smiling", attribute="Blond_Hair")
    assert other.group_array("train").tolist() == [3, 2, 0, 1]


@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_celeba_errors(celeba, kind):
    root = celeba(kind)
    with pytest.raises(InputError, match=r"no column 'Blond_Hiar', .*Did you mean Blond_Hair\?"):
        CelebADataModule(root=str(root), target="Blond_Hiar").setup("fit")
    with pytest.raises(ValueError, match="must differ, both are 'Male'"):
        CelebADataModule(root=str(root), target="Male")
    attributes = root / f"list_attr_celeba.{kind}"
    text = attributes.read_text()
    first = "000002.jpg,-1" if kind == "csv" else "000002.jpg -1"
    attributes.write_text(text.replace(first, first[:-2] + " 7"))
    line = 3 if kind == "csv" else 4
    with pytest.raises(InputError, match=rf"column 'Blond_Hair' \(line {line}: '7'\): expected -1"):
        CelebADataModule(root=str(root)).setup("fit")
    attributes.write_text(text.rstrip()[:-3])
    with pytest.raises(InputError, match="of 4 columns: the file is incomplete"):
        CelebADataModule(root=str(root)).setup("fit")
    attributes.write_text(text)
    parts = root / f"list_eval_partition.{kind}"
    parts.write_text("\n".join(parts.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match=r"1 of the 6 images .* first 000006.jpg"):
        CelebADataModule(root=str(root)).setup("fit")
    parts.unlink()
    with pytest.raises(FileNotFoundError, match="csv or list_eval_partition"):
        CelebADataModule(root=str(root)).setup("fit")


def test_celeba_unpacked_twice(celeba):
    root = celeba("csv")
    (root / "img_align_celeba").rename(root / "inner")
    (root / "img_align_celeba").mkdir()
    (root / "inner").rename(root / "img_align_celeba" / "img_align_celeba")
    assert len(CelebADataModule(root=str(root)).labels("train")) == 4


# Your own


def test_group_csv_with_unknown_attributes(group_csv):
    data = GroupCSVDataModule(root=str(group_csv(ROWS)), num_workers=0, image_size=8)
    data.setup()
    assert data.group_array("train").tolist() == [0, -1, 3]
    assert data.group_array("val").tolist() == [1]
    assert data.group_array("test").tolist() == [-1]
    assert (data.num_classes, data.num_attributes, data.num_labelled) == (2, 2, 2)
    assert data.known("train").tolist() == [True, False, True]
    assert data.group_counts("train").tolist() == [1, 0, 0, 1]
    images, _, groups = next(iter(data.bank_dataloader()))
    assert shades((images,)) == [0, 1, 2]
    assert groups.tolist() == [0, -1, 3]


@pytest.mark.parametrize(("split", "other"), [("val", "test"), ("test", "val")])
def test_group_csv_warns_where_one_split_stands_in_for_another(group_csv, split, other):
    data = GroupCSVDataModule(root=str(group_csv([row for row in ROWS if row[1] != split])))
    with pytest.warns(UserWarning, match=f"has no {split} row: the {other} rows take their place"):
        assert len(data.labels(split)) == 1


def test_group_csv_names_and_columns(group_csv):
    rows = [("1.png", 0, "cow", "grass"), ("2.png", 0, "camel", "-1"), ("3.png", 1, "1", "sand")]
    root = group_csv(rows, header=("id", "path", "part", "animal", "ground"))
    columns = {"filename_column": "path", "split_column": "part", "label_column": "animal"}
    names = {"class_names": ["cow", "camel"], "attribute_names": ["grass", "sand", "snow"]}
    data = GroupCSVDataModule(root=str(root), **columns, attribute_column="ground", **names)
    assert data.num_groups == 6
    assert data.group_array("train").tolist() == [0, -1]
    assert data.group_array("val").tolist() == [4]
    assert data.group_names[4] == "camel, sand"


def test_group_csv_as_pandas_writes_it(group_csv):
    rows = [("1.png", 0, 0, "1.0"), ("2.png", 0, 1, ""), ("3.png", 1, 1, "0.0")]
    data = GroupCSVDataModule(root=str(group_csv(rows)))
    assert data.group_array("train").tolist() == [1, -1]
    assert data.group_array("val").tolist() == [2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_group_csv_from_windows(group_csv, encoding):
    rows = [("a/1.png", "train", 0, 0), ("b/2.png", "train", 1, 1), ("b/3.png", "val", 1, 1)]
    root = group_csv(rows)
    text = (root / "metadata.csv").read_text().replace("/", "\\").replace("\n", "\r\n")
    (root / "metadata.csv").write_bytes(text.encode(encoding))
    data = GroupCSVDataModule(root=str(root), num_workers=0, image_size=8, batch_size=2)
    assert data.group_array("train").tolist() == [0, 3]
    assert len(next(iter(data.bank_dataloader()))[0]) == 2


def test_group_csv_errors(group_csv):
    bad = [*ROWS, ("b/6.png", "train", 1, "red"), ("b/7.png", "train", 0, -2)]
    root = str(group_csv(bad))
    expected = r"2 unknown values in column 'a' \(line 7: 'red', line 8: '-2'\): expected numbers"
    with pytest.raises(InputError, match=expected):
        GroupCSVDataModule(root=root).setup("fit")
    with pytest.raises(InputError, match=r"\(line 8: '-2'\): expected blue or red, or a number"):
        GroupCSVDataModule(root=root, attribute_names=["blue", "red"]).setup("fit")
    root = str(group_csv([*ROWS, ("b/6.png", "dev", 1, 0)]))
    with pytest.raises(InputError, match=r"column 'split' \(line 7: 'dev'\): expected train, val"):
        GroupCSVDataModule(root=root).setup("fit")
    root = str(group_csv([*ROWS, ("b/8.png", "train", "", 0)]))
    with pytest.raises(InputError, match=r"1 unknown value in column 'y' \(line 7: ''\)"):
        GroupCSVDataModule(root=root).setup("fit")
    root = str(group_csv([*ROWS, ("b/9.png", "train", 1, 0)], skip=["b/9.png"]))
    with pytest.raises(FileNotFoundError, match=r"1 of the 4 images .* are not in .*: b/9.png"):
        GroupCSVDataModule(root=root).setup("fit")
    root = str(group_csv([row for row in ROWS if row[1] != "train"]))
    with pytest.raises(InputError, match="has no training row: expected 'train' or 0 in column 's"):
        GroupCSVDataModule(root=root).setup("fit")
    root = str(group_csv([(*row[:3], "") for row in ROWS]))
    with pytest.raises(InputError, match="has no attribute at all in column 'a'"):
        GroupCSVDataModule(root=root).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"expected table.csv in"):
        _ = GroupCSVDataModule(root=root, metadata="table.csv").num_classes


@pytest.mark.parametrize("name", ["Waterbirds", "CelebA", "GroupCSV", "ColouredMNIST"])
def test_short_names(name, tmp_path):
    assert getattr(datamodules, f"{name}DataModule")  # short names are those of imported classes
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    root = [] if name == "ColouredMNIST" else [f"--data.root={tmp_path}"]
    given = [f"--data={name}DataModule", *root, "--data.group_label_fraction=0.5"]
    data = parser.instantiate_classes(parser.parse_args(given)).data
    assert data.group_label_fraction == 0.5
    assert data.hparams["group_label_fraction"] == 0.5


def test_subset_and_hold_out_keep_attributes_with_their_images(group_csv):
    rows = [(f"{i:02d}.png", "train", i % 2, i // 2 % 2) for i in range(40)]
    data = GroupCSVDataModule(
        root=str(group_csv(rows)),
        num_workers=0,
        image_size=8,
        batch_size=64,
        val_size=10,
        subset=Subset(fraction=0.5),
    )
    for loader, size in ((data.bank_dataloader(), 15), (data.val_dataloader(), 10)):
        images, labels, groups = next(iter(loader))
        found = np.array(shades((images,)))
        assert len(found) == size
        assert labels.tolist() == (found % 2).tolist()
        assert groups.tolist() == (found % 2 * 2 + found // 2 % 2).tolist()
