"""Lists of one's own images and captions."""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.datamodules import PairList, VLPretrainDataModule
from lit_ssl.errors import InputError
from lit_ssl.text import CorpusWordPiece

sys.path.insert(0, str(Path(__file__).parent))
import source_layouts as layouts

ROWS = [
    ("img/b.png", 'Ein "Käse", groß', "train"),
    ("a.jpg", "猫が座る", "train"),
    ("./img/b.png", " A cheese. ", "train"),
    ("img/c", "a, b\nand c", "valid"),
]


@pytest.fixture
def folder(tmp_path):
    layouts.write_image(tmp_path / "img/b.png", 50, "RGB")  # a JPEG
    layouts.write_image(tmp_path / "a.jpg", 90, "RGBA")  # a PNG
    layouts.write_image(tmp_path / "img/c", 120, "L")
    return tmp_path


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def write_csv(path, header=("image", "caption", "split"), rows=ROWS, end="\n", bom=b"", mark=","):
    lines = [mark.join(header), *(mark.join(map(quoted, row[: len(header)])) for row in rows)]
    path.write_bytes(bom + end.join([*lines, ""]).encode())
    return str(path)


def captions(rows):
    return [(rows.name(row), rows.source.texts[row]) for row in range(len(rows))]


def check(source, train=3):
    rows = source.load_rows("train")
    assert captions(rows)[:3] == [
        ("img/b.png", 'Ein "Käse", groß'),
        ("a.jpg", "猫が座る"),
        ("img/b.png", "A cheese."),
    ]
    assert rows.columns["image_number"].tolist()[:3] == [0, 1, 0]
    assert len(rows) == train
    reds = [float(rows.source.read(row)[0].float().mean()) for row in range(3)]
    np.testing.assert_allclose(reds, [50, 90, 50], atol=2)


@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(folder, bom, end):
    source = PairList(write_csv(folder / "pairs.csv", bom=bom, end=end))
    check(source)
    assert captions(source.load_rows("val")) == [("img/c", "a, b\nand c")]
    assert source.load_rows("test") is None
    assert source.name == "pairs"


def test_tabs_and_utf16(folder):
    path = write_csv(folder / "pairs.tsv", mark="\t")
    check(PairList(path))
    text = Path(path).read_text(encoding="utf-8")
    Path(path).write_text(text, encoding="utf-16")
    check(PairList(path))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines(folder, tmp_path_factory, end):
    path = tmp_path_factory.mktemp("lists") / "pairs.jsonl"
    lines = [json.dumps(dict(zip(("file", "text"), row[:2], strict=True))) for row in ROWS]
    path.write_bytes(codecs.BOM_UTF8 + end.join(lines).encode())
    options = {"image_column": "file", "caption_column": "text"}
    check(PairList(str(path), str(folder), **options), train=4)
    assert PairList(str(path), str(folder), **options).load_rows("val") is None
    with pytest.raises(InputError, match=r"line 1: there is no 'image', but 'file', 'text'\."):
        PairList(str(path), str(folder)).load_rows("train")


def test_columns_of_other_names(folder):
    path = write_csv(folder / "pairs.csv", header=("Path", "title", "part"))
    with pytest.raises(InputError, match=r"has no column 'image', its columns are 'Path', 'title'"):
        PairList(path).load_rows("train")
    options = {"image_column": "Path", "caption_column": "title"}
    assert len(PairList(path, **options).load_rows("train")) == 4
    check(PairList(path, **options, split_column="part"))
    with pytest.raises(InputError, match=r"no column 'captoin'.*Did you mean title|no column"):
        PairList(path, **options | {"caption_column": "captoin"}).load_rows("train")
    with pytest.raises(InputError, match="has no column 'split'"):
        PairList(path, **options, split_column="split").load_rows("train")


def test_absolute_paths_below_the_root_and_those_of_windows(folder, monkeypatch):
    rows = [(str(folder / "img/b.png"), "a", "0"), ("img\\c", "b", "0")]
    path = write_csv(folder / "pairs.csv", rows=rows)
    assert captions(PairList(path).load_rows("train")) == [("img/b.png", "a"), ("img/c", "b")]
    monkeypatch.chdir(folder / "img")
    source = PairList(path, root="../img/..")
    assert captions(source.load_rows("train")) == [("img/b.png", "a"), ("img/c", "b")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("", "a"), "line 3: expected the path of an image, found ''"),
        ((".", "a"), r"line 3: the image \. leads out of"),
        (("../secret.png", "a"), r"line 3: the image \.\./secret.png leads out of"),
        (("..\\secret.png", "a"), "line 3: the image .*secret.png leads out of"),
        (("img/../../secret.png", "a"), "line 3: the image .* leads out of"),
        (("/etc/passwd", "a"), "line 3: the image /etc/passwd does not lie in"),
        (("https://example.org/a.jpg", "a"), "line 3: .* found the address https"),
        (("a.jpg", "  "), "line 3: expected a caption as 'caption', found ' *'"),
        (("a.jpg", "a", "dev"), "line 3: expected train, val or test, .* as 'split', found 'dev'"),
    ],
)
def test_wrong_rows(folder, row, message):
    names = ("image", "caption", "split")[: len(row)]
    rows = [("a.jpg", "a", "train"), row]
    path = write_csv(folder / "pairs.csv", header=names, rows=rows)
    with pytest.raises(InputError, match=message) as caught:
        PairList(path, missing_images="skip").load_rows("train")
    assert str(path) in str(caught.value)
    path = folder / "pairs.jsonl"
    path.write_text("\n\n".join(json.dumps(dict(zip(names, r, strict=False))) for r in rows))
    with pytest.raises(InputError, match=message):
        PairList(str(path), missing_images="skip").load_rows("train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"image": "a.jpg", "caption": "a"}\n{"image": ', r"line 2: expected a JSON"),
        ("p.jsonl", '[{"image": "a.jpg"}]', r"line 1: expected a JSON object .* found \[\{"),
        ("p.jsonl", '{"image": ["a.jpg"], "caption": "a"}', "line 1: expected the path of an imag"),
        ("p.jsonl", '{"image": "a.jpg", "caption": ["a"]}', r"line 1: expected a caption"),
        ("p.jsonl", "\n", "lists nothing"),
        ("p.jsonl", b"\xff\xfe\xff", "is no text in UTF-8"),
        ("p.csv", "image,caption\n", "lists nothing"),
        ("p.csv", "", "has no column 'image', its columns are missing"),
        ("p.csv", "image,caption\na.jpg\n", "line 2 of .* has 1 of 2 columns"),
        ("p.csv", "image,caption\na.jpg,a,b\n", "line 2 .* 3 columns, its header 2"),
        ("p.csv", "image,caption,image\na.jpg,a,b\n", "has 2 columns 'image'"),
        ("p.csv", b"image,caption\n\xff,a", "is no text with comma-separated values"),
        ("p.csv", 'image,caption\na.jpg,"a\na.jpg,b\n', "unexpected end of data"),
        ("p.tsv", 'image\tcaption\na.jpg\t"a" b\n', "'\t' expected after '\"'"),
        ("p.csv", "image,caption,Split\na.jpg,a,test\n", "has 'Split': set split_column to it"),
        ("p.jsonl", '{"image": "a.jpg", "caption": "a", "split": null}', "line 1: .* found 'None'"),
        ("p.jsonl", '{"image": "a.jpg", "caption": "a"}\n'
         '{"image": "a.jpg", "caption": "b", "split": "test"}', "line 2: there is a 'split'"),
    ],
)  # fmt: skip
def test_broken_files(folder, name, content, message):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        PairList(str(path)).load_rows("train")
    assert "\n" not in str(caught.value)


def test_captions_over_several_lines_are_told(folder, recwarn):
    """A quotation mark that another one closes, lines later, cannot be told from a long caption."""
    path = folder / "pairs.csv"
    path.write_text('image,caption\na.jpg,"a lake\nimg/c,a dog"\nimg/c,x\n')
    assert len(PairList(str(path)).load_rows("train")) == 2
    said = [str(warning.message) for warning in recwarn]
    assert any("1 captions of" in text and "up to line 3" in text for text in said), said


def test_a_folder_with_the_name_of_an_image_is_none(folder):
    (folder / "d.jpg").mkdir()
    (folder / "round").symlink_to("round")
    rows = [("a.jpg", "a", "train"), ("d.jpg", "b", "train")]
    path = write_csv(folder / "pairs.csv", rows=rows)
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images .* are not in .*\(d\.jpg\)"):
        PairList(path).load_rows("train")
    path = write_csv(folder / "none.csv", rows=rows[1:])
    # the message lists the folder, and a link that goes round in a circle with it
    with pytest.raises(FileNotFoundError, match=r"such as d\.jpg\. Found: .* holds"):
        PairList(path).load_rows("train")
    path = write_csv(folder / "round.csv", rows=[("round/a.jpg", "a", "train")])
    with pytest.raises(InputError, match=r"cannot list the folder .*round"):
        PairList(path).load_rows("train")


def test_no_file_and_another_kind(folder):
    with pytest.raises(FileNotFoundError, match=r"no: expected the file .*no\.csv\. Found: "):
        PairList(str(folder / "no.csv")).load_rows("train")
    with pytest.raises(InputError, match=r"reads \.csv, \.tsv and \.jsonl"):
        PairList(str(folder / "pairs.parquet"))


def test_missing_images_are_listed_folder_by_folder(folder, monkeypatch):
    rows = [(f"img/{i}.jpg", "a", "0") for i in range(5)] + [("b/x.jpg", "a", "0"), ROWS[0]]
    path = write_csv(folder / "pairs.csv", rows=rows)
    with pytest.raises(
        FileNotFoundError, match=r"pairs: 6 of 7 images .*\(img/0.jpg, img/1.jpg, im"
    ):
        PairList(path).load_rows("train")
    import os

    looked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda name: looked.append(Path(name).name) or scandir(name))
    with pytest.warns(UserWarning, match="6 of 7 images"):
        assert len(PairList(path, missing_images="skip").load_rows("train")) == 1
    assert sorted(looked) == ["b", "img"]


def test_a_skipped_image_is_named_without_the_advice_to_skip_it(folder):
    pytest.importorskip("transformers")
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff")
    data = VLPretrainDataModule(
        sources=[PairList(write_csv(folder / "pairs.csv"))],
        tokenizer=CorpusWordPiece(str(folder / "vocabulary"), 200), image_size=8, num_workers=0,
        batch_size=3, on_corrupt="skip",
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"Skipped: cannot identify .*\(a\.jpg\)") as caught:
        list(data.train_dataloader())
    assert not any("on_corrupt" in str(warning.message) for warning in caught)


def test_the_name_of_a_tokenizer_on_a_hub_is_no_path(folder):
    pytest.importorskip("transformers")
    data = VLPretrainDataModule(
        sources=[PairList(write_csv(folder / "pairs.csv"))], tokenizer="somebody/a-tokenizer",
        image_size=8,
    )  # fmt: skip
    with pytest.raises(InputError, match="no such path, and nothing is downloaded") as error:
        data.setup("fit")
    assert "connect" not in str(error.value)
