"""iNaturalist 2018's layout with three species."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import INaturalist2018DataModule, Subset

# id, name, super category; out of order, as nothing promises one
CATEGORIES = [(7, "Felis obscura", "Mammalia"), (2, "Aves secunda", "Aves"), (4, "B", "Plantae")]
TRAIN = {2: 5, 4: 2, 7: 1}
VAL = {2: 1, 4: 1, 7: 1}


def file_name(split, category, number):
    kind = {identifier: kind for identifier, _, kind in CATEGORIES}[category]
    return f"train_val2018/{kind}/{category}/{split}{number}.jpg"


def annotations(split, counts, first_id):
    files = [file_name(split, c, n) for c, count in counts.items() for n in range(count)]
    ids = list(range(first_id, first_id + len(files)))
    categories = [c for c, count in counts.items() for _ in range(count)]
    return {
        "info": {"year": 2018},
        "licenses": [],
        "images": [
            {"id": i, "file_name": name, "width": 30, "height": 20, "rights_holder": ""}
            for i, name in zip(ids, files, strict=True)
        ],
        "annotations": [  # in another order than the images
            {"id": i, "image_id": i, "category_id": c}
            for i, c in sorted(zip(ids, categories, strict=True), reverse=True)
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": kind} for i, name, kind in CATEGORIES
        ],
    }


@pytest.fixture
def root(tmp_path, write_image):
    for split, counts, first_id in (("train", TRAIN, 100), ("val", VAL, 500)):
        content = annotations(split, counts, first_id)
        (tmp_path / f"{split}2018.json").write_text(json.dumps(content))
        for image in content["images"]:
            write_image(tmp_path / image["file_name"], seed=image["id"])
    return tmp_path


def make(root, **arguments):
    return INaturalist2018DataModule(
        **{"root": str(root), "num_workers": 0, "image_size": 16, "batch_size": 4, **arguments}
    )


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_splits_and_classes(root):
    data = make(root)
    assert data.class_names == ["Aves secunda", "B", "Felis obscura"]
    assert (data.num_classes, data.image_size, data.in_channels) == (3, 16, 3)
    assert data.labels("train").tolist() == [0] * 5 + [1] * 2 + [2]
    assert data.labels("val").tolist() == data.labels("test").tolist() == [0, 1, 2]
    images, labels = next(iter(data.bank_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 0, 0]
    assert data.rows("train").name(7) == file_name("train", 7, 0)
    assert make(root, image_size=224).eval_transform.resize == 256


def test_held_out_validation(root):
    data = make(root, val_size=2)
    assert (len(data.labels("train")), len(data.labels("val"))) == (6, 2)
    assert data.labels("test").tolist() == [0, 1, 2]


def test_subsets(root, tmp_path):
    lines = [f"{file_name('train', 7, 0)} 7", file_name("train", 2, 3)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    data = make(root, subset=Subset(file=str(tmp_path / "list.txt")))
    assert data.labels("train").tolist() == [0, 2]
    data = make(root, subset=Subset(per_class=1))
    assert np.bincount(data.labels("train")).tolist() == [1, 1, 1]


def test_missing_parts(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected train2018.json.*absent does not exist"):
        _ = make(root / "absent").num_classes
    (root / "val2018.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"val2018.json and .*holds train2018.json"):
        make(root).setup("validate")
    (root / "train_val2018").rename(root / "images")
    with pytest.raises(FileNotFoundError, match=r"such as .*train0.jpg\. Found: .* does not exist"):
        make(root).setup("fit")


def test_images_that_were_not_unpacked(root):
    (root / file_name("train", 7, 0)).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the \d+ images that .*train2018.json names"):
        make(root).setup("fit")
    make(root).setup("validate")


def test_broken_annotations(root):
    path = root / "train2018.json"
    whole = path.read_text()
    path.write_text(whole[:-50])
    with pytest.raises(ValueError, match=r"train2018.json is no annotation file .*archive again"):
        make(root).setup("fit")
    path.write_text(whole)
    edit(path, lambda content: content.pop("categories"))
    with pytest.raises(ValueError, match=r"\(KeyError: 'categories'\)"):
        make(root).setup("fit")
    path.write_text(whole)
    edit(path, lambda content: content["annotations"].pop(0))
    with pytest.raises(ValueError, match=r"8 images, 1 of them without an annotation, for example"):
        make(root).setup("fit")
    edit(path, lambda content: content.update(images=[]))
    with pytest.raises(ValueError, match=r"lists 0 images"):
        make(root).setup("fit")


def test_categories_of_another_year(root):
    def change(content):
        content["annotations"][0]["category_id"] = 99

    edit(root / "val2018.json", change)
    with pytest.raises(ValueError, match=r"val split use 1 categories .*does not list.*99"):
        make(root).setup("validate")
