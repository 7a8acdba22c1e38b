"""Scenes of digits: what is said of them is true, and they are functions of seed and number."""

from __future__ import annotations

import re

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from lit_ssl.datamodules import (
    DigitScenesDataModule,
    DigitScenesNLVR2DataModule,
    NLVR2DataModule,
    write_nlvr2_layout,
)
from lit_ssl.datamodules.vision_language.digit_scenes import text, world
from lit_ssl.datamodules.vision_language.digit_scenes.statements import draw_statement
from lit_ssl.errors import InputError
from lit_ssl.metrics import NLVR2Accuracy
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.text.wordpiece import tokenizer_of_pieces

pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

COUNT = 1000
BASIC = {new: old for old, new in text._SYNONYMS.items()}
DIGIT_WORDS = {"zero": 0, "three": 3, "four": 4, "six": 6, "seven": 7}
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
RELATIONS = {
    "above": lambda a, b: a.cell // 2 < b.cell // 2,
    "higher than": lambda a, b: a.cell // 2 < b.cell // 2,
    "below": lambda a, b: a.cell // 2 > b.cell // 2,
    "lower than": lambda a, b: a.cell // 2 > b.cell // 2,
    "left of": lambda a, b: a.cell % 2 < b.cell % 2,
    "right of": lambda a, b: a.cell % 2 > b.cell % 2,
}


def scenes(split="train", count=COUNT):
    code = world.SPLITS[split]
    drawn = [world.draw_scene(world.Dice(0, 1, code, i), split) for i in range(count)]
    said = [text.draw_caption(world.Dice(0, 2, code, i), scene) for i, scene in enumerate(drawn)]
    return drawn, said


def fits(phrase, digit):
    """Whether a noun phrase such as "a small red three" is true of a digit."""
    article, *words = [BASIC.get(word, word) for word in phrase.split()]
    assert article == "a"
    size = words.pop(0) if words[0] in ("small", "large") else None
    colour, noun = words
    return (
        size in (None, "small" if digit.is_small else "large")
        and colour == list(world.COLOURS)[digit.combination.colour]
        and (noun == "digit" or DIGIT_WORDS[noun] == world.DIGITS[digit.combination.digit])
    )


def is_true(caption, scene):
    both = [(a, b) for a in scene for b in scene if a is not b]
    if match := re.fullmatch(r"(one digit|two digits) with (.+)", caption):
        count = 1 if match[1] == "one digit" else 2
        return len(scene) == count and any(fits(match[2], digit) for digit in scene)
    if match := re.fullmatch(rf"(.+) ({'|'.join(RELATIONS)}) (.+)", caption):
        return any(
            fits(match[1], a) and fits(match[3], b) and RELATIONS[match[2]](a, b) for a, b in both
        )
    if match := re.fullmatch(r"(.+) and (.+)", caption):
        return any(fits(match[1], a) and fits(match[2], b) for a, b in both)
    place = re.search(r"(at the |in the )?(top|upper|bottom|lower) (left|right)( corner)?", caption)
    phrase = caption.replace(place[0], "").strip()
    cell = 2 * (place[2] in ("bottom", "lower")) + (place[3] == "right")
    return any(fits(phrase, digit) and digit.cell == cell for digit in scene)


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_are_true_and_foils_are_not(split):
    drawn, said = scenes(split)
    for i, (scene, caption) in enumerate(zip(drawn, said, strict=True)):
        assert is_true(caption.text, scene)
        foil = text.draw_foil(world.Dice(0, 3, i), scene, caption)
        assert not is_true(foil, scene)
        assert sum(a != b for a, b in zip(foil.split(), caption.words, strict=True)) == 1


def test_scenes_have_the_shares_of_the_world():
    for split, held_out in (("train", 0), ("val", 0.5), ("test", 0.5)):
        drawn, _ = scenes(split)
        digits = [digit for scene in drawn for digit in scene]
        unseen = [digit.combination in world.HELD_OUT for digit in digits]
        assert np.mean(unseen) == pytest.approx(held_out, abs=0.05 if held_out else 0)
        assert np.mean([len(scene) for scene in drawn]) == pytest.approx(1.5, abs=0.05)
        assert all(len({digit.cell for digit in scene}) == len(scene) for scene in drawn)
        assert {digit.combination for digit in digits} >= set(world.SEEN)
        assert {digit.offset for digit in digits if not digit.is_small} == {(0, 0)}
        assert {o for digit in digits if digit.is_small for o in digit.offset} == set(range(6))
    held = {(list(world.COLOURS)[c], world.DIGITS[d]) for c, d in world.HELD_OUT}
    assert held == {
        ("red", 0), ("green", 3), ("blue", 4), ("yellow", 6), ("purple", 7), ("cyan", 0),
    }  # fmt: skip


def test_numbers_of_the_vocabulary():
    """8.5 tokens, 6.8 words, 35 % of the content words split; what each rate masks."""
    _, said = scenes(count=2000)
    tokenizer = tokenizer_of_pieces(text.PIECES, "pieces")
    assert len(set(text.PIECES)) == 73
    pieces = {word: tokenizer.tokenize(word) for word in {w for c in said for w in c.words}}
    lengths = np.array([sum(len(pieces[word]) for word in caption.words) for caption in said])
    assert lengths.mean() == pytest.approx(8.5, abs=0.15)
    assert np.mean([len(caption.words) for caption in said]) == pytest.approx(6.8, abs=0.1)
    words = [word for caption in said for word in caption.words]
    content = [word for word, is_it in zip(words, text.is_content(words), strict=True) if is_it]
    counts = np.array([len(pieces[word]) for word in content])
    assert np.mean(counts > 1) == pytest.approx(0.35, abs=0.02)
    assert np.mean(0.85**lengths) == pytest.approx(0.27, abs=0.015)
    per_step = 16 / len(said)
    for rate, uniform, whole in ((0.15, 7.2, 11.0), (0.3, 16.7, 21.6), (0.6, 37.8, 44.2)):
        assert per_step * (rate**counts).sum() == pytest.approx(uniform, rel=0.07)
        assert per_step * rate * len(content) == pytest.approx(whole, rel=0.04)
    assert not any("[UNK]" in found for found in pieces.values())
    assert lengths.max() + 2 <= 24


def test_statements_are_true_of_two_pairs():
    def holds(statement, pair):
        images = (pair.left, pair.right)
        if match := re.fullmatch(r"(\w+) digits in total", statement):
            return sum(map(len, images)) == NUMBERS[match[1]]
        if match := re.fullmatch(r"more digits in the (left|right) image than .+", statement):
            left, right = map(len, images)
            return left > right if match[1] == "left" else right > left
        phrase, _, where = statement.partition(" in ")
        there = [any(fits(phrase, digit) for digit in scene) for scene in images]
        if where == "one of the images":
            assert sum(there) < 2  # else nobody could say
            return any(there)
        return all(there) if where == "both images" else there["right" in where]

    kinds = []
    for split, count in (("train", 600), ("test", 200)):
        for i in range(count):
            statement = draw_statement(world.Dice(0, 4, i), split)
            kinds.append(statement.kind)
            truth = [pair.is_true for pair in statement.pairs]
            assert sorted(truth) == [False, False, True, True]
            assert [holds(statement.text, pair) for pair in statement.pairs] == truth
            if statement.kind == "colour_side":
                # Whoever swaps the images has to answer otherwise.
                turned = [
                    pair._replace(left=pair.right, right=pair.left) for pair in statement.pairs
                ]
                assert [holds(statement.text, pair) for pair in turned] == [not t for t in truth]
            words = statement.text.split()
            if split == "test" and statement.kind.startswith("digit"):
                colour = list(world.COLOURS).index(BASIC.get(words[1], words[1]))
                digit = world.DIGITS.index(DIGIT_WORDS[words[2]])
                assert (colour, digit) in world.HELD_OUT
    assert kinds.count("colour_side") / len(kinds) == pytest.approx(0.25, abs=0.05)
    assert kinds.count("total") / len(kinds) == pytest.approx(0.05, abs=0.03)


# Data modules


def make(**options):
    return DigitScenesDataModule(**{"sizes": (13, 0, 7), "batch_size": 4, **options})


@pytest.fixture(scope="module")
def data():
    module = make()
    module.setup()
    return module


def test_batches(data):
    (*_, last) = data.test_dataloader()
    assert last[0]["images"].shape == (3, 3, 32, 32)
    (inputs, numbers), *_ = data.test_dataloader()
    assert inputs["images"].dtype == torch.uint8
    assert numbers.tolist() == [0, 1, 2, 3]
    shape = inputs["input_ids"].shape
    assert {name: inputs[name].shape for name in inputs if name != "images"} == dict.fromkeys(
        ("input_ids", "attention_mask", "word_ids", "candidates"), shape
    )
    special = inputs["input_ids"] < 4
    assert torch.equal(inputs["word_ids"] == -1, special)
    assert not inputs["candidates"][special].any()
    pieces = data.text_tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    flags = dict(zip(pieces, inputs["candidates"][0].tolist(), strict=True))
    assert not flags.get("a", False)
    assert (data.vocab_size, data.mask_id, data.num_classes) == (73, 4, 0)
    assert len(data.val_dataloader()) == len(data.test_dataloader()) == 2
    assert data.validates_on_test


def test_pixels_are_those_of_the_digits(data):
    inputs, _ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    raw = next(iter(data.test_dataloader()))[0]["images"]
    torch.testing.assert_close(inputs["images"], raw / 64 - 0.4, atol=1e-5, rtol=0)
    pixels = data.rows("test").source.images.pixels.float()
    for number in range(7):
        scene = world.draw_scene(data._dice(851, "test", number), "test")
        cells = pixels[number].unflatten(1, (2, 16)).unflatten(3, (2, 16)).amax((2, 4))
        lit = {digit.cell for digit in scene}
        for cell in range(4):
            brightest = cells[:, cell // 2, cell % 2].max()
            assert (brightest > 120) == (cell in lit)
        for digit in scene:
            colour = torch.tensor(list(world.COLOURS.values())[digit.combination.colour])
            found = cells[:, digit.cell // 2, digit.cell % 2]
            assert (found - colour).abs().max() < 60


def test_noise_and_scenes_are_functions_of_the_number():
    few, many = make().load_rows("train"), make(sizes=(17, 5, 3)).load_rows("train")
    assert torch.equal(few.source.images.pixels, many.source.images.pixels[:13])
    assert few.source.texts == many.source.texts[:13]
    other = make(scene_seed=1).load_rows("train")
    assert not torch.equal(other.source.images.pixels, few.source.images.pixels)
    assert other.source.texts != few.source.texts
    assert make().load_rows("test").source.texts != few.source.texts[:7]
    digits = [world.Digit(world.Combination(0, 0), False, 0, (0, 0), 0.0)]
    blank = {(0, False): torch.zeros(1, 16, 16)}
    noise = world.render_scenes([digits] * 600, blank, (0, 1, 2), np.arange(600)).float()
    # Half of a Gaussian, since pixels cannot be below 0.
    assert noise.square().mean().sqrt().item() == pytest.approx(8 / 2**0.5, abs=0.05)
    assert (noise == 0).float().mean().item() == pytest.approx(0.525, abs=0.005)


def test_foils_go_with_the_rows(data):
    foils = data.foils("val")
    captions = make().load_rows("test").source.texts
    changed = [
        sum(a != b for a, b in zip(f.split(), c.split(), strict=True))
        for f, c in zip(foils, captions, strict=True)
    ]
    assert changed == [1] * 7
    assert data.foils("predict") == data.foils("test") == foils
    batch = data.encode(foils)
    assert set(batch) == {"input_ids", "attention_mask", "word_ids", "candidates"}
    assert len(batch["input_ids"]) == 7


class Recorder(pl.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, numbers, *_ = batch
        self.seen.append((numbers.tolist(), *(inputs[name].tolist() for name in sorted(inputs))))
        return self.weight * inputs["images"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, path=None, folder=None):
    callbacks = []
    if folder is not None:
        callbacks = [pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


@pytest.mark.parametrize("kind", [DigitScenesDataModule, DigitScenesNLVR2DataModule])
def test_resume_is_the_identical_trajectory(kind, tmp_path):
    def build(**options):
        return kind(**{"sizes": (13, 0, 1), "batch_size": 4, "seed": 3, **options})

    whole = fit(build(), folder=tmp_path)
    for step in (1, 4):
        (path,) = tmp_path.glob(f"*step={step}.ckpt")
        assert fit(build(num_workers=step // 2), path) == whole[step:], step
    assert fit(build(seed=1)) != whole


def test_three_shards_cover_each_row_once(data, monkeypatch):
    seen = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        seen += [n for _, numbers in data.bank_dataloader() for n in numbers.tolist()]
    assert sorted(seen) == list(range(13))


def test_other_vocabularies(tmp_path):
    trained = make(tokenizer=CorpusWordPiece(str(tmp_path), 200))
    trained.prepare_data()
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    trained.setup("fit")
    assert path.stat().st_mtime_ns == written
    given = make(tokenizer=str(path))
    given.setup("fit")
    for mine, same in zip(trained.test_dataloader(), given.test_dataloader(), strict=True):
        assert torch.equal(mine[0]["input_ids"], same[0]["input_ids"])
    assert trained.vocab_size == given.vocab_size <= 200
    path.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a")))
    with pytest.raises(InputError, match=r"has no \[MASK\]"):
        _ = make(tokenizer=str(path)).mask_id
    with pytest.raises(InputError, match="needs words to mask, which bytes do not tell"):
        make(tokenizer="bytes")
    with pytest.raises(InputError, match="sizes are the scenes of train"):
        make(sizes=(0, 1, 1))


YAML = """
data:
  class_path: lit_ssl.datamodules.DigitScenesDataModule
  init_args:
    sizes: [9, 0, 2]
    tokenizer: TOKENIZER
"""


@pytest.mark.parametrize("tokenizer", ["null", "vocab.txt", "{folder: FOLDER, size: 250}"])
def test_from_yaml(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(text.PIECES))
    given = tokenizer.replace("vocab.txt", f"{tmp_path}/vocab.txt").replace("FOLDER", str(tmp_path))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    parser.add_argument("--config", action="config")
    config = parser.parse_args(["--config", YAML.replace("TOKENIZER", given)])
    data = parser.instantiate_classes(config).data
    data.setup("fit")
    assert len(data.rows("train")) == 9
    assert (data.vocab_size == 73) == (tokenizer != "{folder: FOLDER, size: 250}")
    assert len(list(tmp_path.glob("wordpiece_250_*.txt"))) == (data.vocab_size != 73)


def test_statements_as_rows():
    module = DigitScenesNLVR2DataModule(sizes=(5, 3, 2), batch_size=3)
    module.setup()
    (inputs, labels, statements), *_ = module.val_dataloader()
    assert statements.tolist() == [0, 0, 0]
    assert inputs["images"].shape == (3, 2, 3, 32, 32)
    assert set(inputs) == {"images", "input_ids", "attention_mask"}
    assert module.labels("train").tolist().count(1) == 10
    assert module.column("statement", "val").tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert labels.tolist() == module.labels("val")[:3].tolist()
    assert (module.num_classes, module.vocab_size, module.validates_on_test) == (2, 73, False)
    labels, statements = (torch.from_numpy(module.column(n, "val")) for n in ("label", "statement"))
    metric = NLVR2Accuracy()
    wrong = labels.clone()
    wrong[5] = 1 - wrong[5]
    metric.update(wrong, labels, statements)
    assert metric.compute().consistency.item() == pytest.approx(2 / 3)


def test_the_official_layout_is_read_back(tmp_path):
    sizes = (5, 3, 2)
    root = write_nlvr2_layout(tmp_path / "scenes", sizes)
    drawn = DigitScenesNLVR2DataModule(sizes=sizes)
    read = NLVR2DataModule(
        root=str(root), tokenizer=str(root / "vocab.txt"), image_size=32, num_workers=0,
        mean=drawn.mean, std=drawn.std, max_length=24,
    )  # fmt: skip
    for split in ("train", "val", "test"):
        assert np.array_equal(read.labels(split), drawn.labels(split))
        same = np.equal.outer(*[read.column("statement", split)] * 2)
        assert np.array_equal(same, np.equal.outer(*[drawn.column("statement", split)] * 2))
        loaders = [module.evaluation_loader(split) for module in (read, drawn)]
        for (mine, *_), (theirs, *_) in zip(*loaders, strict=True):
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert read.identifiers("val")[5] == "dev-1-1-0"
    held_out = NLVR2DataModule(
        root=str(root), tokenizer="bytes", val_directories=[3], evaluate_on="balanced"
    )
    assert len(held_out.labels("val")) == 4
    assert len(held_out.labels("test")) == 4
    with pytest.raises(InputError, match=r"has a train\.json already"):
        write_nlvr2_layout(root, sizes)
