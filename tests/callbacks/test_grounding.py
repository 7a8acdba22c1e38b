"""The gauge of grounding: exact counts, whatever the batches, and no trace in the training."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lit_ssl.callbacks import Grounding
from lit_ssl.callbacks.evaluators.other_images import OtherImages, nearest_earlier_others

sys.path.insert(0, str(Path(__file__).parent))
import caption_toys

COUNT = len(caption_toys.NUMBERS)
ONE_IMAGE = [3] * 5


def measured(make_trainer, data, command="validate", module=None):
    trainer = make_trainer(callbacks=[Grounding()])
    getattr(trainer, command)(module or caption_toys.CaptionModule(), data, verbose=False)
    split = "val" if command == "validate" else "test"
    return {
        name.removeprefix(f"{split}/"): value.item()
        for name, value in trainer.callback_metrics.items()
    }


@pytest.mark.parametrize("command", ["validate", "test"])
def test_values_are_those_counted_by_hand(make_trainer, command):
    data = caption_toys.CaptionData()
    found = measured(make_trainer, data, command)
    expected = caption_toys.expected(data.captions)
    assert len(set(expected.values())) == 8  # all different: none can stand for another
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3, COUNT - 1, COUNT])
def test_batches_do_not_matter_and_are_embedded_once(make_trainer, batch_size):
    """With 1, captions of one image wait for the next; with 12 the last batch has one row."""
    data, module = caption_toys.CaptionData(batch_size), caption_toys.CaptionModule()
    found = measured(make_trainer, data, module=module)
    assert found == pytest.approx(caption_toys.expected(data.captions))
    assert module.embedded == -(-COUNT // batch_size)


def test_without_candidates_there_is_no_value_for_content_words(make_trainer):
    data = caption_toys.CaptionData(candidates=False)
    found = measured(make_trainer, data)
    assert found == pytest.approx(caption_toys.expected(data.captions, candidates=False))
    assert not any("content" in name for name in found)


def test_captions_of_one_image_only_are_left_out_and_the_run_says_so(make_trainer):
    with pytest.warns(UserWarning, match="leaves out 5 of 5 captions of the val set: all that"):
        assert measured(make_trainer, caption_toys.CaptionData(2, ONE_IMAGE)) == {}


def test_no_masked_words_are_said_and_matching_is_measured(make_trainer):
    class NoWords(caption_toys.CaptionModule):
        def fixed_mask(self, inputs):
            return torch.zeros_like(inputs["input_ids"], dtype=torch.bool)

    with pytest.warns(UserWarning, match="no words: the fixed mask chooses none in the 13 cap"):
        found = measured(make_trainer, caption_toys.CaptionData(), module=NoWords())
    assert sorted(found) == ["itm_rolled", "itm_true"]


def test_other_images_are_never_of_the_same_number():
    assert nearest_earlier_others([]) == []
    assert nearest_earlier_others([4, 4, 2, 2, 4, 1]) == [-1, -1, 1, 1, 3, 4]
    generator = torch.Generator().manual_seed(0)
    for trial in range(50):
        numbers = torch.randint(0, 2 + trial % 4, (23,), generator=generator)
        stream, seen = OtherImages(), {}
        for rows in torch.arange(23).split(1 + trial % 7):
            embeds = numbers[rows].float()[:, None, None].expand(-1, 1 + len(rows), 1)
            images = {"image_embeds": embeds, "image_mask": torch.ones(embeds.shape[:2])}
            for texts, others in stream.add({"row": rows}, images, numbers[rows]):
                assert others["image_mask"].any(1).all()
                found = others["image_embeds"].amax((1, 2)).long().tolist()
                seen |= dict(zip(texts["row"].tolist(), found, strict=True))
        assert sorted(seen) == list(range(23))
        assert stream.num_waiting == 0
        assert all(number != numbers[row] for row, number in seen.items())


def test_log_odds_of_nan_make_all_numbers_nan(make_trainer):
    class Broken(caption_toys.CaptionModule):
        def match(self, inputs):
            return torch.full((len(inputs["input_ids"]),), torch.nan)

    found = measured(make_trainer, caption_toys.CaptionData(), module=Broken())
    assert found
    assert all(math.isnan(value) for value in found.values())


def test_training_does_not_notice_and_its_check_logs_nothing(make_trainer):
    weights = []
    for callbacks in ([], [Grounding()]):
        torch.manual_seed(1)
        module = caption_toys.CaptionModule()
        trainer = make_trainer(callbacks=callbacks, max_epochs=2, num_sanity_val_steps=2)
        trainer.fit(module, caption_toys.CaptionData())
        weights.append(module.linear.weight.detach().clone())
        logged = [name for name in trainer.callback_metrics if name.startswith("val/")]
        assert len(logged) == (8 if callbacks else 0)
        assert module.embedded == (8 if callbacks else 0)  # two epochs of four batches
    assert torch.equal(*weights)


def test_a_fit_is_measured_at_its_end_and_can_be_watched(make_trainer):
    watch = EarlyStopping("val/grounding_content", mode="max", patience=0)
    trainer = make_trainer(
        callbacks=[Grounding(), watch], max_steps=5, max_epochs=-1, check_val_every_n_epoch=100
    )
    with pytest.warns(UserWarning, match="validated only at its end"):
        trainer.fit(caption_toys.CaptionModule(), caption_toys.CaptionData())
    assert "val/grounding" in trainer.callback_metrics
    assert watch.best_score == trainer.callback_metrics["val/grounding_content"]


def test_several_sets_have_names(make_trainer):
    from lit_ssl.contracts.evaluation_sets import EvaluationSet

    class Two(caption_toys.CaptionData):
        def val_dataloader(self):
            loader = super().val_dataloader()
            return [loader, loader]

    class Named(Two):
        def evaluation_sets(self, split):
            return [EvaluationSet(), EvaluationSet("again")]

    class Module(caption_toys.CaptionModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pass

    found = measured(make_trainer, Named(), module=Module())
    assert found["again_itm_true"] == found["itm_true"]
    assert len(found) == 16
    with pytest.raises(ValueError, match="Grounding needs a name for each of several loaders"):
        measured(make_trainer, Two(), module=Module())


def test_mistakes(toys, make_trainer):
    with pytest.raises(AttributeError, match=r"Grounding needs a module that guesses .*no embed\("):
        make_trainer(callbacks=[Grounding()]).fit(toys.ToyModule(), toys.ToyData())

    class Other(caption_toys.CaptionModule):
        def on_validation_batch_start(self, *args):
            pass

    with pytest.raises(TypeError, match="Grounding needs batches of images with captions"):
        make_trainer(callbacks=[Grounding()]).validate(Other(), toys.ToyData(), verbose=False)


# Of three processes, the second has rows of image 4 only.
RUNS = [(2, caption_toys.NUMBERS), (3, caption_toys.NUMBERS), (3, (1, 4, 2, 3, 4, 5, 1, 4))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What several processes logged, and what they said."""
    out = tmp_path_factory.mktemp("processes") / "out.json"
    script = Path(__file__).with_name("run_grounding.py")
    done = subprocess.run(
        [sys.executable, str(script), str(out), json.dumps(RUNS)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    pictures = list(out.parent.rglob("masked_captions/validate.png"))
    assert len(pictures) == len(RUNS)  # one each, by one process
    return json.loads(out.read_text()), done.stderr


@pytest.mark.distributed
def test_counts_are_over_all_processes(runs):
    """13 rows: one of three processes has a row and a batch more, its last batch is of one."""
    captions = caption_toys.CaptionData().captions
    alone = caption_toys.expected(captions)
    for (world, _), found in zip(RUNS[:2], runs[0], strict=False):
        assert found == pytest.approx(caption_toys.expected(captions, world))
        for kind in ("grounding", "grounding_content", "itm"):
            assert found[f"{kind}_true"] == pytest.approx(alone[f"{kind}_true"])


@pytest.mark.distributed
def test_a_process_with_one_image_is_left_out(runs):
    (*_, found), stderr = runs
    captions = caption_toys.Captions(RUNS[2][1])
    assert found == pytest.approx(caption_toys.expected(captions, 3))
    assert stderr.count("leaves out 3 of 8 captions of the val set") == 1
