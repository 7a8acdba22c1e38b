"""Tiny data sets in the official layouts, and modules that write down what they are given."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import GroupImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.transforms import EvalTransform


class ToyGroups(GroupImageDataModule):
    """43 training and 9 other images of 3 x 8 x 8; red is the row, green the split."""

    class_names = ("a", "b")
    attribute_names = ("x", "y", "z")

    def __init__(self, *, unknown=(), **kwargs):
        super().__init__(**{"num_workers": 0, "batch_size": 4, **kwargs})
        self.unknown = list(unknown)

    def default_eval_transform(self):
        return EvalTransform(8)

    def load_rows(self, split):
        size = 43 if split == "train" else 9
        rows = np.arange(size)
        pixels = torch.zeros(size, 3, 8, 8, dtype=torch.uint8)
        pixels[:, 0] = torch.arange(size).view(-1, 1, 1)
        pixels[:, 1] = len(split)
        attributes = rows // 2 % 3
        if split == "train":
            attributes[self.unknown] = -1
        return Rows(ArrayImages(pixels), {"label": rows % 2, "attribute": attributes})


class GroupRecorder(pl.LightningModule):
    """Remembers (epoch, rows, labels, groups, checksum of the images) of each training batch."""

    def __init__(self, before_epoch=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.before_epoch = before_epoch
        self.seen, self.val = [], []

    def on_train_start(self):
        if self.before_epoch is not None:
            self.before_epoch(self.trainer.datamodule, self.current_epoch)

    def on_train_epoch_end(self):
        if self.before_epoch is not None:
            self.before_epoch(self.trainer.datamodule, self.current_epoch + 1)

    def training_step(self, batch, batch_idx):
        images, labels, groups = batch
        views = images[0] if isinstance(images, list) else images
        digest = hashlib.sha1(views.contiguous().numpy().tobytes()).hexdigest()
        self.seen.append((self.current_epoch, labels.tolist(), groups.tolist(), digest))
        return self.weight * views.float().mean()

    def validation_step(self, batch, batch_idx):
        self.val.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def toy():
    return ToyGroups


@pytest.fixture
def recorder():
    return GroupRecorder


@pytest.fixture
def fit(tmp_path_factory):
    """Fits a recorder; returns it."""

    def run(datamodule, ckpt_path=None, module=None, callbacks=(), **arguments):
        module = module or GroupRecorder()
        options = {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": tmp_path_factory.mktemp("fit"),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        trainer = pl.Trainer(**{**options, **arguments}, callbacks=list(callbacks))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        return module

    return run


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_image(path, shade, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 7)).save(path)


WATERBIRDS = [  # species, number, y, split, place
    ("001.Black_footed_Albatross", 1, 1, 0, 1),
    ("004.Groove_billed_Ani", 2, 0, 0, 0),
    ("004.Groove_billed_Ani", 3, 0, 0, 1),
    ("021.Eastern_Towhee", 4, 1, 0, 0),
    ("004.Groove_billed_Ani", 5, 0, 0, 0),
    ("001.Black_footed_Albatross", 6, 1, 1, 0),
    ("102.Western_Wood_Pewee", 7, 1, 1, 1),
    ("004.Groove_billed_Ani", 8, 0, 2, 0),
]


@pytest.fixture
def waterbirds(tmp_path):
    """The folder that holds the official one."""
    folder = tmp_path / "waterbird_complete95_forest2water2"
    rows = []
    for number, (species, shade, y, split, place) in enumerate(WATERBIRDS, start=1):
        name = f"{species}/{species[4:]}_{shade:04d}.jpg"
        write_image(folder / name, shade)
        rows.append([number, name, y, split, place, f"/o/ocean/{shade:08d}.jpg"])
    header = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    write_csv(folder / "metadata.csv", header, rows)
    return tmp_path


FACES = [  # Blond_Hair, Male, Smiling, part
    (1, -1, 1, 0), (-1, 1, 1, 0), (-1, -1, -1, 0), (1, 1, -1, 0), (-1, 1, 1, 1), (1, -1, 1, 2),
]  # fmt: skip


@pytest.fixture
def celeba(tmp_path):
    """Writes CelebA as "csv" or "txt"; returns its folder."""

    def write(kind):
        names = [f"{number:06d}.jpg" for number in range(1, len(FACES) + 1)]
        columns = ["Blond_Hair", "Male", "Smiling"]
        for shade, name in enumerate(names):
            write_image(tmp_path / "img_align_celeba" / name, shade * 9, size=(178, 218))
        if kind == "csv":
            rows = [[name, *face[:3]] for name, face in zip(names, FACES, strict=True)]
            write_csv(tmp_path / "list_attr_celeba.csv", ["image_id", *columns], rows)
            parts = [[name, face[3]] for name, face in zip(names, FACES, strict=True)]
            write_csv(tmp_path / "list_eval_partition.csv", ["image_id", "partition"], parts)
            return tmp_path
        lines = [str(len(FACES)), " ".join(columns) + " "]
        for name, face in zip(names, FACES, strict=True):
            lines.append(f"{name} {face[0]:2d} {face[1]:2d} {face[2]:2d}")
        (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
        parts = [f"{name} {face[3]}" for name, face in zip(names, FACES, strict=True)]
        (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
        return tmp_path

    return write


@pytest.fixture
def group_csv(tmp_path):
    """Writes images and a table of rows (filename, split, y, a); returns the folder."""

    def write(rows, header=("id", "filename", "split", "y", "a"), skip=()):
        for shade, row in enumerate(rows):
            if row[0] not in skip:
                write_image(tmp_path / row[0], shade)
        numbered = [[number, *row] for number, row in enumerate(rows)]
        write_csv(tmp_path / "metadata.csv", header, numbered)
        return tmp_path

    return write


WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "no", "dog", "sat", "on", "never",
    "##s", ".", ",", "you", "are", "bad", "good",
]  # fmt: skip


@pytest.fixture
def tokenizer(tmp_path):
    """Folder of a small BERT tokenizer."""
    pytest.importorskip("transformers")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return str(folder)


IDENTITIES = [
    "male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white",
]  # fmt: skip
COMMENTS = [  # text, split, toxicity, identities
    ("you are bad", "train", 0.6, {"male": 0.5, "white": 1.0}),
    ("a good cat.", "train", 0.0, {}),
    ('no "cats",\nno dogs', "train", 0.49, {"female": 0.51}),
    ("a dog sat", "train", 0.5, {}),
    ("you are good", "val", 0.2, {"LGBTQ": 0.4}),
    ("you are a dog", "val", 1.0, {"black": 0.7, "muslim": 0.9}),
    ("a cat sat on a cat sat on a cat sat on a dog", "test", 0.1, {"male": 1.0}),
]


@pytest.fixture
def civilcomments(tmp_path):
    rows = []
    for number, (text, split, toxicity, identities) in enumerate(COMMENTS):
        values = [identities.get(name, 0.0) for name in IDENTITIES]
        rows.append([number, number + 59848, text, split, toxicity, *values, max(values), 0.0])
    header = ["", "id", "comment_text", "split", "toxicity", *IDENTITIES, "identity_any", "threat"]
    write_csv(tmp_path / "all_data_with_identities.csv", header, rows)
    return tmp_path


PAIRS = {
    "train": [
        ("neutral", "A cat sat.", "A dog sat."),
        ("-", "A cat.", "No cat."),
        ("contradiction", "A cat sat on a dog.", "No, never."),
        ("entailment", "A cat sat.", "A cat."),
    ],
    "dev_matched": [("contradiction", "You are good.", "You are Never, good")],
    "dev_mismatched": [("-", "a", "b"), ("entailment", "Dogs.", "A dog, note.")],
}


@pytest.fixture
def multinli(tmp_path):
    """Folder with `data/metadata_random.csv` and `multinli_1.0/`."""
    rows, number = [], 0
    splits = iter([0, 1, 0, 0, 2])
    for part, pairs in PAIRS.items():
        lines = []
        for label, first, second in pairs:
            content = {"gold_label": label, "sentence1": first, "sentence2": second, "genre": "x"}
            lines.append(json.dumps(content))
            if label != "-":
                code = ["contradiction", "entailment", "neutral"].index(label)
                rows.append([number, code, int("ever" in second), next(splits)])
            number += 1
        path = tmp_path / "multinli_1.0" / f"multinli_1.0_{part}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    header = ["", "gold_label", "sentence2_has_negation", "split"]
    write_csv(tmp_path / "data" / "metadata_random.csv", header, rows)
    return tmp_path
