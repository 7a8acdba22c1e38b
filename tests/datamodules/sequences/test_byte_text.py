"""Texts as bytes: aclImdb's layout and a table."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from lit_ssl.datamodules import ByteTextCSVDataModule, ByteTextDataModule
from lit_ssl.errors import InputError

TEXTS = {
    "train/neg/0_3.txt": b"Bad.<br />",
    "train/neg/10_1.txt": "Très mauvais €".encode(),
    "train/neg/2_4.txt": b"",
    "train/pos/0_9.txt": b"\xef\xbb\xbfGood",
    "train/pos/1_7.txt": "Fine…".encode("utf-16"),
    "train/pos/2_10.txt": b"\xff not \x00 UTF-8",
    "train/unsup/0_0.txt": b"Whatever",
    "test/neg/0_2.txt": b"No",
    "test/pos/0_10.txt": b"A long, long text",
}


@pytest.fixture
def aclimdb(tmp_path):
    """The folder that holds the official one."""
    folder = tmp_path / "aclImdb"
    for name, content in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name in ("README", "imdb.vocab", "train/labeledBow.feat", "train/urls_pos.txt"):
        (folder / name).write_text("1")
    return tmp_path


def texts(data, split):
    tokens = data.rows(split).source.tokens
    return [bytes(part) for part in np.split(tokens.ids, tokens.starts[1:-1])]


def test_bytes_of_reviews(aclimdb, caplog):
    data = ByteTextDataModule(root=str(aclimdb), val_size=0, batch_size=3)
    assert (data.vocab_size, data.pad_id, data.max_length) == (257, 256, 4096)
    assert data.class_names == ("neg", "pos")
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="train: 1 of 6 texts are empty"):
        data.setup()
    assert "the unlabelled texts of" in caplog.text
    assert f"train: 6 texts of 2 classes in {aclimdb / 'aclImdb' / 'train'}" in caplog.text
    expected = [b"Bad.<br />", "Très mauvais €".encode(), b"", b"Good", "Fine…".encode()]
    assert texts(data, "train") == [*expected, b"\xff not \x00 UTF-8"]
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.rows("train").name(1) == "neg/10_1.txt"
    assert texts(data, "test") == [b"No", b"A long, long text"]
    assert data.validates_on_test
    inputs, _ = next(iter(data.bank_dataloader()))
    assert inputs["input_ids"][0, 9:11].tolist() == [ord(">"), 256]
    assert inputs["attention_mask"].sum(1).tolist() == [10, 17, 1]
    assert inputs["input_ids"][2, 0] == 256


def test_held_out_cut_and_listed(aclimdb, tmp_path, caplog):
    (tmp_path / "list.txt").write_text("neg/0_3.txt\ntrain/pos/2_10.txt\n")
    data = ByteTextDataModule(
        root=str(aclimdb / "aclImdb"), val_size=0, val_file=str(tmp_path / "list.txt"), max_length=5
    )
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert texts(data, "val") == [b"Bad.<", b"\xff not"]
    assert "val: 2 of 2 texts are cut to 5 bytes (max_length); the longest has 13" in caplog.text
    assert len(texts(data, "train")) == 4
    assert not data.validates_on_test


@pytest.mark.parametrize(
    ("take_away", "message"),
    [
        (["test/neg/0_2.txt"], "aclImdb: expected texts .*neg/\\*.txt. Found: .*neg is empty"),
        (["test/neg/0_2.txt", "test/neg"], "expected texts .*neg/\\*.txt. Found: .*does not exist"),
        (
            ["test/neg/0_2.txt", "test/neg", "test/pos/0_10.txt", "test/pos", "test"],
            "expected test in .* holds README",
        ),
    ],
)
def test_another_layout(aclimdb, take_away, message):
    for name in take_away:
        path = aclimdb / "aclImdb" / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        ByteTextDataModule(root=str(aclimdb / "aclImdb")).setup("test")


def test_other_files_among_the_texts(aclimdb):
    for name in ("._0_9.txt", "0_9.txt.gz"):
        (aclimdb / "aclImdb" / "train" / "pos" / name).write_text("x")
    data = ByteTextDataModule(root=str(aclimdb), val_size=2)
    with pytest.warns(UserWarning, match=r"2 entries of .*pos are no texts .* \._0_9.txt, 0_9.tx"):
        data.setup("fit")
    assert np.bincount(data.labels("train")).tolist() == [2, 2]


def test_a_mark_that_does_not_hold(aclimdb):
    (aclimdb / "aclImdb" / "test" / "pos" / "0_10.txt").write_bytes(b"\xff\xfeabc")
    with pytest.raises(InputError, match=r"0_10\.txt is no text in utf-16, which its byte-order"):
        ByteTextDataModule(root=str(aclimdb)).setup("test")


# A table


@pytest.fixture
def table(tmp_path):
    """Writes a table; returns its path."""

    def write(rows, header=("text", "label", "split"), encoding="utf-8"):
        path = tmp_path / "texts.csv"
        with path.open("w", newline="", encoding=encoding) as file:
            csv.writer(file).writerows([header, *rows])
        return str(path)

    return write


ROWS = [
    ("A, “quoted”\ntext", 0, "train"),
    ("", 2, "train"),
    ("héhé", 1, "val"),
    ("x", "", "test"),
    ("y", -1, "2"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table(table, encoding, caplog):
    data = ByteTextCSVDataModule(table=table(ROWS, encoding=encoding), batch_size=2)
    assert data.num_classes == 3
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="train: 1 of 2 texts are empty"):
        data.setup()
    assert texts(data, "train") == ["A, “quoted”\ntext".encode(), b""]
    assert texts(data, "val") == ["héhé".encode()]
    assert [data.labels(split).tolist() for split in ("train", "val", "test")] == [
        [0, 2], [1], [-1, -1],
    ]  # fmt: skip
    assert "test: 2 texts without labels in" in caplog.text
    (inputs, labels) = next(iter(data.test_dataloader()))
    assert inputs["input_ids"].tolist() == [[ord("x")], [ord("y")]]
    assert labels.tolist() == [-1, -1]


def test_a_table_without_splits_and_with_names(table):
    rows = [(f"text {number}", ("no", "yes")[number % 2]) for number in range(10)]
    path = table(rows, ("body", "answer"))
    columns = {"text_column": "body", "label_column": "answer", "class_names": ["no", "yes"]}
    data = ByteTextCSVDataModule(table=path, val_size=4, **columns)
    assert np.bincount(data.labels("val")).tolist() == [2, 2]
    assert len(data.labels("train")) == 6
    with pytest.raises(InputError, match="has no texts for the test split"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        (ROWS, {"split_column": "part"}, InputError, "no column 'part'"),
        (ROWS, {"text_column": "txt"}, InputError, "no column 'txt'.* Did you mean text"),
        ([("a", "dog", "train")], {}, InputError, "line 2: 'dog'.*give class_names"),
        ([("a", "0", "dev")], {}, InputError, "'dev'.*expected train, val or test"),
        ([("a", "0", "test")], {}, InputError, "no training row"),
        ([("a" * 140_000, "0", "train")], {}, InputError, "texts of at most 131,072 characters"),
    ],
)
def test_tables_that_are_wrong(table, rows, options, error, message):
    with pytest.raises(error, match=message):
        ByteTextCSVDataModule(table=table(rows), **options).setup("fit")


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the file .*none\.csv\. Found: .* Set table"):
        ByteTextCSVDataModule(table=str(tmp_path / "none.csv")).setup("fit")


def test_a_table_without_validation_rows_warns(table):
    rows = [("a", 0, "train"), ("b", 1, "train"), ("c", 0, "test")]
    with pytest.warns(UserWarning, match="no val row: the test rows take their place"):
        ByteTextCSVDataModule(table=table(rows)).setup("fit")


def test_what_is_no_text_or_no_class(aclimdb):
    train = aclimdb / "aclImdb" / "train"
    (train / "neutral").mkdir()
    (train / "neutral" / "0_5.txt").write_text("So so")
    data = ByteTextDataModule(root=str(aclimdb), val_size=0)
    with pytest.warns(UserWarning, match="other folders than neg and pos, .* left out: neutral"):
        data.rows("train")
    (train / "pos" / "lost.txt").symlink_to(aclimdb / "nowhere")
    with pytest.raises(InputError, match=r"cannot read .*lost\.txt \(No such file"):
        ByteTextDataModule(root=str(aclimdb), val_size=0).rows("train")
    (train / "pos" / "lost.txt").unlink()
    (train / "pos" / "lost.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*lost\.txt \(it is a folder"):
        ByteTextDataModule(root=str(aclimdb), val_size=0).rows("train")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("text,label\na,0\nb, it is,1\n", {}, "line 3 of .* has 3 columns, its header 2"),
        ("text,text,label\na,b,0\n", {}, "has 2 columns 'text'"),
        ("text,label\na,0\nb,99999999999\n", {}, "has the number 99,999,999,999 in column 'label'"),
        ("text,label\na,x\n", {"class_names": ["x", "x"]}, "names a class twice: x, x"),
    ],
)  # fmt: skip
def test_tables_that_would_go_wrong_in_silence(tmp_path, text, options, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        ByteTextCSVDataModule(table=str(tmp_path / "table.csv"), **options).rows("train")


def test_blank_lines_and_trailing_commas_are_no_rows(tmp_path):
    (tmp_path / "table.csv").write_text("text,label\na,0\n\n   \nb,1,,\n")
    data = ByteTextCSVDataModule(table=str(tmp_path / "table.csv"))
    assert texts(data, "train") == [b"a", b"b"]
