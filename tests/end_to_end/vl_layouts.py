"""Tiny data sets of images with texts in their official layouts, where recipes look for them."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "datamodules" / "vision_language"))
import source_layouts

WORDS = [
    "a", "an", "of", "the", "on", "in", "is", "are", "two", "three", "men", "dog", "dogs", "cat",
    "bike", "car", "clock", "green", "blue", "sky", "shoes", "woman", "tray", "food", "person",
    "waits", "photo", "lake", "what", "how", "many", "it", *map(str, range(10)),
]  # fmt: skip
BERT, ROBERTA = 30522, 50265  # pieces


def write_photo(path, number, size=(40, 60)):
    """A coarse random picture; sizes differ, so that batches of images in their form are padded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    height, width = size if number % 2 else size[::-1]
    Image.fromarray(coarse).resize((width, height)).save(path, "JPEG")


def captions(root):
    """COCO, Flickr30k, Visual Genome, SBU and Conceptual Captions."""
    rows = [
        (
            f"train2014/COCO_train2014_{n:012d}.jpg",
            "train",
            [f"{w} dogs {n}" for w in WORDS[:4]],
        )
        for n in range(6)
    ]
    rows += [
        (f"val2014/COCO_val2014_{n:012d}.jpg", "val", ["A man and two dogs on a bike.", "A bike."])
        for n in (7, 8)
    ]
    rows += [(f"val2014/COCO_val2014_{n:012d}.jpg", "test", ["A cat.", "A car."]) for n in (9, 10)]
    source_layouts.coco(root / "coco", rows)
    source_layouts.flickr(root / "flickr30k")
    source_layouts.visual_genome(root / "visual_genome")
    source_layouts.annotated(root / "sbu")
    source_layouts.addressed(root / "gcc")


def tars(root):
    """Three shards as img2dataset writes them."""
    for place, name in enumerate(("cc3m", "cc3m_val", "cc12m")):
        (root / name).mkdir(parents=True)
        with tarfile.open(root / name / "00000.tar", "w") as tar:
            for number in range(4):
                write_photo(root / "photo.jpg", 10 * place + number)
                image = (root / "photo.jpg").read_bytes()
                key = f"{number:09d}"
                for ending, content in (("jpg", image), ("txt", f"photo {number}".encode())):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def pairs(root):
    """A person's own list."""
    lines = ["image,caption,split"]
    for number in range(6):
        write_photo(root / "images" / f"{number}.jpg", number)
        lines.append(f"{number}.jpg,a photo of {number} dogs,{'val' if number > 3 else 'train'}")
    (root / "images" / "pairs.csv").write_text("\n".join(lines))


def nlvr2(root):
    """Two statements with two pairs each in every split."""
    for split, folder in (("train", "images/train/3"), ("dev", "dev"), ("test1", "test1")):
        rows = []
        for number in range(4):
            for side in (0, 1):
                write_photo(root / folder / f"{split}-{number}-0-img{side}.png", number + side)
            row = {"sentence": f"two dogs {number // 2}", "label": str(bool(number % 2))}
            row["identifier"] = f"{split}-{number}-0-0"
            rows.append(json.dumps({**row, "directory": 3} if split == "train" else row))
        (root / f"{split}.json").write_text("\n".join(rows))


def vqav2(root):
    """Twelve questions on train2014 and eight on val2014: both answers are majorities ten times."""
    root.mkdir(parents=True)
    for part, count in (("train2014", 12), ("val2014", 8), ("test-dev2015", 2)):
        questions, annotations = [], []
        for number in range(count):
            image, answer = 1 + number // 2, ("yes", "no")[number % 2]
            ids = {"image_id": image, "question_id": 1000 * image + number % 2}
            questions.append({**ids, "question": f"is it {number % 2} dogs"})
            given = [{"answer": answer, "answer_id": place} for place in range(1, 11)]
            annotations.append({**ids, "multiple_choice_answer": answer, "answers": given})
            folder = "test2015" if part.startswith("test") else part
            write_photo(root / f"{folder}/COCO_{folder}_{image:012d}.jpg", number)
        name = f"v2_OpenEnded_mscoco_{part}_questions.json"
        (root / name).write_text(json.dumps({"data_subtype": part, "questions": questions}))
        if not part.startswith("test"):
            name = f"v2_mscoco_{part}_annotations.json"
            (root / name).write_text(json.dumps({"data_subtype": part, "annotations": annotations}))


def snli_ve(root):
    """Three hypotheses in each split."""
    labels = ("contradiction", "neutral", "entailment")
    for place, split in enumerate(("train", "dev", "test")):
        rows = []
        for number, label in enumerate(labels):
            image = str(100 * place + number)
            write_photo(root / "flickr30k-images" / f"{image}.jpg", number)
            rows.append({"Flickr30K_ID": image, "gold_label": label, "sentence2": "two men"})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"snli_ve_{split}.jsonl").write_text(text)


def bert_vocabulary(folder, words=WORDS):
    """A vocab.txt with as many pieces as BERT's."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    pieces += [f"[unused{number}]" for number in range(BERT - len(pieces))]
    (folder / "vocab.txt").write_text("\n".join(pieces))


def roberta(folder, width=8):
    """A narrow RoBERTa with a tokenizer of bytes, as transformers writes them."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {piece: number for number, piece in enumerate([*names, *letters])}
    tokenizer = Tokenizer(models.BPE(ids, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = dict(zip(("bos", "pad", "eos", "unk", "mask"), names, strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{kind}_token": name for kind, name in special.items()}
    ).save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=ROBERTA, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    transformers.RobertaModel(config).save_pretrained(folder)


def vision_transformer(path, width=16):
    """Weights of a narrow ViT-B/32 for 384 pixels, as timm saves them."""
    import timm

    sizes = {"depth": 1, "embed_dim": width, "num_heads": 2, "mlp_ratio": 1, "num_classes": 0}
    torch.save(timm.create_model("vit_base_patch32_384", **sizes).state_dict(), path)


def write_all(root):
    """All data sets, tokenizers and encoders of the recipes, in ``root``."""
    captions(root)
    tars(root)
    pairs(root)
    nlvr2(root / "nlvr2")
    vqav2(root / "vqav2")
    snli_ve(root / "snli_ve")
    bert_vocabulary(root / "bert-base-uncased")
    roberta(root / "roberta-base")
    vision_transformer(root / "vit.pth")
