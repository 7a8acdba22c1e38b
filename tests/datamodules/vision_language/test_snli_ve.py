"""SNLI-VE in its official layout."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lit_ssl.contracts.batches import labelled_inputs
from lit_ssl.datamodules import SNLIVEDataModule, Subset
from lit_ssl.errors import InputError

# image, hypothesis, label
TRAIN = [
    ("36979", "Two men sit.", "neutral"),
    ("36979", "No one is there.", "contradiction"),
    ("36979", "There are people.", "entailment"),
    ("1000092795", "A caf\u00e9 is open.", "neutral"),
    ("10002456", "Men work.", "entailment"),
]
DEV = [
    ("65567", "A dog runs.", "entailment"),
    ("65567", "A cat sleeps.", "contradiction"),
    ("7", "A cat.", "neutral"),
]
TEST = [("8", "Snow.", "contradiction"), ("9", "Sun.", "entailment")]
SPLITS = {"train": TRAIN, "dev": DEV, "test": TEST}
LABELS = {"contradiction": 0, "neutral": 1, "entailment": 2}


def entry(row, number=0):
    image, hypothesis, label = row
    return {
        "Flickr30K_ID": image,
        "annotator_labels": [label],
        "captionID": f"{image}.jpg#{number}",
        "gold_label": label,
        "pairID": f"{image}.jpg#{number}r1{label[0]}",
        "sentence1": "Two friends with shaggy hair look at their hands.",
        "sentence1_binary_parse": "( Two friends )",
        "sentence2": hypothesis,
        "sentence2_binary_parse": "( Two )",
    }


def write(root, split, entries):
    path = root / f"snli_ve_{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in entries))
    return path


@pytest.fixture
def snli_ve(tmp_path):
    """Each image is grey, of the shade 10, 20, … in the order of their first rows."""
    root = tmp_path / "snli_ve"
    (root / "flickr30k-images").mkdir(parents=True)
    for split, rows in SPLITS.items():
        write(root, split, [entry(row, number) for number, row in enumerate(rows)])
    images = dict.fromkeys(row[0] for rows in SPLITS.values() for row in rows)
    for place, image in enumerate(images, start=1):
        Image.new("RGB", (20 + place, 30), (10 * place,) * 3).save(
            root / f"flickr30k-images/{image}.jpg", quality=98
        )
    return root


@pytest.fixture
def make(snli_ve):
    def build(**options):
        options = {"image_size": 8, "num_workers": 0, "tokenizer": "bytes", **options}
        return SNLIVEDataModule(**{"root": str(snli_ve), **options})

    return build


def whole(loader):
    (batch,) = loader
    return batch


def test_batches(make):
    data = make()
    assert list(data.class_names) == ["contradiction", "neutral", "entailment"]
    assert data.num_classes == 3
    data.setup()
    inputs, labels = whole(data.bank_dataloader())
    assert set(inputs) == {"images", "input_ids", "attention_mask"}
    assert inputs["images"].shape == (5, 3, 8, 8)
    assert inputs["images"].dtype == torch.uint8
    shades = inputs["images"].float().mean((1, 2, 3))
    assert shades.tolist() == pytest.approx([10, 10, 10, 20, 30], abs=1)
    assert labels.tolist() == [1, 0, 2, 1, 2]
    assert labels.dtype == torch.int64
    texts = [bytes(row[row < 256].tolist()).decode() for row in inputs["input_ids"]]
    assert texts == [row[1] for row in TRAIN]  # the premise is nowhere
    on_device = data.on_after_batch_transfer((inputs, labels), 0)
    assert labelled_inputs(on_device, 3)[0]["images"].is_floating_point()
    assert on_device[1] is labels


def test_splits(make):
    data = make(batch_size=2)
    data.setup()
    assert data.labels("val").tolist() == [2, 0, 1]
    assert data.labels("test").tolist() == [0, 2]
    assert not data.validates_on_test
    assert [len(labels) for _, labels in data.val_dataloader()] == [2, 1]
    assert data.identifiers("test") == ["8.jpg#0r1c", "9.jpg#1r1e"]


def test_what_was_found_is_said(make, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    make().setup("test")
    assert "test: 2 hypotheses of 2 of 3 classes (none of neutral) in" in " ".join(caplog.messages)


def test_rows_without_a_majority_are_counted(make, snli_ve):
    rows = [entry(row, number) for number, row in enumerate(DEV)]
    rows[1]["gold_label"] = "-"
    path = write(snli_ve, "dev", rows)
    data = make()
    with pytest.warns(UserWarning, match="1 of 3 rows of .* have the label '-', .* left out"):
        data.setup("validate")
    assert data.labels("val").tolist() == [2, 1]
    inputs, _ = whole(data.val_dataloader())
    assert inputs["images"].float().mean((1, 2, 3)).tolist() == pytest.approx([40, 50], abs=1)
    path.write_text(json.dumps(rows[1]))
    with pytest.raises(InputError, match="no hypothesis has a label"):
        make().setup("validate")


def test_missing_images_stop_or_take_their_hypotheses_along(make, snli_ve):
    (snli_ve / "flickr30k-images/36979.jpg").unlink()
    message = (
        r"1 images that .*snli_ve_train\.jsonl names are not in .*"
        r" \(flickr30k-images/36979\.jpg\)\. .* their 3 of 5 hypotheses"
    )
    with pytest.raises(FileNotFoundError, match=message):
        make().setup("fit")
    data = make(missing_images="skip")
    with pytest.warns(UserWarning, match="their 3 of 5 hypotheses are left out"):
        data.setup("fit")
    inputs, labels = whole(data.bank_dataloader())
    assert labels.tolist() == [1, 2]
    assert inputs["images"].float().mean((1, 2, 3)).tolist() == pytest.approx([20, 30], abs=1)
    for path in (snli_ve / "flickr30k-images").iterdir():
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"images that .* names, such as flickr30k-images/8"
    ):
        make(missing_images="skip").setup("test")
    (snli_ve / "flickr30k-images").rmdir()
    with pytest.raises(FileNotFoundError, match=r"such as flickr30k-images/8\.jpg, in flickr30k"):
        make(missing_images="skip").setup("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gold_label": "maybe"}, "line 2: expected contradiction, neutral, entailment or - in"),
        ({"gold_label": None}, "line 2: expected contradiction, .* found None"),
        ({"gold_label": ["neutral"]}, "line 2: expected contradiction"),
        ({"sentence2": " "}, "line 2: expected a text in sentence2, found ' '"),
        ({"sentence2": "a \udc00"}, r"line 2: expected a text in sentence2"),
        ({"Flickr30K_ID": "../8"}, "line 2: expected the name of an image without its ending"),
        ({"Flickr30K_ID": "8.jpg"}, "line 2: expected the name of an image without its ending"),
        ({"Flickr30K_ID": 8}, "line 2: expected the name of an image without its ending"),
    ],
)
def test_wrong_lines_are_named(make, snli_ve, changes, message):
    path = write(snli_ve, "test", [entry(TEST[0]), {**entry(TEST[1]), **changes}])
    with pytest.raises(InputError, match=message) as caught:
        make().setup("test")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a JSON object with a hypothesis in each line"),
        ("\n \n", "is empty"),
        ("\n[3]", r"line 2: expected a JSON object with a hypothesis, found \[3\]"),
        (json.dumps(entry(TEST[0])) + '\n{"Flickr', "line 2: expected a JSON object .* \\(Unterm"),
    ],
)
def test_files_of_other_kinds(make, snli_ve, text, message):
    (snli_ve / "snli_ve_test.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        make().setup("test")


def test_no_files(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"SNLI-VE: expected snli_ve_train\.jsonl in"):
        make(root=str(tmp_path)).setup("fit")


def test_subset_by_names(make, tmp_path):
    (tmp_path / "list.txt").write_text("36979.jpg#2r1e\n10002456.jpg#4r1e\n")
    data = make(subset=Subset(file=str(tmp_path / "list.txt")))
    assert data.labels("train").tolist() == [2, 2]


def test_names_without_pair_ids(make, snli_ve):
    rows = [entry(row) for row in TEST]
    for row in rows:
        del row["pairID"]
    write(snli_ve, "test", rows)
    assert make().identifiers("test") == ["8.jpg#1", "9.jpg#2"]


def test_three_shards_cover_each_row_once(make, monkeypatch):
    data = make()
    rows = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        rows += [
            (bytes(ids[ids < 256].tolist()).decode(), int(label))
            for inputs, labels in data.bank_dataloader()
            for ids, label in zip(inputs["input_ids"], labels, strict=True)
        ]
    assert sorted(rows) == sorted((row[1], LABELS[row[2]]) for row in TRAIN)


def test_training_batches_are_a_function_of_the_seed(make):
    def epoch(**options):
        data = make(batch_size=2, **options)
        return [labels.tolist() for _, labels in data.train_dataloader()]

    assert epoch(seed=3) == epoch(seed=3, num_workers=2)
    assert len(epoch()) == 2
    assert len(epoch(drop_last=False)[-1]) == 1
