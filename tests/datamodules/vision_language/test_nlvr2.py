"""NLVR2 in its official layout."""

from __future__ import annotations

import json
import shutil

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import NLVR2DataModule, Subset
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.errors import InputError
from lit_ssl.transforms import (
    CropSpec,
    EvalTransform,
    KeepAspectRandAugment,
    MultiCrop,
    SingleView,
    normalize,
)

# set, pair, sentence, directory, label, text
TRAIN = [
    (10171, 0, 0, 7, "True", "A dog sits left of a cat."),
    (10171, 0, 1, 7, "False", "There are two dogs."),
    (10171, 1, 0, 7, "False", "A dog sits left of a cat."),
    (10172, 0, 0, 7, "True", "No cat."),
    (77, 0, 0, 31, "True", "One image shows caf\u00e9 tables."),
    (77, 1, 0, 31, "False", "One image shows caf\u00e9 tables."),
    (80, 2, 1, 40, "True", "A cat."),
]
DEV = [
    (0, 0, 0, None, "True", "A dog."),
    (0, 1, 0, None, "False", "A dog."),
    (0, 0, 1, None, "True", "A cat sits."),
    (1, 3, 0, None, "False", "A cat."),
    (2, 0, 0, None, "True", "A dog."),
]
TEST1 = [(5, 0, 0, None, "False", "A dog."), (5, 1, 0, None, "True", "A dog.")]
WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "cat", "sits", ".", "cafe", "one", "[MASK]",
]  # fmt: skip


def line(split, row):
    number, pair, sentence, directory, label, text = row
    fields = {
        "sentence": text,
        "label": label,
        "identifier": f"{split}-{number}-{pair}-{sentence}",
        "left_url": "https://example.org/l.jpg",
        "right_url": "https://example.org/r.jpg",
        "synset": "dog",
        "query": "dogs0",
        "writer": 3,
        "validation": {"4": label},
    }
    if directory is not None:
        return json.dumps({**fields, "directory": directory})
    return json.dumps({**fields, "extra_validations": {"5": label}})


def stem(split, row):
    number, pair, _, directory, *_ = row
    return f"{split}/{'' if directory is None else f'{directory}/'}{split}-{number}-{pair}"


def write_lines(path, split, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line(split, row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def nlvr2(tmp_path):
    """Red is the number of the pair among all, green 100 where the image is the right one."""
    root = tmp_path / "nlvr2"
    count = 0
    for split, rows in (("train", TRAIN), ("dev", DEV), ("test1", TEST1)):
        write_lines(root / "data" / f"{split}.json", split, rows)
        for name in dict.fromkeys(stem(split, row) for row in rows):
            path = root / "images" / name if split == "train" else root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for side in (0, 1):
                pixels = np.zeros((20 + count, 30, 3), dtype=np.uint8)
                pixels[..., 0], pixels[..., 1] = 10 * count, 100 * side
                # As they come: mostly JPEG, whatever the name.
                kind = "PNG" if count == 2 else "JPEG"
                Image.fromarray(pixels).save(f"{path}-img{side}.png", kind, **QUALITY[kind])
            count += 1
    write_lines(root / "data/balanced/balanced_dev.json", "dev", DEV[:2])
    write_lines(root / "data/unbalanced/unbalanced_dev.json", "dev", DEV[2:])
    write_lines(root / "data/balanced/balanced_test1.json", "test1", TEST1[1:])
    return root


QUALITY = {"PNG": {}, "JPEG": {"quality": 98, "subsampling": 0}}


@pytest.fixture
def make(nlvr2):
    def build(**options):
        options = {"image_size": 8, "num_workers": 0, "tokenizer": "bytes", **options}
        return NLVR2DataModule(**{"root": str(nlvr2), **options})

    return build


@pytest.fixture
def vocabulary(tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def whole(loader):
    (batch,) = loader
    return batch


def test_batches(make):
    data = make()
    data.setup()
    assert (data.num_classes, list(data.class_names)) == (2, ["False", "True"])
    inputs, labels, statements = whole(data.bank_dataloader())
    assert statements.tolist() == data.column("statement", "train").tolist()
    assert set(inputs) == {"images", "input_ids", "attention_mask"}
    assert inputs["images"].shape == (7, 2, 3, 8, 8)
    assert inputs["images"].dtype == torch.uint8
    assert labels.tolist() == [1, 0, 0, 1, 1, 0, 1]
    assert labels.dtype == torch.int64
    colours = inputs["images"].float().mean((3, 4)).round()
    expected = [[10 * pair, 100 * side] for pair in (0, 0, 1, 2, 3, 4, 5) for side in (0, 1)]
    np.testing.assert_allclose(colours.flatten(0, 1)[:, :2].tolist(), expected, atol=3)
    texts = [bytes(row[row < 256].tolist()).decode() for row in inputs["input_ids"]]
    assert texts == [row[-1] for row in TRAIN]
    lengths = [len(row[-1].encode()) for row in TRAIN]
    assert inputs["attention_mask"].sum(1).tolist() == lengths
    assert inputs["input_ids"].dtype == inputs["attention_mask"].dtype == torch.int64
    assert inputs["input_ids"].shape == (7, max(lengths))
    assert data.vocab_size == 257


def test_splits(make):
    data = make(batch_size=4)
    data.setup()
    assert data.labels("val").tolist() == [1, 0, 1, 0, 1]
    assert data.labels("test").tolist() == [0, 1]
    assert not data.validates_on_test
    batches = list(data.val_dataloader())
    assert [len(labels) for _, labels, _ in batches] == [4, 1]
    assert batches[-1][0]["images"].shape == (1, 2, 3, 8, 8)
    assert data.identifiers("val") == [
        "dev-0-0-0",
        "dev-0-1-0",
        "dev-0-0-1",
        "dev-1-3-0",
        "dev-2-0-0",
    ]
    # A sentence with two pairs is one statement; the same words in another set are another.
    assert data.column("statement", "val").tolist() == [0, 0, 1, 2, 3]
    assert data.column("statement", "train").tolist() == [0, 1, 0, 2, 3, 3, 4]


@pytest.mark.parametrize("part", ["balanced", "unbalanced"])
def test_parts_of_the_evaluation_sets(make, part):
    data = make(evaluate_on=part)
    data.setup("fit")
    wanted = DEV[:2] if part == "balanced" else DEV[2:]
    assert data.labels("val").tolist() == [int(row[4] == "True") for row in wanted]
    assert len(data.labels("train")) == 7
    if part == "balanced":
        assert data.labels("test").tolist() == [1]
    else:
        with pytest.raises(FileNotFoundError, match=r"expected unbalanced/unbalanced_test1\.json"):
            data.setup("test")


def test_json_and_images_may_lie_in_the_root(make, nlvr2):
    for path in (nlvr2 / "data").iterdir():
        path.rename(nlvr2 / path.name)
    (nlvr2 / "images" / "train").rename(nlvr2 / "train")
    data = make()
    data.setup()
    assert len(data.labels("train")) == 7


def test_second_test_set_may_have_no_labels(make, nlvr2):
    rows = [json.loads(line("test2", row)) for row in TEST1]
    for row in rows:
        del row["label"]
    (nlvr2 / "data/test2.json").write_text("\n".join(map(json.dumps, rows)))
    (nlvr2 / "test2").mkdir()
    for path in (nlvr2 / "test1").iterdir():
        shutil.copy(path, nlvr2 / "test2" / path.name.replace("test1", "test2"))
    data = make(test_split="test2")
    data.setup("test")
    assert data.labels("test").tolist() == [-1, -1]
    with pytest.raises(InputError, match="test2 has no balanced part"):
        make(test_split="test2", evaluate_on="balanced")


# Hold-out


def test_whole_directories_are_held_out(make):
    data = make(val_directories=[31, 40, 31])
    data.setup("fit")
    assert data.identifiers("val") == ["train-77-0-0", "train-77-1-0", "train-80-2-1"]
    assert data.identifiers("train") == [
        "train-10171-0-0", "train-10171-0-1", "train-10171-1-0", "train-10172-0-0",
    ]  # fmt: skip
    assert not data.validates_on_test


def test_hold_outs_that_would_leak(make, nlvr2):
    with pytest.raises(InputError, match="has no directory 8; it has 7 to 40"):
        make(val_directories=[8]).setup("fit")
    with pytest.raises(InputError, match="holds out all training rows"):
        make(val_directories=[7, 31, 40]).setup("fit")
    crossing = [*TRAIN[:5], (77, 1, 0, 40, "False", "A cat.")]
    write_lines(nlvr2 / "data/train.json", "train", crossing)
    with pytest.raises(InputError, match=r"the set 77 of .* lies in directories that are held out"):
        make(val_directories=[31]).setup("fit")


def test_subset_by_identifiers(make, tmp_path):
    (tmp_path / "list.txt").write_text("train-77-1-0\ntrain-10171-0-1\n")
    data = make(subset=Subset(file=str(tmp_path / "list.txt")))
    assert data.identifiers("train") == ["train-10171-0-1", "train-77-1-0"]
    inputs, *_ = whole(data.bank_dataloader())
    assert bytes(inputs["input_ids"][0, :5].tolist()) == b"There"


# Missing and broken images


def test_missing_images_stop_or_take_their_rows_along(make, nlvr2):
    (nlvr2 / "images/train/7/train-10171-0-img1.png").unlink()
    (nlvr2 / "images/train/40/train-80-2-img0.png").unlink()
    (nlvr2 / "images/train/40/train-80-2-img1.png").unlink()
    message = r"3 images .* \(train/7/train-10171-0-img1.png, .*\)\. .* their 3 of 7 rows"
    with pytest.raises(FileNotFoundError, match=message):
        make().setup("fit")
    data = make(missing_images="skip")
    with pytest.warns(UserWarning, match="3 images .*; their 3 of 7 rows are left out"):
        data.setup("fit")
    assert data.identifiers("train") == [
        "train-10171-1-0", "train-10172-0-0", "train-77-0-0", "train-77-1-0",
    ]  # fmt: skip
    inputs, labels, _ = whole(data.bank_dataloader())
    assert labels.tolist() == [0, 1, 1, 0]
    assert inputs["images"][:, 0, 0].float().mean((1, 2)).round().tolist() == pytest.approx(
        [10, 20, 30, 40], abs=3
    )


def test_no_images_at_all(make, nlvr2):
    for path in (nlvr2 / "dev").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"the images that .*dev\.json names, such as dev/"):
        make(missing_images="skip").setup("validate")
    (nlvr2 / "dev").rmdir()
    with pytest.raises(FileNotFoundError, match=r"expected the dev images, .* in images/dev/ or"):
        make(missing_images="skip").setup("validate")


def test_broken_image_is_never_another_row(make, nlvr2):
    path = nlvr2 / "dev/dev-1-3-img1.png"
    path.write_text("<html>404</html>")
    message = r"dev-1-3-img1\.png \(UnidentifiedImageError: .*set missing_images: skip"
    with pytest.raises(CorruptImageError, match=message):
        list(make(missing_images="skip").val_dataloader())


# Files that are others


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("{", "line 1: expected a JSON object with a statement \\(Expecting"),
        ("[\n{}\n]", "line 1: expected a JSON object"),
        ('[{"sentence": "a"}]', "line 1: expected a JSON object with a statement, found"),
        ('{"sentence": 3}', "line 1: expected a sentence, found 3"),
        ('{"sentence": "a", "identifier": "dev-1-0"}', "line 1: expected an identifier dev-<set>"),
        ('{"sentence": "a", "identifier": "test1-1-0-0"}', "line 1: expected an identifier dev-"),
        (
            '\n{"sentence": "a", "identifier": "dev-1-0-0", "label": "true"}',
            "line 2: expected the label True or False, found 'true'",
        ),
        (
            line("dev", DEV[0]) + "\n" + line("dev", DEV[0]),
            "line 2: the identifier dev-0-0-0 stands in line 1 too",
        ),
        ("\udcff", "is no text in UTF-8"),
        ("[" * 100_000, "line 1: expected a JSON object with a statement"),
        (
            '{"sentence": "a \\ud800", "identifier": "dev-1-0-0", "label": "True"}',
            r"line 1: expected a sentence, found 'a \\ud800'",
        ),
        (
            '{"sentence": "a", "identifier": "dev-9999999999-0-0", "label": "True"}',
            "line 1: expected an identifier dev-",
        ),
    ],
)
def test_wrong_files_name_the_line(make, nlvr2, text, message):
    path = nlvr2 / "data/dev.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        make().setup("validate")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_rows_need_their_directory(make, nlvr2):
    (nlvr2 / "data/train.json").write_text(line("train", (1, 0, 0, None, "True", "A.")))
    with pytest.raises(InputError, match="line 1: expected the number of the images' directory"):
        make().setup("fit")
    (nlvr2 / "data/train.json").write_text(line("train", (1, 0, 0, 10**30, "True", "A.")))
    with pytest.raises(InputError, match="the images' directory, found 1000"):
        make().setup("fit")


def test_labels_may_be_json_booleans(make, nlvr2):
    row = {"sentence": "a", "identifier": "dev-1-3-0", "label": False}
    (nlvr2 / "data/dev.json").write_text(json.dumps(row))
    assert make().labels("val").tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluate_on": "half"}, "evaluate_on must be 'full', 'balanced' or 'unbalanced'"),
        ({"missing_images": "ignore"}, "missing_images must be 'error' or 'skip'"),
        ({"test_split": "test3"}, "test_split must be 'test1' or 'test2'"),
        ({"padding": "none"}, "padding must be"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"train_transform": MultiCrop([CropSpec(size=8)])}, "makes one view .* not MultiCrop"),
        ({"train_transform": EvalTransform(8)}, "of an image and a seed, not EvalTransform"),
        ({"train_transform": 8}, "of an image and a seed, not int"),
        ({"eval_transform": KeepAspectRandAugment()}, "must be an EvalTransform or a KeepAspect"),
    ],
)
def test_wrong_options(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_no_annotations(make, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected train\.json in .*empty is empty"):
        make(root=str(tmp_path / "empty")).setup("fit")


# Text


def test_vocabulary_file_and_folder_give_the_same_ids(make, vocabulary, tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    shutil.copy(vocabulary, folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    file, named = (make(tokenizer=str(path)) for path in (vocabulary, folder))
    first, second = (whole(data.bank_dataloader())[0] for data in (file, named))
    assert set(first) == set(second) == {"images", "input_ids", "attention_mask"}
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert torch.equal(first["attention_mask"], second["attention_mask"])
    assert first["input_ids"][6].tolist()[:5] == [2, 4, 6, 8, 3]  # [CLS] a cat . [SEP]
    assert first["input_ids"][4].tolist()[:7] == [2, 10, 1, 1, 9, 1, 8]  # café → cafe
    assert first["attention_mask"][6].sum() == 5
    assert (first["input_ids"][6, 5:] == 0).all()
    assert file.vocab_size == named.vocab_size == len(WORDS)


def test_a_cased_vocabulary_keeps_capitals(make, vocabulary):
    vocabulary.write_text("\n".join([*WORDS, "A"]))
    inputs, *_ = whole(make(tokenizer=str(vocabulary)).test_dataloader())
    assert inputs["input_ids"].tolist() == [[2, len(WORDS), 5, 8, 3]] * 2


def test_a_file_that_is_no_vocabulary(make, vocabulary):
    vocabulary.write_text("a\nb\n")
    with pytest.raises(InputError, match=r"vocab\.txt is no vocabulary .* \[PAD\], \[UNK\]"):
        make(tokenizer=str(vocabulary)).setup("fit")
    vocabulary.write_text("\n".join([*WORDS, "cat"]))  # ids would go beyond vocab_size
    with pytest.raises(InputError, match=r"vocab\.txt has the piece 'cat' more than once"):
        make(tokenizer=str(vocabulary)).setup("fit")
    with pytest.raises(InputError, match="No tokenizer at"):
        make(tokenizer=str(vocabulary.parent / "none")).setup("fit")


def test_cut_texts_are_counted(make):
    data = make(max_length=7, padding="max_length")
    with pytest.warns(UserWarning, match="train: 5 of 7 texts are longer than max_length = 7"):
        inputs, *_ = whole(data.bank_dataloader())
    assert inputs["input_ids"].shape == (7, 7)
    assert bytes(inputs["input_ids"][1].tolist()) == b"There a"
    assert inputs["attention_mask"][6].tolist() == [1] * 6 + [0]
    assert inputs["input_ids"][6, 6] == 256


# Training


class Recorder(pl.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, labels, _ = batch
        self.seen.append((labels, inputs))
        return self.weight * inputs["images"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, path=None, folder=None, **options):
    callbacks = []
    if folder is not None:
        save = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
        callbacks = [save]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and all(torch.equal(x[name], y[name]) for name in x)
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


VIEW = SingleView(CropSpec(size=8, scale=(0.5, 1.0), brightness=0.4))


def test_resume_is_the_identical_trajectory(make, tmp_path):
    def data(**options):
        return make(batch_size=2, train_transform=VIEW, **options)

    whole_run = fit(data(), folder=tmp_path / "run")
    assert len(whole_run) == 9
    for step in (1, 4, 6):
        (path,) = (tmp_path / "run").glob(f"*step={step}.ckpt")
        assert same(fit(data(), path), whole_run[step:]), step
    assert same(fit(data(num_workers=2)), whole_run)
    assert not same(fit(data(seed=1)), whole_run)


def test_views_of_a_pair_are_drawn_one_by_one(make, nlvr2):
    for path in nlvr2.glob("images/train/*/*-img0.png"):
        pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        for side in (0, 1):
            Image.fromarray(pixels).save(str(path).replace("img0", f"img{side}"))
    data = make(batch_size=7, train_transform=VIEW)
    inputs, *_ = next(iter(data.train_dataloader()))
    assert (inputs["images"][:, 0] != inputs["images"][:, 1]).flatten(1).any(1).all()
    plain, *_ = next(iter(make(batch_size=7).train_dataloader()))
    assert torch.equal(plain["images"][:, 0], plain["images"][:, 1])


def test_images_are_normalised_on_the_device(make):
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    seen = fit(make(batch_size=7, **options), precision="bf16-true")
    raw, *_ = next(iter(make(batch_size=7).train_dataloader()))
    _, inputs = seen[0]
    assert inputs["images"].dtype == torch.bfloat16
    expected = normalize(raw["images"], *options.values()).bfloat16()
    assert torch.equal(inputs["images"], expected)
    assert inputs["input_ids"].dtype == torch.int64


def test_flips_are_warned_of(make):
    with pytest.warns(UserWarning, match="left and right"):
        make(train_transform=SingleView(CropSpec(size=8, hflip=0.5)))


def test_another_evaluation_transform(make):
    data = make(eval_transform=EvalTransform(6, resize=7))
    assert data.image_size == 6
    assert whole(data.val_dataloader())[0]["images"].shape == (5, 2, 3, 6, 6)


def test_three_shards_cover_each_row_once(make, monkeypatch):
    data = make()
    rows = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        rows += [
            bytes(ids[ids < 256].tolist()).decode()
            for inputs, *_ in data.bank_dataloader()
            for ids in inputs["input_ids"]
        ]
    assert sorted(rows) == sorted(row[-1] for row in TRAIN)
