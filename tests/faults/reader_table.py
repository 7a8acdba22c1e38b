"""Every reader of files, with a small valid file and what its values must be like."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from lit_ssl.errors import InputError

__all__ = ["READERS", "Reader"]


class Reader(NamedTuple):
    """How a file is read.

    Attributes:
        write: Writes a valid one, and what goes with it, into a folder; returns its path.
        read: Reads it; asserts that the values have the right form.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], object]


READERS: dict[str, Reader] = {}


def reader(write: Callable[[Path], Path]) -> Callable[[Callable[[Path], object]], None]:
    def add(read: Callable[[Path], object]) -> None:
        READERS[read.__name__] = Reader(write, read)

    return add


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def lines(*items: object) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


def picture(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 63).reshape(7, 9).astype(np.uint16))
    else:
        image = image.convert(mode)
    image.save(file, kind)
    return file.getvalue()


def same_rows(rows: Any, low: int = -1, high: int | None = None) -> None:
    """Rows whose labels are int64 and in range."""
    assert len(rows.labels) == len(rows)
    assert rows.labels.dtype == np.int64
    if len(rows):
        assert rows.labels.min() >= low
        assert high is None or rows.labels.max() < high


# Lists


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


# Tables


GROUPS = table(
    ["id", "filename", "split", "y", "a"], [[i, f"{i}.jpg", i % 3, i % 2, i % 2] for i in range(6)]
)


@reader(lambda folder: put(folder, "metadata.csv", GROUPS))
def own_table(path: Path) -> None:
    from lit_ssl.datamodules import GroupImageCSVDataModule

    for number in range(6):
        (path.parent / f"{number}.jpg").touch()
    data = GroupImageCSVDataModule(root=str(path.parent), num_workers=0)
    names = data.class_names
    assert len(names) < 5000
    same_rows(data.load_rows("train"), 0, len(names))


@reader(
    lambda folder: put(folder, "t.csv", table(["text", "label"], [["a, b", 0], ["c", 1], ["d", 2]]))
)
def byte_table(path: Path) -> None:
    from lit_ssl.datamodules import ByteTableDataModule

    data = ByteTableDataModule(table=str(path), num_workers=0)
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


# CUB


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


# Images


@reader(
    lambda folder: put(
        folder,
        "a/data_batch_1",
        pickle.dumps(
            {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 9], "filenames": ["x"]},
            protocol=2,
        ),
    )
)
def cifar10(path: Path) -> None:
    from lit_ssl.datamodules import CIFAR10DataModule

    pixels, labels = CIFAR10DataModule(root=str(path.parent))._read(path)
    assert pixels.shape == (len(labels), 3072)
    assert pixels.dtype == np.uint8
    assert labels.min() >= 0
    assert labels.max() < 10


@reader(lambda folder: put(folder, "a/data_batch_1.bin", (bytes([3]) + bytes(3072)) * 2))
def cifar10_binary(path: Path) -> None:
    from lit_ssl.datamodules import CIFAR10DataModule

    pixels, labels = CIFAR10DataModule(root=str(path.parent))._read(path)
    assert pixels.shape == (len(labels), 3072)
    assert labels.max() < 10


INAT = {
    "images": [{"id": 5, "file_name": "a/1.jpg"}, {"id": 7, "file_name": "b/2.jpg"}],
    "annotations": [{"image_id": 5, "category_id": 3}, {"image_id": 7, "category_id": 4}],
    "categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "y"}],
}


@reader(lambda folder: put(folder, "train2018.json", json.dumps(INAT)))
def inaturalist(path: Path) -> None:
    from lit_ssl.datamodules import INaturalist2018DataModule

    for name in ("a/1.jpg", "b/2.jpg"):
        put(path.parent, name, b"")
    data = INaturalist2018DataModule(root=str(path.parent), num_workers=0)
    same_rows(data.load_rows("train"), 0, len(data.class_names))


def _tiny(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        put(folder, "wnids.txt", "n01\nn02\n")
        for n in range(3):
            put(folder, f"val/images/val_{n}.JPEG", b"")
        put(
            folder,
            "val/val_annotations.txt",
            "".join(f"val_{n}.JPEG n0{1 + n % 2} 0 32 44 62\n" for n in range(3)),
        )
        return folder / name

    return write


def _read_tiny(path: Path) -> None:
    from lit_ssl.datamodules import TinyImageNetDataModule

    root = path.parent if path.name == "wnids.txt" else path.parents[1]
    data = TinyImageNetDataModule(root=str(root), num_workers=0)
    same_rows(data.load_rows("val"), 0, len(data.class_names))


READERS["tiny_imagenet_wnids"] = Reader(_tiny("wnids.txt"), _read_tiny)
READERS["tiny_imagenet_val"] = Reader(_tiny("val/val_annotations.txt"), _read_tiny)

FILES = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)]


@reader(
    lambda folder: put(
        folder,
        "LOC_val_solution.csv",
        "ImageId,PredictionString\n" + "".join(f"{f[:-5]},n01751748 1 2 3 4\n" for f in FILES),
    )
)
def imagenet_labels(path: Path) -> None:
    from lit_ssl.datamodules.images.imagenet_labels import read_validation_labels

    assert len(read_validation_labels(path, FILES)) == 3


def _devkit(folder: Path) -> Path:
    from scipy.io import savemat

    synsets = np.array(
        [(n, f"n0{n}") for n in (1, 2, 3)], dtype=[("ILSVRC2012_ID", "u2"), ("WNID", "O")]
    )
    savemat(folder / "meta.mat", {"synsets": synsets})
    put(folder, "ILSVRC2012_validation_ground_truth.txt", "1\n3\n2\n")
    return folder / "meta.mat"


def _read_devkit(path: Path) -> None:
    from lit_ssl.datamodules.images.imagenet_labels import read_validation_labels

    labels = path.parent / "ILSVRC2012_validation_ground_truth.txt"
    found = read_validation_labels(labels, FILES)
    assert len(found) == 3
    assert all(isinstance(name, str) for name in found)


READERS["devkit_meta"] = Reader(_devkit, _read_devkit)
READERS["devkit_labels"] = Reader(
    lambda folder: _devkit(folder).with_name("ILSVRC2012_validation_ground_truth.txt"), _read_devkit
)


def _read_picture(path: Path) -> None:
    from lit_ssl.datamodules.reading.decoding import read_image

    image = read_image(str(path), max_side=64)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    assert max(image.shape) <= 64


for _kind, _mode in (
    ("JPEG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("PNG", "I;16"),
    ("GIF", "P"),
    ("BMP", "RGB"),
    ("TIFF", "CMYK"),
    ("WEBP", "RGB"),
    ("PPM", "RGB"),
    ("ICO", "RGBA"),
    ("TGA", "RGB"),
    ("PCX", "RGB"),
    ("SGI", "RGB"),
    ("JPEG2000", "RGB"),
):

    def _write(folder: Path, kind: str = _kind, mode: str = _mode) -> Path:
        return put(folder, f"image.{kind.lower()}", picture(kind, mode))

    READERS[f"image_{_kind}_{_mode}"] = Reader(_write, _read_picture)


# Images and texts


def _caption_rows(rows: Any) -> None:
    numbers = rows.columns["image_number"]
    assert numbers.dtype == np.int64
    assert len(numbers) == len(rows)


COCO = {
    "images": [
        {
            "filepath": "val2014",
            "filename": f"{n}.jpg",
            "split": s,
            "imgid": n,
            "sentences": [{"raw": "A cat."}, {"raw": "Dogs."}],
        }
        for n, s in enumerate(("train", "restval", "val", "test"))
    ]
}


@reader(lambda folder: put(folder, "dataset_coco.json", json.dumps(COCO)))
def coco(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.captions.karpathy import CocoCaptions

    for n in range(4):
        put(path.parent, f"val2014/{n}.jpg", b"")
    _caption_rows(CocoCaptions(str(path.parent), "skip").load_rows("train"))


REGIONS = [
    {"id": n, "regions": [{"image_id": n, "phrase": "a man"}, {"image_id": n, "phrase": "sky"}]}
    for n in (1, 2)
]


@reader(lambda folder: put(folder, "region_descriptions.json", json.dumps(REGIONS)))
def visual_genome(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.captions.visual_genome import VisualGenomeRegions

    for n in (1, 2):
        put(path.parent, f"VG_100K/{n}.jpg", b"")
    _caption_rows(VisualGenomeRegions(str(path.parent), "skip").load_rows("train"))


@reader(
    lambda folder: put(
        folder,
        "annot.json",
        json.dumps([[f"/d/images_train/0000/000{n}", "a lake"] for n in range(3)]),
    )
)
def sbu(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.captions.listed_captions import SBUCaptions

    for n in range(3):
        put(path.parent, f"images_train/0000/000{n}", b"")
    _caption_rows(SBUCaptions(str(path.parent), "skip").load_rows("train"))


@reader(
    lambda folder: put(folder, "Train_GCC-training.tsv", "a lake\thttp://x/1\na dog\thttp://x/2\n")
)
def conceptual_captions(path: Path) -> None:
    import zlib

    from lit_ssl.datamodules.vision_language.captions.listed_captions import ConceptualCaptions

    for n in (0, 1):
        put(path.parent, f"training/{n}_{zlib.crc32(f'http://x/{n + 1}'.encode())}", b"")
    _caption_rows(ConceptualCaptions(str(path.parent), "skip").load_rows("train"))


def _read_pairs(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.captions.pair_list import PairList

    for n in range(3):
        put(path.parent, f"{n}.jpg", b"")
    rows = PairList(str(path), missing_images="skip").load_rows("train")
    if rows is not None:
        _caption_rows(rows)


READERS["pairs_csv"] = Reader(
    lambda folder: put(
        folder,
        "p.csv",
        table(["image", "caption", "split"], [[f"{n}.jpg", "a, b", "train"] for n in range(3)]),
    ),
    _read_pairs,
)
READERS["pairs_jsonl"] = Reader(
    lambda folder: put(
        folder, "p.jsonl", lines(*({"image": f"{n}.jpg", "caption": "a"} for n in range(3)))
    ),
    _read_pairs,
)


@reader(
    lambda folder: put(
        folder,
        "train.json",
        lines(
            *(
                {
                    "sentence": "two dogs",
                    "label": "True",
                    "identifier": f"train-{n}-0-0",
                    "directory": 3,
                }
                for n in range(3)
            )
        ),
    )
)
def nlvr2(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.tasks.nlvr2_files import read_statements

    found = read_statements(path, "train")
    assert found.labels.dtype == np.int64
    assert set(found.labels.tolist()) <= {-1, 0, 1}


QUESTIONS = {
    "questions": [{"image_id": n, "question_id": 10 * n, "question": "is it"} for n in (1, 2, 3)]
}


@reader(lambda folder: put(folder, "q.json", json.dumps(QUESTIONS)))
def vqa_questions(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.tasks.vqav2_files import read_questions

    found = read_questions(path)
    assert found.question_ids.dtype == np.int64
    assert len(found.texts) == len(found.image_ids)


ANSWERS = {
    "annotations": [
        {
            "image_id": n,
            "question_id": 10 * n,
            "multiple_choice_answer": "yes",
            "answers": [{"answer": "yes"}] * 10,
        }
        for n in (1, 2)
    ]
}


@reader(lambda folder: put(folder, "a.json", json.dumps(ANSWERS)))
def vqa_annotations(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.tasks.vqav2_files import Spellings, read_annotations

    assert read_annotations(path, Spellings()).answers.shape[1:] == (10,)


@reader(lambda folder: put(folder, "answers.txt", "yes\nno\n2\n"))
def vqa_answers(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.tasks.vqav2_answers import listed_answers

    assert len(listed_answers(path)) > 1


@reader(lambda folder: put(folder, "ids.txt", "1\n3\n"))
def vqa_images(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.tasks.vqav2_rows import held_out_images

    assert held_out_images(np.arange(6), str(path), path).dtype == np.bool_


@reader(
    lambda folder: put(
        folder,
        "snli_ve_train.jsonl",
        lines(
            *(
                {"Flickr30K_ID": "1", "gold_label": label, "sentence2": "men"}
                for label in ("neutral", "entailment")
            )
        ),
    )
)
def snli_ve(path: Path) -> None:
    from lit_ssl.datamodules import SNLIVEDataModule

    put(path.parent, "flickr30k-images/1.jpg", b"")
    data = SNLIVEDataModule(root=str(path.parent), tokenizer="bytes", num_workers=0)
    same_rows(data.load_rows("train"), 0, 3)


# Tars


def _tar(folder: Path) -> Path:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for n in range(3):
            for ending, content in (
                ("jpg", picture()),
                ("txt", b"a dog"),
                ("json", b'{"caption": "a"}'),
            ):
                info = tarfile.TarInfo(f"{n:09d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return put(folder, "00000.tar", file.getvalue())


@reader(_tar)
def tar_of_pairs(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.tar_members import read_pairs

    for caption in ("txt", "caption"):
        with path.open("rb") as file:
            for pair in read_pairs(file, str(path), caption, lambda why, key: None, True):
                assert pair.caption
                assert len(pair.image) == pair.size


def _tar_index(folder: Path) -> Path:
    from lit_ssl.datamodules.vision_language.shards.tar_index import index_tar

    tar = _tar(folder)
    index_tar(tar, "txt", folder / "index.npz")
    return folder / "index.npz"


@reader(_tar_index)
def tar_index(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.tar_index import stored_index

    found = stored_index(path.with_name("00000.tar"), "txt", path)
    assert found is None or len(found.keys) == len(found.offsets) == len(found.captions)


@reader(lambda folder: put(folder, "0_stats.json", '{"successes": 12, "count": 13}'))
def shard_stats(path: Path) -> None:
    from lit_ssl.datamodules.vision_language.shards.shard_sets import stated_pairs

    assert stated_pairs(str(path.with_name("0.tar"))) >= 0


# Points


CUBE = "OFF\n4 4 0\n" + "0 0 0\n1 0 0\n0 1 0\n0 0 1\n" + "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@reader(lambda folder: put(folder, "cube.off", CUBE))
def off(path: Path) -> None:
    from lit_ssl.datamodules.points.off import points_on_surface, read_off

    mesh = read_off(path)
    assert mesh.triangles.min(initial=0) >= 0
    assert mesh.triangles.max(initial=0) < len(mesh.vertices)
    assert np.isfinite(points_on_surface(mesh, 10, 0)).all()


def _resampled(folder: Path) -> Path:
    for name, text in (("shape_names", "sofa\n"), ("train", "sofa_1\n"), ("test", "sofa_2\n")):
        put(folder, f"modelnet40_normal_resampled/modelnet40_{name}.txt", text)
    put(folder, "modelnet40_normal_resampled/sofa/sofa_2.txt", "0,0,1,0,0,1\n")
    return put(
        folder, "modelnet40_normal_resampled/sofa/sofa_1.txt", "0,0,1,0,0,1\n0.5,1,2,1,0,0\n"
    )


@reader(_resampled)
def resampled_points(path: Path) -> None:
    from lit_ssl.datamodules import ModelNet40DataModule

    rows = ModelNet40DataModule(root=str(path.parents[2]), num_workers=0).load_rows("train")
    points = rows.source.read(0)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()


# Texts


@reader(
    lambda folder: put(folder, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\n##s\n")
)
def vocabulary(path: Path) -> None:
    from lit_ssl.text.wordpiece import read_pieces

    assert len(read_pieces(path)) > 0


@reader(lambda folder: put(folder, "pmi.txt", "new york\t3.5\na b c\n"))
def pmi_vocabulary(path: Path) -> None:
    from lit_ssl.text.collocations.pmi_vocabulary import PMIVocabulary

    assert len(PMIVocabulary.load(path).segment(["new", "york"])) == 2


@reader(lambda folder: put(folder, "ops.tsv", "Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n"))
def listops(path: Path) -> None:
    from lit_ssl.text.listops_files import read_listops

    assert all(0 <= value < 10 for value in read_listops(path)[1])


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _read_prior(path: Path) -> None:
    from lit_ssl.losses.priors import read_prior

    prior = read_prior(path)
    assert prior.ndim == 1
    assert bool(torch.isfinite(prior).all())


READERS["prior_npy"] = Reader(lambda folder: put(folder, "p.npy", _npy(np.ones(4))), _read_prior)
READERS["prior_txt"] = Reader(lambda folder: put(folder, "p.txt", "0.5\n1\n2e-1\n"), _read_prior)


@reader(lambda folder: put(folder, "map.txt", "0\n2\n1\n"))
def class_map(path: Path) -> None:
    from lit_ssl.methods.classification.pretrained_classifier import _positions

    found = _positions(str(path), 3, 3)
    assert found.min() >= 0
    assert found.max() < 3


# ImageNet-X


@reader(
    lambda folder: put(
        folder,
        "own.csv",
        table(
            ["file_name", "label", "pose", "=dark"], [[f"{n}.jpg", n, n % 2, 1] for n in range(4)]
        ),
    )
)
def factor_table(path: Path) -> None:
    from lit_ssl.imagenet_x.annotations import load_annotations

    found = load_annotations(str(path))
    assert found.members.shape == (len(found.numbers), len(found.factors))
    _scores(found)


def _scores(annotations: Any) -> None:
    from lit_ssl.imagenet_x.predictions import Predictions
    from lit_ssl.imagenet_x.scores import score

    classes = np.r_[-1, annotations.labels]
    score(Predictions("x", classes, np.full(len(classes), 0.5)), annotations).worst_classes()


@reader(
    lambda folder: put(
        folder,
        "p.csv",
        table(
            ["file_name", "predicted_class", "predicted_probability"],
            [[f"{n}.jpg", n, 0.5] for n in range(4)],
        ),
    )
)
def predictions(path: Path) -> None:
    from lit_ssl.imagenet_x.annotations import load_annotations
    from lit_ssl.imagenet_x.predictions import read_predictions

    own = put(
        path.parent,
        "own.csv",
        table(["file_name", "label", "pose"], [[f"{n}.jpg", n, n % 2] for n in range(4)]),
    )
    found = read_predictions(path, load_annotations(str(own)))
    assert len(found.classes) == 5
    assert found.classes.max() < 2**31


# Videos


TABLE = table(
    ["label", "youtube_id", "time_start", "time_end", "split"],
    [["abseiling", f"id{n}", n, n + 10, "train"] for n in range(3)],
)


@reader(lambda folder: put(folder, "train.csv", TABLE))
def kinetics_table(path: Path) -> None:
    from lit_ssl.datamodules.video.kinetics_lists import is_table, read_list, read_table

    for entry in read_table(path) if is_table(path) else read_list(path):
        assert entry.name
        assert entry.label is None or isinstance(entry.label, str)


@reader(lambda folder: put(folder, "train.txt", "a/1.mp4 0\nb/2.mp4, 399\n"))
def kinetics_list(path: Path) -> None:
    from lit_ssl.datamodules.video.kinetics_lists import read_list

    assert all(int(str(entry.label)) >= 0 for entry in read_list(path))


def _ucf(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        put(folder, "classInd.txt", "1 Archery\n2 Biking\n")
        put(
            folder,
            "trainlist01.txt",
            "Archery/v_Archery_g01_c01.avi 1\nBiking/v_Biking_g01_c01.avi 2\n",
        )
        return folder / name

    return write


def _read_ucf(path: Path) -> None:
    from lit_ssl.datamodules import UCF101DataModule

    data = UCF101DataModule(root=str(path.parent), num_frames=2, size=8, num_workers=0)
    assert all(0 <= label < len(data.class_names) for _, label in data._entries("train"))


READERS["ucf101_classes"] = Reader(_ucf("classInd.txt"), _read_ucf)
READERS["ucf101_list"] = Reader(_ucf("trainlist01.txt"), _read_ucf)


@reader(lambda folder: put(folder, "videos.txt", "a.mp4 0\nb.mp4\n"))
def video_list(path: Path) -> None:
    from lit_ssl.video.listing import listed_videos

    for name in ("a.mp4", "b.mp4"):
        put(path.parent, name, b"")
    assert len(listed_videos(path, path.parent)[0]) > 0


def _clip_index(folder: Path) -> Path:
    arrays = {"frames": np.array([3], np.int64)}
    np.savez_compressed(folder / "i.npz", **arrays)
    return folder / "i.npz"


def _cache(folder: Path) -> Path:
    from lit_ssl.video.cache_files import CacheEntry, CacheSettings, write_index, write_settings

    write_settings(folder / "cache", CacheSettings(8, "raw", 0, "pyav"))
    write_index(folder / "cache", [CacheEntry("a.mp4", 5, 2, 25.0, 8, 9, 0, 0, 432)])
    entry = ["a.mp4", 5, 2, 25.0, 8, 9, 0, 0, 432]
    put(folder, "cache/frames-00000.jsonl", json.dumps(entry) + "\n")
    put(folder, "cache/frames-00000.bin", bytes(432))
    return folder / "cache"


@reader(lambda folder: _cache(folder) / "index.npz")
def cache_index(path: Path) -> None:
    from lit_ssl.video.cache_files import read_index

    index = read_index(path.parent)
    assert len(index.name) == len(index.frames)


@reader(lambda folder: _cache(folder) / "cache.json")
def cache_settings(path: Path) -> None:
    from lit_ssl.video.cache_files import read_settings

    settings = read_settings(path.parent)
    assert isinstance(settings.shorter, int)
    assert settings.shorter > 0


@reader(lambda folder: _cache(folder) / "frames-00000.jsonl")
def cache_journal(path: Path) -> None:
    from lit_ssl.video.cache_files import read_settings
    from lit_ssl.video.cache_shards import finished_videos

    for entry in finished_videos(path.parent, read_settings(path.parent)).values():
        assert isinstance(entry.name, str)
        assert isinstance(entry.frames, int)
        assert entry.end >= 0


@reader(lambda folder: put(folder, "mean.npy", _npy(np.zeros((3, 2, 112, 112), np.float32))))
def mean_clip(path: Path) -> None:
    from lit_ssl.metrics.video.preparation import read_mean_clip

    assert read_mean_clip(path).shape[0] == 3


# Configs


CONFIG = """# a config
trainer:
  max_epochs: 3
  callbacks: &a
    - class_path: KNNEvaluator
      init_args: {k: [10, 20], every_n_epochs: 1}
model:
  class_path: MSN
  init_args: {num_prototypes: 1024, lr: 1.0e-3}
more: [*a, *a]
"""


@reader(lambda folder: put(folder, "c.yaml", CONFIG))
def config(path: Path) -> None:
    from lit_ssl.cli.composing import read_entries, with_empty_lists
    from lit_ssl.cli.mistakes.entries import wrong_entry
    from lit_ssl.cli.nulls import with_whole_nulls

    words = ["fit", "--config", str(path)]
    for entry in read_entries(words):
        list(entry.leaves())
    with_empty_lists(with_whole_nulls(words))
    wrong_entry({"trainer.max_epochs": int}, words[1:], [])


# Weights


def _checkpoint(folder: Path) -> Path:
    content = {
        "state_dict": {"w": torch.zeros(3)},
        "hyper_parameters": {"lr": 0.1},
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.5.0",
    }
    torch.save(content, folder / "a.ckpt")
    return folder / "a.ckpt"


@reader(_checkpoint)
def checkpoint(path: Path) -> None:
    from lit_ssl.checkpoints.files import read_checkpoint

    assert isinstance(read_checkpoint(path), dict)


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3), "v": torch.ones(2, 2)}, folder / "a.safetensors", {"a": "b"})
    return folder / "a.safetensors"


@reader(_safetensors)
def safetensors(path: Path) -> None:
    from lit_ssl.checkpoints.files import read_file

    assert isinstance(read_file(path), dict)


def is_sound(name: str, folder: Path) -> None:
    """The file as it was written is read without an error."""
    one = READERS[name]
    path = one.write(folder)
    try:
        one.read(path)
    except InputError as error:
        raise AssertionError(f"the reader {name} refuses a valid file: {error}") from error
