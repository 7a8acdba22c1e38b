"""Sources of captions in their official layouts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.datamodules import (
    CocoCaptions,
    ConceptualCaptions,
    Flickr30kCaptions,
    SBUCaptions,
    VisualGenomeRegions,
)
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import source_layouts as layouts


def captions(rows):
    """(name of the image, text) of each row."""
    return [(rows.name(row), rows.source.texts[row]) for row in range(len(rows))]


def reds(rows):
    return [int(rows.source.read(row)[0].float().mean().round()) for row in range(len(rows))]


def numbers(rows):
    return rows.columns["image_number"].tolist()


# Karpathy


def test_coco_trains_on_train_and_restval(tmp_path):
    source = CocoCaptions(str(layouts.coco(tmp_path)))
    train = source.load_rows("train")
    assert captions(train) == [
        ("val2014/COCO_val2014_000000522418.jpg", "A woman cuts a cake."),
        ("val2014/COCO_val2014_000000522418.jpg", "A café."),
        ("train2014/COCO_train2014_000000000009.jpg", "A tray of food."),
        ("train2014/COCO_train2014_000000000009.jpg", "A tray of food."),
        ("train2014/COCO_train2014_000000000025.jpg", "Two giraffes."),
    ]
    assert numbers(train) == [0, 0, 1, 1, 2]
    assert train.columns["image_number"].dtype == np.int64
    assert train.labels.tolist() == [-1] * 5
    np.testing.assert_allclose(reds(train), [0, 0, 10, 10, 30], atol=2)
    assert [text for _, text in captions(source.load_rows("val"))] == [
        "A motorcycle.", "An old motor bike.", "A dog lies beside a bike.",
    ]  # fmt: skip
    assert numbers(source.load_rows("test")) == [0, 0, 0]


def test_coco_elsewhere(tmp_path):
    """The file beside the folders of images, or these below images/."""
    layouts.coco(tmp_path)
    (tmp_path / "karpathy/dataset_coco.json").rename(tmp_path / "dataset_coco.json")
    (tmp_path / "images").mkdir()
    for folder in ("train2014", "val2014"):
        (tmp_path / folder).rename(tmp_path / "images" / folder)
    rows = CocoCaptions(str(tmp_path)).load_rows("train")
    np.testing.assert_allclose(reds(rows), [0, 0, 10, 10, 30], atol=2)


def test_flickr(tmp_path):
    source = Flickr30kCaptions(str(layouts.flickr(tmp_path)))
    sizes = [len(source.load_rows(split)) for split in ("train", "val", "test")]
    assert sizes == [10, 5, 5]
    rows = source.load_rows("val")
    assert captions(rows)[4] == ("1000092797.jpg", "Person 4 waits.")
    np.testing.assert_allclose(reds(rows), [120] * 5, atol=2)


def test_missing_images_stop_or_take_their_captions_along(tmp_path):
    layouts.coco(tmp_path)
    (tmp_path / "train2014/COCO_train2014_000000000009.jpg").unlink()
    message = (
        r"COCO: 1 of 3 images that .*dataset_coco.json names are not in .*"
        r"\(train2014/COCO_train2014_000000000009.jpg\)\. .* their 2 of 5 captions"
    )
    with pytest.raises(FileNotFoundError, match=message):
        CocoCaptions(str(tmp_path)).load_rows("train")
    with pytest.warns(UserWarning, match="1 of 3 images .* 2 of 5 captions are left out"):
        rows = CocoCaptions(str(tmp_path), missing_images="skip").load_rows("train")
    assert numbers(rows) == [0, 0, 1]
    assert [text for _, text in captions(rows)] == [
        "A woman cuts a cake.",
        "A café.",
        "Two giraffes.",
    ]
    np.testing.assert_allclose(reds(rows), [0, 0, 30], atol=2)


def test_no_image_at_all_is_another_layout(tmp_path):
    layouts.coco(tmp_path)
    for path in tmp_path.glob("*2014/*"):
        path.unlink()
    source = CocoCaptions(str(tmp_path), missing_images="skip")
    with pytest.raises(FileNotFoundError, match=r"expected the images that .* names, such as val2"):
        source.load_rows("train")


def test_a_broken_image_is_never_another(tmp_path):
    layouts.coco(tmp_path)
    (tmp_path / "train2014/COCO_train2014_000000000009.jpg").write_text("<html>404</html>")
    rows = CocoCaptions(str(tmp_path), missing_images="skip").load_rows("train")
    with pytest.raises(CorruptImageError, match=r"0009\.jpg \(Unidentified.*missing_images: skip"):
        rows.source.read(2)


def edited(root, change):
    path = root / "karpathy/dataset_coco.json"
    content = json.loads(path.read_text())
    change(content["images"][1])
    path.write_text(json.dumps(content))
    return CocoCaptions(str(root), missing_images="skip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image.update(split="tran"), r"image 1: expected a split .*Did you mean tr"),
        (lambda image: image.pop("split"), r"image 1: expected a split .*found None"),
        (lambda image: image.pop("sentences"), r"image 1: expected sentences, found None"),
        (lambda image: image.update(sentences=[]), r"image 1: expected sentences, found \[\]"),
        (lambda image: image["sentences"][0].pop("raw"), r"image 1: expected a text 'raw'"),
        (lambda image: image["sentences"][0].update(raw=3), r"image 1: expected a caption, f"),
        (lambda image: image["sentences"][0].update(raw="\ud800"), "image 1: expected a caption"),
        (lambda image: image.pop("filename"), r"image 1: expected the path of an im"),
        (lambda image: image.update(filepath=".."), r"image 1: the image \.\. leads out of"),
        (lambda image: image.update(filename="../a.jpg"), r"image 1: the image \.\./a.jpg leads"),
        (lambda image: image.update(filename="/etc/a.jpg"), r"image 1: the image /etc/a.jpg does"),
        (lambda image: image.update(filename="a/b.jpg"), r"image 1: expected a name without fold"),
    ],
)  # fmt: skip
def test_wrong_images_name_their_place(tmp_path, change, message):
    source = edited(layouts.coco(tmp_path), change)
    with pytest.raises(InputError, match=message) as caught:
        source.load_rows("train")
    assert "dataset_coco.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_captions_are_left_out_and_counted(tmp_path):
    source = edited(layouts.coco(tmp_path), lambda image: image["sentences"][0].update(raw=" \n"))
    with pytest.warns(UserWarning, match=r"1 captions of .* are empty \(image 1\)"):
        rows = source.load_rows("train")
    assert len(rows) == 4
    assert numbers(rows) == [0, 0, 1, 2]


def test_no_annotations(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"COCO: expected dataset_coco.json .*is empty"):
        CocoCaptions(str(tmp_path)).load_rows("train")
    with pytest.raises(InputError, match="missing_images must be 'error' or 'skip'"):
        CocoCaptions(str(tmp_path), missing_images="ignore")


def test_a_list_of_images_alone_is_no_such_file(tmp_path):
    path = layouts.coco(tmp_path) / "karpathy/dataset_coco.json"
    path.write_text(json.dumps({"annotations": [], "info": {"images": []}}))
    with pytest.raises(
        InputError, match=r"expected the list 'images', found 'annotations', 'info'"
    ):
        CocoCaptions(str(tmp_path)).load_rows("train")


# Visual Genome


def test_visual_genome_drops_repeated_phrases_in_order(tmp_path):
    source = VisualGenomeRegions(str(layouts.visual_genome(tmp_path)))
    rows = source.load_rows("train")
    assert captions(rows) == [
        ("VG_100K_2/1.jpg", "the clock is green"),
        ("VG_100K_2/1.jpg", "a man"),
        ("VG_100K_2/1.jpg", "shade"),
        ("VG_100K/2.jpg", "a car"),
        ("VG_100K_2/3.jpg", "a man"),
        ("VG_100K_2/3.jpg", "a car"),
        ("VG_100K_2/3.jpg", "blue sky"),
    ]
    assert numbers(rows) == [0, 0, 0, 1, 2, 2, 2]
    np.testing.assert_allclose(reds(rows), [20, 20, 20, 40, 60, 60, 60], atol=2)
    assert source.load_rows("val") is source.load_rows("test") is None


def test_visual_genome_with_half_of_its_images(tmp_path):
    layouts.visual_genome(tmp_path)
    (tmp_path / "images/VG_100K/2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"<number>.jpg in both VG_100K/ and VG_100K_2/"):
        VisualGenomeRegions(str(tmp_path)).load_rows("train")
    with pytest.warns(UserWarning, match=r"1 of 3 images .* their 1 of 7 captions are left out"):
        rows = VisualGenomeRegions(str(tmp_path), missing_images="skip").load_rows("train")
    assert numbers(rows) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{}]", r"item 0: expected an object with a list of regions"),
        ('[{"regions": [{"image_id": "1", "phrase": "a"}]}]', "item 0: expected a region wi"),
        ('[{"regions": [{"image_id": 1}]}]', r"item 0: expected a region with a phrase"),
        ('[{"regions": []}', r"expected ',' or '\]', found 'its end' \(at character 16\)"),
        ("", r"expected '\[', found 'its end'"),
        ("[]", "lists nothing: expected the regions"),
        (f'[{{"regions": [{{"image_id": {"9" * 5000}}}]}}]', "a number with thousands of digits"),
    ],
)  # fmt: skip
def test_broken_regions(tmp_path, content, message):
    path = layouts.visual_genome(tmp_path) / "annotations/region_descriptions.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        VisualGenomeRegions(str(tmp_path)).load_rows("train")


# SBU and Conceptual Captions


def test_sbu_finds_files_of_another_machines_list(tmp_path):
    rows = SBUCaptions(str(layouts.annotated(tmp_path))).load_rows("train")
    assert captions(rows)[3] == ("images_train/0003/0003000", "photo 3 of a lake")
    assert numbers(rows) == [0, 1, 2, 3]
    # RGB, grey, CMYK and with transparency, without an ending; red 5 is grey 1
    assert all(rows.source.read(row).shape[0] == 3 for row in range(4))
    np.testing.assert_allclose(reds(rows), [0, 1, 10, 15], atol=2)
    assert SBUCaptions(str(tmp_path)).load_rows("val") is None
    entries = [[file, "a lake"] for file in ("0001000", "0000/0000000", "sbu/x/0002000")]
    (tmp_path / "annot.json").write_text(json.dumps(entries))
    names = [name for name, _ in captions(SBUCaptions(str(tmp_path)).load_rows("train"))]
    assert names == [
        f"images_train/{name[:4]}/{name}" for name in ("0001000", "0000000", "0002000")
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["a"], r"item 1: expected \[path, caption\]"),
        ({"path": "a"}, r"item 1: expected \[path, caption\]"),
        ([3, "a"], "item 1: expected the path of an image, found 3"),
        (["images_train/../../a", "a"], "item 1: the image .* leads out of"),
        (["http://example.org/a.jpg", "a"], "item 1: .* found the address http:.*fetch"),
        (["0001000", None], "item 1: expected a caption, found None"),
    ],
)  # fmt: skip
def test_wrong_entries(tmp_path, entry, message):
    layouts.annotated(tmp_path)
    (tmp_path / "annot.json").write_text(json.dumps([["0000000", "a"], entry]))
    with pytest.raises(InputError, match=message):
        SBUCaptions(str(tmp_path), missing_images="skip").load_rows("train")
    (tmp_path / "annot.json").write_text("[]")
    with pytest.raises(InputError, match=r"annot\.json lists nothing"):
        SBUCaptions(str(tmp_path)).load_rows("train")


def test_conceptual_captions_of_two_lists(tmp_path):
    layouts.annotated(tmp_path, "train_annot.json")
    source = ConceptualCaptions(str(tmp_path))
    assert len(source.load_rows("train")) == 4
    assert source.load_rows("val") is source.load_rows("test") is None
    layouts.annotated(tmp_path, "val_annot.json", "images_val", 2, prefix="")
    assert captions(source.load_rows("val"))[1] == ("images_val/0001/0001000", "photo 1 of a lake")
    layouts.addressed(tmp_path)  # comes after them
    assert len(source.load_rows("train")) == 4


def test_conceptual_captions_of_the_official_table(tmp_path):
    source = ConceptualCaptions(str(layouts.addressed(tmp_path)), missing_images="skip")
    rows = source.load_rows("train")
    assert [text for _, text in captions(rows)] == [f'training "{i}" of actor' for i in range(3)]
    np.testing.assert_allclose(reds(rows), [0, 7, 14], atol=2)
    assert len(source.load_rows("val")) == 3
    # An image of another line, or of another address, is never taken.
    table = tmp_path / "Train_GCC-training.tsv"
    lines = table.read_text().splitlines()
    table.write_text("\r\n".join([lines[1], lines[0], lines[2]]))
    with pytest.warns(UserWarning, match="2 of 3 images"):
        rows = source.load_rows("train")
    assert [text for _, text in captions(rows)] == ['training "2" of actor']
    table.write_text(f"{lines[0]}\nno address\n")
    with pytest.raises(InputError, match=r"training\.tsv, line 2: expected a caption, a tab"):
        source.load_rows("train")
    table.write_text("\n")
    with pytest.raises(InputError, match=r"training\.tsv lists nothing"):
        source.load_rows("train")


def test_conceptual_captions_without_a_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train_annot.json or annot.json or Train_GCC-tr"):
        ConceptualCaptions(str(tmp_path)).load_rows("train")
