"""Readers of lists and tables, for the table of those that are fuzzed."""

from __future__ import annotations

import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from reader_table import READERS, Reader, lines, put, reader, same_rows, table

NAMES = [f"n0{c}/{c}_{i}.JPEG" for c in range(3) for i in range(4)]


def _rows() -> Any:
    from lit_ssl.datamodules.reading.images import FileImages
    from lit_ssl.datamodules.reading.rows import Rows

    return Rows(FileImages("train", NAMES), {"label": np.repeat(np.arange(3), 4)})


def _listed(path: Path) -> None:
    from lit_ssl.datamodules.selection.lists import find_listed

    found = find_listed(str(path), _rows())
    assert found.dtype == np.int64
    assert len(found)
    assert found.min() >= 0
    assert found.max() < len(NAMES)


@reader(lambda folder: put(folder, "list.txt", "\n".join(NAMES[2:9:2])))
def list_of_names(path: Path) -> None:
    _listed(path)


@reader(lambda folder: put(folder, "list.txt", "0\n3\n5\n"))
def list_of_indices(path: Path) -> None:
    _listed(path)


@reader(lambda folder: put(folder, "list.txt.gz", gzip.compress(b"0\n3\n5\n")))
def list_gz(path: Path) -> None:
    _listed(path)


@reader(lambda folder: put(folder, "list.txt.xz", lzma.compress(b"0\n3\n5\n")))
def list_xz(path: Path) -> None:
    _listed(path)


GROUPS = table(
    ["id", "filename", "split", "y", "a"], [[i, f"{i}.jpg", i % 3, i % 2, i % 2] for i in range(6)]
)


@reader(lambda folder: put(folder, "metadata.csv", GROUPS))
def own_table(path: Path) -> None:
    from lit_ssl.datamodules import GroupCSVDataModule

    for number in range(6):
        (path.parent / f"{number}.jpg").touch()
    data = GroupCSVDataModule(root=str(path.parent), num_workers=0)
    names = data.class_names
    assert len(names) < 5000
    same_rows(data.load_rows("train"), 0, len(names))


@reader(
    lambda folder: put(folder, "t.csv", table(["text", "label"], [["a, b", 0], ["c", 1], ["d", 2]]))
)
def byte_table(path: Path) -> None:
    from lit_ssl.datamodules import ByteTextCSVDataModule

    data = ByteTextCSVDataModule(table=str(path), num_workers=0)
    assert len(data.class_names) < 5000
    same_rows(data.load_rows("train"), -1, len(data.class_names))


WATERBIRDS = table(
    ["img_id", "img_filename", "y", "split", "place", "place_filename"],
    [[i, f"004.Ani/{i}.jpg", i % 2, i % 3, i % 2, "/o"] for i in range(6)],
)


@reader(lambda folder: put(folder, "waterbird_complete95_forest2water2/metadata.csv", WATERBIRDS))
def waterbirds(path: Path) -> None:
    from lit_ssl.datamodules import WaterbirdsDataModule

    for number in range(6):
        put(path.parent, f"004.Ani/{number}.jpg", b"")
    same_rows(
        WaterbirdsDataModule(root=str(path.parents[1]), num_workers=0).load_rows("train"), 0, 2
    )


def _celeba(folder: Path) -> None:
    for number in range(1, 5):
        put(folder, f"img_align_celeba/{number:06d}.jpg", b"")


def _celeba_txt(folder: Path) -> Path:
    _celeba(folder)
    body = "".join(f"{n:06d}.jpg {1 - 2 * (n % 2):2d}  1 -1\n" for n in range(1, 5))
    put(folder, "list_eval_partition.txt", "".join(f"{n:06d}.jpg {n % 2}\n" for n in range(1, 5)))
    return put(folder, "list_attr_celeba.txt", f"4\nBlond_Hair Male Smiling \n{body}")


def _celeba_parts(folder: Path) -> Path:
    _celeba_txt(folder)
    return folder / "list_eval_partition.txt"


def _read_celeba(path: Path) -> None:
    from lit_ssl.datamodules import CelebADataModule

    same_rows(CelebADataModule(root=str(path.parent), num_workers=0).load_rows("train"), 0, 2)


@reader(_celeba_txt)
def celeba(path: Path) -> None:
    _read_celeba(path)


@reader(_celeba_parts)
def celeba_partition(path: Path) -> None:
    _read_celeba(path)


IDENTITIES = ["male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white"]
COMMENTS = table(
    ["", "id", "comment_text", "split", "toxicity", *IDENTITIES, "identity_any"],
    [
        [i, i, "a cat", s, 0.2 * i, *[0.1 * i] * 8, 0.1]
        for i, s in enumerate(("train", "val", "test"))
    ],
)


@reader(lambda folder: put(folder, "all_data_with_identities.csv", COMMENTS))
def civilcomments(path: Path) -> None:
    from lit_ssl.datamodules import CivilCommentsDataModule

    data = CivilCommentsDataModule(root=str(path.parent), tokenizer="none", num_workers=0)
    same_rows(data.load_rows("train"), 0, 2)


def _multinli(folder: Path) -> Path:
    for part in ("train", "dev_matched", "dev_mismatched"):
        pair = {"gold_label": "neutral", "sentence1": "a", "sentence2": f"no {part}"}
        put(folder, f"multinli_1.0_{part}.jsonl", lines(pair, {**pair, "gold_label": "-"}))
    rows = [[0, 2, 1, 0], [2, 2, 1, 1], [4, 2, 1, 2]]
    put(
        folder,
        "metadata_random.csv",
        table(["", "gold_label", "sentence2_has_negation", "split"], rows),
    )
    return folder / "multinli_1.0_train.jsonl"


def _read_multinli(path: Path) -> None:
    from lit_ssl.datamodules import MultiNLIDataModule

    data = MultiNLIDataModule(root=str(path.parent), tokenizer="none", num_workers=0)
    same_rows(data.load_rows("train"), 0, 3)


@reader(_multinli)
def multinli(path: Path) -> None:
    _read_multinli(path)


@reader(lambda folder: _multinli(folder).with_name("metadata_random.csv"))
def multinli_metadata(path: Path) -> None:
    _read_multinli(path)


@reader(
    lambda folder: put(
        folder,
        "g.csv",
        table(
            ["row", "attribute", "source", "p_0", "p_1"],
            [[0, 0, "known", 1, 0], [1, 1, "predicted", 0.25, 0.75]],
        ),
    )
)
def group_labels(path: Path) -> None:
    from lit_ssl.groups.label_files import read_group_labels

    labels = read_group_labels(path, 2, 2)
    assert labels.attributes.min() >= 0
    assert labels.attributes.max() < 2
    assert labels.probabilities is None or np.isfinite(labels.probabilities).all()


def _cub(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for n in (1, 2, 3):
            put(folder, f"CUB_200_2011/images/{n}.jpg", b"")
        root = folder / "CUB_200_2011"
        put(root, "images.txt", "".join(f"{n} {n}.jpg\n" for n in (1, 2, 3)))
        put(root, "classes.txt", "1 001.Ani\n2 002.Owl\n")
        put(root, "image_class_labels.txt", "1 1\n2 2\n3 1\n")
        put(root, "train_test_split.txt", "1 1\n2 0\n3 1\n")
        put(root, "bounding_boxes.txt", "".join(f"{n} 1.0 2.0 3.0 4.5\n" for n in (1, 2, 3)))
        put(root, "attributes/attributes.txt", "1 has_a::x\n2 has_a::y\n")
        put(
            root,
            "attributes/image_attribute_labels.txt",
            "".join(f"{n} {a} 1 3 0.5\n" for n in (1, 2, 3) for a in (1, 2)),
        )
        return root / name

    return write


def _read_cub(path: Path) -> None:
    from lit_ssl.datamodules.images.cub_files import CUBFiles

    root = next(part for part in path.parents if part.name == "CUB_200_2011")
    files = CUBFiles(str(root))
    labels = files.labels
    assert labels.min() >= 0
    assert labels.max() < len(files.class_names)
    rows = files.rows_of("train")
    assert len(files.images(rows, crop_to_box=True)) == len(rows)
    assert set(np.unique(files.attributes)) <= {-1, 0, 1}


for _name in (
    "images",
    "classes",
    "image_class_labels",
    "train_test_split",
    "bounding_boxes",
    "attributes/image_attribute_labels",
):
    READERS[f"cub_{_name.rpartition('/')[2]}"] = Reader(_cub(f"{_name}.txt"), _read_cub)
