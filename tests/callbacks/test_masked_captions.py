"""Pictures of guessed words: what is in them, and when they are drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_ssl.callbacks import Grounding, MaskedCaptions
from lit_ssl.callbacks.pictures import masked_captions
from lit_ssl.callbacks.pictures.caption_drawing import (
    CaptionPicture,
    Guess,
    WordMap,
    draw_captions,
    fitted,
    tinted,
)
from lit_ssl.callbacks.pictures.caption_samples import caption_picture, patch_grid, take_samples

sys.path.insert(0, str(Path(__file__).parent))
import caption_toys

GREEN, RED = (0, 120, 50), (200, 25, 25)


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels_of(drawn, colour):
    return int((drawn == np.array(colour)).all(-1).sum())


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


# drawing


def test_small_images_are_enlarged_without_smoothing_and_large_ones_shrink():
    small = noise(32, 24)
    assert np.array_equal(np.asarray(fitted(small, 224)), small.repeat(7, 0).repeat(7, 1))
    assert fitted(noise(384, 640), 224).size == (224, 134)
    assert fitted(noise(2000, 1), 224).size == (1, 224)


def test_only_patches_with_more_than_an_even_share_are_orange():
    image = Image.fromarray(noise(6, 9))
    shares = np.array([[1.0, 3.0, 0.2], [np.nan, 2.0, 1.0]])
    drawn = np.asarray(tinted(image, shares, 3.0)).astype(int)
    warmth = (drawn[..., 0] - drawn[..., 2]).reshape(2, 3, 3, 3).mean((1, 3))
    assert (warmth[0, 0], warmth[0, 2], warmth[1, 0], warmth[1, 2]) == (0, 0, 0, 0)
    assert warmth[0, 1] == pytest.approx(0.8 * 255, abs=1)
    assert warmth[1, 1] == pytest.approx(0.4 * 255, abs=1)


def test_right_guesses_are_green_and_wrong_ones_red():
    def drawn(own, other, matches):
        picture = CaptionPicture(
            noise(32, 32), noise(8, 8), ["a", "red"], [None, (own, other)], matches
        )
        return draw_captions([picture])

    right, wrong = Guess("red", 0.9, True), Guess("blue", 0.4, False)
    both = drawn(right, wrong, None)
    assert pixels_of(both, GREEN) > 2
    assert pixels_of(both, RED) > 2
    assert pixels_of(drawn(right, right, (0.9, 0.1)), RED) == 0
    assert pixels_of(drawn(wrong, wrong, (0.1, 0.9)), GREEN) == 0
    # 0.5 is no match: wrong for the own image, right for another one
    halves = drawn(right, right, (0.5, 0.5))
    assert pixels_of(halves, RED) > 2


def test_long_captions_wrap_and_any_letters_can_be_drawn():
    long = ["word"] * 150
    words = ["Ωμέγα", "東京", "العربية", "", "\n", "a\nb", "\ud800", "🦒", "x" * 500]
    guesses = [(Guess(word, 0.5, True), None) for word in words]
    heights = []
    for caption in (["one"], long, long * 3):
        picture = CaptionPicture(noise(32, 32), None, caption, [None] * len(caption))
        heights.append(draw_captions([picture]).shape[0])
    assert heights[0] < heights[1] < heights[2]
    picture = CaptionPicture(
        noise(384, 640), noise(640, 384), words, guesses, (0.5, float("nan")),
        [WordMap("x" * 500, np.full((12, 20), np.nan)), WordMap("東京", np.ones((12, 20)))],
    )  # fmt: skip
    drawn = draw_captions([picture, picture], "two")
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] < 1600


# what is drawn


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (4, (32, 32), (2, 2)), (240, (384, 640), (12, 20)), (1, (32, 32), (1, 1)),
        (49, (224, 224), (7, 7)), (48, (224, 224), None), (0, (32, 32), None),
        (2, (32, 32), None), (6, (32, 48), (2, 3)), (5, (32, 48), None),
    ],
)  # fmt: skip
def test_grids_of_square_patches(tokens, size, grid):
    assert patch_grid(tokens, *size) == grid


def test_samples_are_one_for_each_image_without_padding_and_copies():
    ids = torch.arange(1, 25).view(4, 6)
    lengths = torch.tensor([6, 4, 3, 5])
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[[0, 1, 3], [1, 2, 3]] = True
    pixel_mask = torch.zeros(4, 8, 8, dtype=torch.bool)
    for row, (height, width) in enumerate(((8, 8), (4, 8), (8, 4), (6, 2))):
        pixel_mask[row, :height, :width] = True
    inputs = {
        "images": torch.rand(4, 3, 8, 8), "pixel_mask": pixel_mask, "input_ids": ids,
        "attention_mask": (torch.arange(6) < lengths[:, None]).long(), "word_ids": ids - 1,
        "other_images": torch.rand(4, 3, 8, 8), "negative_input_ids": torch.ones(4, 2, 6),
    }  # fmt: skip
    found = list(take_samples(inputs, torch.tensor([7, 7, 8, 9]), mask, []))
    assert [sample.number for sample in found] == [7, 9]  # 8 has no masked word
    assert set(found[1].inputs) == {"images", "input_ids", "attention_mask", "word_ids"}
    assert torch.equal(found[1].inputs["images"], inputs["images"][3:, :, :6, :2])
    assert found[1].inputs["input_ids"].tolist() == [[19, 20, 21, 22, 23]]
    assert found[1].mask.tolist() == [[False, False, False, True, False]]
    assert [s.number for s in take_samples(inputs, torch.tensor([7, 7, 8, 9]), mask, [7])] == [9]
    inputs["images"].zero_()
    assert found[0].inputs["images"].any()
    inputs["candidates"] = ids == 22
    assert [s.number for s in take_samples(inputs, torch.tensor([7, 7, 8, 9]), mask, [])] == [9]


class Written(caption_toys.CaptionModule):
    """Guesses 90 and 11 for any two tokens; word 1 lies at the second row, third column."""

    def guess(self, inputs, mask):
        assert not self.training
        logits = torch.zeros(int(mask.sum()), 100)
        logits[0, 90], logits[1:, 11] = 3.0, 2.0
        return logits if float(inputs["images"].mean()) < 0.5 else -logits

    def match(self, inputs):
        return 4.0 * (0.5 - inputs["images"].mean((1, 2, 3)).round())

    def align(self, inputs):
        plan = torch.full((1, 7, 5), 0.1)
        plan[0, 0] = 100.0  # of [CLS], which is no patch
        plan[0, 6, 2:4] = 0.4
        return plan


def test_words_guesses_and_places_of_a_caption():
    ids = torch.tensor([[1, 50, 20, 90, 2]])
    inputs = {
        "images": torch.zeros(1, 3, 32, 48), "input_ids": ids,
        "attention_mask": torch.ones_like(ids), "word_ids": torch.tensor([[-1, 0, 1, 1, -1]]),
    }  # fmt: skip
    mask = torch.tensor([[False, False, True, True, False]])
    (sample,) = take_samples(inputs, torch.tensor([0]), mask, [])
    (other,) = take_samples({**inputs, "images": torch.ones(1, 3, 8, 8)}, torch.tensor([1]), mask,
                            [])  # fmt: skip

    def pixels(images):
        return images[0].byte().permute(1, 2, 0).numpy()

    module = Written().eval()
    drawn = caption_picture(module, sample, other, caption_toys.Pieces(), pixels)
    assert drawn.words == ["50", "2090"]
    assert drawn.guesses[0] is None
    own, apart = drawn.guesses[1]
    assert (own.word, own.is_right) == ("##90 11", False)
    first, second = np.exp(3) / (np.exp(3) + 99), np.exp(2) / (np.exp(2) + 99)
    assert own.probability == pytest.approx(first * second, rel=1e-5)
    assert apart.word == "0 0"
    assert drawn.matches == pytest.approx((1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))))
    one, two = drawn.maps
    assert (one.word, two.word) == ("50", "2090")
    np.testing.assert_allclose(one.shares, np.ones((2, 3)), rtol=1e-5)
    expected = np.ones((2, 3)) * 0.2
    expected[1, 2] = 0.8
    np.testing.assert_allclose(two.shares, expected / expected.mean(), rtol=1e-5)
    alone = caption_picture(module, sample, None, caption_toys.Pieces(), pixels)
    assert (alone.other, alone.guesses[1][1], alone.matches[1]) == (None, None, None)
    module.heads = ("mlm_head",)
    assert caption_picture(module, sample, other, caption_toys.Pieces(), pixels).matches is None


# when and where


def test_pictures_of_due_epochs_and_of_the_end(make_trainer, tmp_path):
    trainer = make_trainer(
        callbacks=[MaskedCaptions(every_n_epochs=2)], max_epochs=3, num_sanity_val_steps=2
    )
    trainer.fit(caption_toys.CaptionModule(), caption_toys.WrittenCaptions())
    assert written(tmp_path) == [f"masked_captions/step_{s:08d}.png" for s in (8, 12)]
    for path in tmp_path.rglob("*.png"):
        assert np.asarray(Image.open(path)).std() > 10


def test_an_end_by_early_stopping_is_drawn(make_trainer, tmp_path):
    stop = EarlyStopping("val/grounding", mode="max", stopping_threshold=-2.0)
    trainer = make_trainer(
        callbacks=[MaskedCaptions(every_n_epochs=50), Grounding(), stop], max_epochs=9
    )
    trainer.fit(caption_toys.CaptionModule(), caption_toys.WrittenCaptions())
    assert written(tmp_path) == ["masked_captions/step_00000004.png"]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluations_and_loggers(make_trainer, tmp_path, command):
    board = TensorBoardLogger(tmp_path, name="run")
    trainer = make_trainer(callbacks=[MaskedCaptions()], logger=board)
    getattr(trainer, command)(
        caption_toys.CaptionModule(), caption_toys.WrittenCaptions(), verbose=False
    )
    assert written(tmp_path) == [f"run/version_0/masked_captions/{command}.png"]
    events = EventAccumulator(board.log_dir).Reload()
    assert events.Tags()["images"] == ["masked_captions"]


def test_rows_are_the_first_images_with_masked_words(make_trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        masked_captions, "draw_captions",
        lambda pictures, title: seen.append((pictures, title)) or draw_captions(pictures, title),
    )  # fmt: skip
    data = caption_toys.WrittenCaptions(batch_size=3)
    callback = MaskedCaptions(num_samples=4)
    make_trainer(callbacks=[callback]).validate(caption_toys.CaptionModule(), data, verbose=False)
    ((pictures, title),) = seen
    assert title == "validate, weights of step 0"
    expected = {}
    for row, number in enumerate(caption_toys.NUMBERS):
        ids = torch.tensor(data.captions.ids(row))
        if (caption_toys.is_chosen(ids) & caption_toys.is_content(ids)).any():
            expected.setdefault(number, [str(n) for n in ids.tolist()])
    first = list(expected.items())[:4]
    others = [number for number, _ in (*first[1:], first[0])]
    for picture, (number, words), other in zip(pictures, first, others, strict=True):
        assert picture.words == words
        for image, shown in ((picture.image, number), (picture.other, other)):
            np.testing.assert_allclose(image, 25.5 * shown, atol=1)


def test_training_does_not_notice(make_trainer, tmp_path):
    weights = []
    for callbacks in ([], [MaskedCaptions()]):
        torch.manual_seed(1)
        module = caption_toys.CaptionModule()
        trainer = make_trainer(callbacks=callbacks, max_epochs=2, num_sanity_val_steps=2)
        trainer.fit(module, caption_toys.WrittenCaptions())
        weights.append(module.linear.weight.detach().clone())
    assert torch.equal(*weights)
    assert len(written(tmp_path)) == 2


def test_debugging_runs_leave_nothing(make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[MaskedCaptions()], fast_dev_run=True)
    trainer.fit(caption_toys.CaptionModule(), caption_toys.WrittenCaptions())
    assert written(tmp_path) == []


def test_what_cannot_be_drawn_is_said(make_trainer, tmp_path):
    class NoWords(caption_toys.CaptionModule):
        def fixed_mask(self, inputs):
            return torch.zeros_like(inputs["input_ids"], dtype=torch.bool)

    class Unvalidated(caption_toys.WrittenCaptions):
        def val_dataloader(self):
            return []

    trainer = make_trainer(callbacks=[MaskedCaptions()])
    with pytest.warns(UserWarning, match="draws nothing: no caption of the evaluated set has a"):
        trainer.validate(NoWords(), caption_toys.WrittenCaptions(), verbose=False)
    assert written(tmp_path) == []
    with pytest.warns(UserWarning, match="Never runs: MaskedCaptions") as told:
        make_trainer(callbacks=[MaskedCaptions()]).fit(caption_toys.CaptionModule(), Unvalidated())
    assert not any("draws nothing" in str(w.message) for w in told)
    with pytest.warns(UserWarning, match="are not a class token and a grid") as told:
        make_trainer(callbacks=[MaskedCaptions()], max_epochs=3).fit(
            caption_toys.CaptionModule(), caption_toys.WrittenCaptions()
        )
    assert len([w for w in told if "class token and a grid" in str(w.message)]) == 1


def test_mistakes(toys, make_trainer):
    with pytest.raises(ValueError, match="num_samples and every_n_epochs >= 1, got 0, 1"):
        MaskedCaptions(num_samples=0)
    trainer = make_trainer(callbacks=[MaskedCaptions()])
    with pytest.raises(AttributeError, match=r"MaskedCaptions needs a module that .* no embed\("):
        trainer.fit(toys.ToyModule(), toys.ToyData())
    with pytest.raises(AttributeError, match=r"needs the data's text_tokenizer.*CaptionData has"):
        trainer.fit(caption_toys.CaptionModule(), caption_toys.CaptionData())
    module = caption_toys.CaptionModule()
    module.heads = ("itm_head",)
    for callback in (MaskedCaptions(), Grounding()):
        with pytest.raises(ValueError, match="has no head for them: give it an mlm_weight"):
            make_trainer(callbacks=[callback]).fit(module, caption_toys.WrittenCaptions())
