"""Readers of captions, questions and vocabularies, for the table of those that are fuzzed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reader_table import READERS, Reader, lines, npy, put, reader, same_rows, table


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
    from lit_ssl.text.listops_files import read_expressions

    assert all(0 <= value < 10 for value in read_expressions(path)[1])


def _read_prior(path: Path) -> None:
    from lit_ssl.losses.priors import read_prior

    prior = read_prior(path)
    assert prior.ndim == 1
    assert bool(torch.isfinite(prior).all())


READERS["prior_npy"] = Reader(lambda folder: put(folder, "p.npy", npy(np.ones(4))), _read_prior)
READERS["prior_txt"] = Reader(lambda folder: put(folder, "p.txt", "0.5\n1\n2e-1\n"), _read_prior)


@reader(lambda folder: put(folder, "map.txt", "0\n2\n1\n"))
def class_map(path: Path) -> None:
    from lit_ssl.methods.classification.pretrained_classifier import _positions

    found = _positions(str(path), 3, 3)
    assert found.min() >= 0
    assert found.max() < 3
