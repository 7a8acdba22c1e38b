"""Tiny data sets of captions in exactly the official layouts."""

from __future__ import annotations

import json
import zlib

import numpy as np
from PIL import Image

KINDS = ("RGB", "L", "CMYK", "RGBA", "P")


def write_image(path, number, mode="RGB"):
    """An image whose red is ``number`` (grey: its value), of odd size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((9 + number % 5, 12, 3), dtype=np.uint8)
    pixels[..., 0] = number
    image = Image.fromarray(pixels).convert(mode)
    kind = "JPEG" if mode in ("RGB", "CMYK") else "PNG"
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    image.save(path, kind, **options)


def sentence(number, imgid, raw):
    tokens = raw.lower().rstrip(". ").split()
    return {"tokens": tokens, "raw": raw, "imgid": imgid, "sentid": number}


COCO = [
    # file, split, captions
    ("val2014/COCO_val2014_000000522418.jpg", "restval", ["A woman cuts a cake. ", "A café."]),
    ("train2014/COCO_train2014_000000000009.jpg", "train", ["A tray of food.", "A tray of food."]),
    ("val2014/COCO_val2014_000000000042.jpg", "test", ["Shoes.", "A dog on shoes.", "Dog."]),
    ("train2014/COCO_train2014_000000000025.jpg", "train", ["Two giraffes."]),
    ("val2014/COCO_val2014_000000000073.jpg", "val", ["A motorcycle.", "An old motor bike."]),
    ("val2014/COCO_val2014_000000000074.jpg", "val", ["A dog lies beside a bike."]),
]


def coco(root, rows=COCO):
    """Returns the root; image i is red 10 · i."""
    images, count = [], 0
    for number, (name, split, captions) in enumerate(rows):
        write_image(root / name, 10 * number)
        folder, file = name.split("/")
        sentences = [sentence(count + i, number, raw) for i, raw in enumerate(captions)]
        count += len(captions)
        images.append({
            "filepath": folder, "sentids": [s["sentid"] for s in sentences], "filename": file,
            "imgid": number, "split": split, "sentences": sentences,
            "cocoid": int(file.split("_")[-1][:-4]),
        })  # fmt: skip
    path = root / "karpathy/dataset_coco.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return root


def flickr(root):
    images = []
    for number, split in enumerate(("train", "train", "val", "test")):
        file = f"{1000092795 + number}.jpg"
        write_image(root / "flickr30k-images" / file, 100 + 10 * number)
        sentences = [sentence(5 * number + i, number, f"Person {i} waits.") for i in range(5)]
        images.append({
            "sentids": list(range(5 * number, 5 * number + 5)), "imgid": number,
            "sentences": sentences, "split": split, "filename": file,
        })  # fmt: skip
    (root / "dataset_flickr30k.json").write_text(
        json.dumps({"images": images, "dataset": "flickr30k"})
    )
    return root


def region(image, number, phrase):
    return {
        "region_id": number, "width": 82, "height": 139, "image_id": image, "phrase": phrase,
        "y": 57, "x": 421,
    }  # fmt: skip


VG = {
    1: ["the clock is green", "a man", "the clock is green", "a man ", "shade"],
    2: ["a car"],
    3: ["a man", "a car", "blue sky"],
}


def visual_genome(root):
    """Images 1 and 3 in VG_100K_2, 2 in VG_100K; image i is red 20 · i."""
    items = []
    for image, phrases in VG.items():
        folder = "VG_100K" if image == 2 else "VG_100K_2"
        write_image(root / "images" / folder / f"{image}.jpg", 20 * image)
        regions = [region(image, 1000 * image + i, text) for i, text in enumerate(phrases)]
        items.append({"regions": regions, "id": image})
    path = root / "annotations/region_descriptions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(items))
    return root


def annotated(root, name="annot.json", folder="images_train", count=4, prefix="/data/sbu/"):
    """A list of [path, caption] as another machine wrote it, and images without an ending."""
    entries = []
    for number in range(count):
        file = f"{1000 * number:07d}"
        write_image(root / folder / file[:4] / file, 5 * number, KINDS[number % len(KINDS)])
        entries.append([f"{prefix}{folder}/{file[:4]}/{file}", f"photo {number} of a lake"])
    (root / name).write_text(json.dumps(entries))
    return root


def addressed(root, count=3):
    """Conceptual Captions' own tables, and images as they are fetched."""
    for table, folder in (
        ("Train_GCC-training.tsv", "training"),
        ("Validation_GCC-1.1.0-Validation.tsv", "validation"),
    ):
        lines = []
        for number in range(count):
            url = f"http://example.org/{folder}/{number}.jpg?size=ü"
            write_image(root / folder / f"{number}_{zlib.crc32(url.encode())}", 7 * number)
            lines.append(f'{folder} "{number}" of actor\t{url}\n')
        root.mkdir(exist_ok=True)
        (root / table).write_text("".join(lines), encoding="utf-8")
    return root
