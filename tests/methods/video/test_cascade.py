"""Levels of a cascade: what is trained when, what is kept, what is refused."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.errors import InputError
from lit_ssl.losses.hinge import hinge_d_loss, hinge_g_loss
from lit_ssl.methods.video.stored_cascade import load_generators
from lit_ssl.metrics import to_uint8
from lit_ssl.video.resampling import downsample_video

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import Blobs, blobs, fit, level1, level2, trainer


class Losses(pl.Callback):
    """What each step says."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((outputs["loss_d"].item(), outputs["loss_g"].item()))


def fingerprint(module):
    """Hash of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def make(level, checkpoint):
    """A new level of either kind."""
    return level1() if level == 1 else level2(str(checkpoint))


@pytest.mark.parametrize("level", [1, 2])
def test_each_optimizer_moves_its_own_networks(level, trained_level1, tmp_path):
    module = make(level, trained_level1)
    torch.manual_seed(0)
    fit(module, tmp_path, steps=1)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    below = None if module.lower is None else fingerprint(module.lower)
    video = Blobs(level).videos[:4]
    loss, _ = module.discriminator_loss(video, torch.tensor([0, 1, 0, 1]))
    for p in module.parameters():
        p.grad = None
    loss.backward()
    assert all(p.grad is None for n, p in module.named_parameters() if "generator" in n)
    assert all(p.grad is not None for p in module.discriminators.parameters())
    assert not any(p.requires_grad for p in module.generator_ema.parameters())
    fit(module, tmp_path, steps=2)
    changed = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("generator.") for n in changed)
    assert any(n.startswith("discriminators.") for n in changed)
    assert below is None or fingerprint(module.lower) == below
    assert not any(n.startswith("lower.") for n in changed)


@pytest.mark.parametrize("level", [1, 2])
def test_the_generators_step_leaves_the_discriminators_alone(level, trained_level1, tmp_path):
    module = make(level, trained_level1)
    before, loss_of = {}, module.generator_loss

    def noted(size):  # between the two steps
        for name, p in module.discriminators.named_parameters():
            before[name] = p.detach().clone(), p.grad.clone()
            assert not p.requires_grad
        return loss_of(size)

    module.generator_loss = noted
    torch.manual_seed(0)
    fit(module, tmp_path, steps=1)
    for name, p in module.discriminators.named_parameters():
        value, gradient = before.pop(name)
        assert torch.equal(p, value)
        assert torch.equal(p.grad, gradient)
        assert p.requires_grad
    assert not before


def test_the_losses_are_those_of_the_formula(trained_level1):
    module = level2(str(trained_level1), lambda_matching=0.5)
    module.setup("fit")
    torch.manual_seed(5)
    loss = module.generator_loss(3)
    torch.manual_seed(5)
    fake, condition, labels = module.new_fakes(3)
    assert fake.shape == (3, 6, 3, 16, 16)
    assert condition.shape == (3, 3, 3, 8, 8)
    parts = module.judged(fake, labels, condition)
    # spectral norm has taken a step since, so that scores agree in their first digits only
    wanted = -parts["frames"].mean() - parts["clip"].mean() - 0.5 * parts["matching"].mean()
    assert loss.item() == pytest.approx(wanted.item(), abs=0.3)
    module.discriminators.eval()
    module.generator.eval()
    torch.manual_seed(5)
    loss = module.generator_loss(3)
    torch.manual_seed(5)
    fake, condition, labels = module.new_fakes(3)
    parts = module.judged(fake, labels, condition)
    by_name = {name: hinge_g_loss(scores) for name, scores in parts.items()}
    torch.testing.assert_close(
        loss, by_name["frames"] + by_name["clip"] + 0.5 * by_name["matching"], atol=0.5, rtol=0
    )


def test_global_step_counts_steps_of_the_generator(tmp_path):
    module = level1(d_steps=2)
    runs = fit(module, tmp_path, steps=3)
    assert runs.global_step == 3
    assert int(module.g_step) == 3


def test_the_average_is_a_copy_until_it_starts(tmp_path):
    module = level1(ema_start=2)
    fit(module, tmp_path, steps=1)
    state, averaged = module.generator.state_dict(), module.generator_ema.state_dict()
    weights = {name for name, _ in module.generator.named_parameters()}
    assert all(torch.equal(state[name], averaged[name]) for name in weights)
    before = {name: value.clone() for name, value in averaged.items()}
    fit(module, tmp_path, steps=2)
    state, averaged = module.generator.state_dict(), module.generator_ema.state_dict()
    for name in weights:
        torch.testing.assert_close(averaged[name], 0.9 * before[name] + 0.1 * state[name])


@pytest.mark.parametrize("level", [1, 2])
def test_a_resumed_run_goes_on_identically(level, trained_level1, tmp_path):
    whole, whole_losses = make(level, trained_level1), Losses()
    torch.manual_seed(2)
    initial = {k: v.clone() for k, v in whole.state_dict().items()}
    saved = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=3, save_top_k=-1)
    first = make(level, trained_level1)
    first.load_state_dict(initial)
    fit(whole, tmp_path, 6, count=4, callbacks=[*trainer(1, tmp_path).callbacks[:1], whole_losses])
    fit(
        first, tmp_path, 3, count=4, enable_checkpointing=True,
        callbacks=[*trainer(1, tmp_path).callbacks[:1], saved],
    )  # fmt: skip
    second, losses = make(level, None if level == 2 else trained_level1), Losses()
    fit(
        second, tmp_path, 6, count=4, ckpt_path=saved.best_model_path,
        callbacks=[*trainer(1, tmp_path).callbacks[:1], losses],
    )  # fmt: skip
    assert losses.seen == whole_losses.seen[3:]
    for module in (whole, second):
        module.sampled_generator()
    assert fingerprint(second) == fingerprint(whole)


def test_a_checkpoint_is_complete(trained_level1, trained_level2, tmp_path):
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(trained_level2.read_bytes())
    kind = type(level1())
    module = kind.load_from_checkpoint(moved, previous=None, weights_only=True)
    assert module.lower is not None
    assert module.spec == level2().spec
    cascade = load_generators(moved)
    fixed = torch.Generator().manual_seed(4)
    videos = module.sample(3, [0, 1, 1], generator=fixed)
    assert videos.shape == (3, 12, 3, 16, 16)
    assert videos.dtype == torch.uint8
    fixed = torch.Generator().manual_seed(4)
    labels = torch.tensor([0, 1, 1])
    latents = cascade.draw_latents(3, torch.device("cpu"), fixed)
    assert torch.equal(to_uint8(cascade(latents, labels)), videos)
    state = torch.load(moved, weights_only=True)["state_dict"]
    below = load_generators(trained_level1)
    for name, value in below.levels[0].state_dict().items():
        assert torch.equal(value, state[f"lower.levels.0.{name}"])


def test_a_diverged_generator_makes_no_black_videos():
    module = level1()
    with torch.no_grad():
        [*module.generator_ema.parameters()][-1].fill_(torch.nan)  # behind all statistics
    with pytest.raises(InputError, match="NaN: the generator has diverged"):
        module.sample(2, [0, 1])


def test_whole_and_in_pieces_give_the_same_video(trained_level2):
    cascade = load_generators(trained_level2)
    fixed = torch.Generator().manual_seed(0)
    latents = cascade.draw_latents(2, torch.device("cpu"), fixed)
    labels = torch.tensor([1, 0])
    whole = cascade(latents, labels, num_frames=26)
    assert whole.shape == (2, 26, 3, 16, 16)
    for chunk in (1, 5, 26):
        torch.testing.assert_close(
            cascade(latents, labels, num_frames=26, chunk=chunk), whole, atol=1e-5, rtol=0
        )
    trained = cascade(latents, labels)
    torch.testing.assert_close(
        cascade.frames(latents, labels, 3, 8), trained[:, 3:8], atol=1e-5, rtol=0
    )


def test_sampling_leaves_the_training_alone(trained_level2):
    module = type(level1()).load_from_checkpoint(trained_level2, weights_only=True)
    before = fingerprint(module.generator)
    module.train()
    module.sample(2, generator=torch.Generator().manual_seed(0))
    gap = module.matching_gap(4, torch.Generator().manual_seed(0))
    assert fingerprint(module.generator) == before
    assert module.generator.training
    assert gap["gap"] == pytest.approx(1 - gap["own"] / gap["shuffled"])
    assert not module.generator_ema.training
    assert not module.lower.training


def test_statistics_are_of_the_weights_that_are_sampled(tmp_path):
    module = level1(ema_start=0, ema_decay=0.5, standing_stats_batches=3)
    fit(module, tmp_path, 2)
    ours = {k: v.clone() for k, v in module.sampled_generator().state_dict().items()}
    norms = [m for m in module.generator_ema.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(int(norm.num_batches_tracked) == 3 for norm in norms)
    trained = module.generator.state_dict()
    means = [name for name in ours if name.endswith("running_mean")]
    assert any(not torch.equal(ours[name], trained[name]) for name in means)
    module._statistics_of = -1
    again = module.sampled_generator().state_dict()
    assert all(torch.equal(again[name], ours[name]) for name in ours)


@pytest.mark.parametrize("y", [[0, 2], [-1, 0], [0.0, 1.0], [0]])
def test_classes_are_checked_at_both_doors(y, trained_level1):
    module = type(level1()).load_from_checkpoint(trained_level1, weights_only=True)
    for make_videos in (lambda: module.sample(2, y), lambda: module(torch.zeros(2, 5), y)):
        with pytest.raises(InputError, match="y must be 2 classes, whole numbers from 0 to 1"):
            make_videos()


def test_without_the_matching_discriminator_it_has_none(trained_level1, tmp_path):
    module = level2(str(trained_level1), use_matching=False)
    fit(module, tmp_path, 1)
    assert not module.has_matching
    assert not any("matching" in name for name in module.state_dict())


def test_a_halo_keeps_padding_off_the_judged_frames(trained_level1):
    module = level2(str(trained_level1), window=2, window_halo=2)
    module.setup("fit")
    fake, condition, _ = module.new_fakes(2)
    assert fake.shape[1] == 4
    assert condition.shape[1] == 2


def test_classes_come_as_often_as_among_the_videos(tmp_path):
    class Uneven(Blobs):
        def labels(self, split):
            return (torch.arange(8).numpy() == 0).astype("int64")

    module = level1()
    trainer(1, tmp_path).fit(module, datamodule=Uneven(1))
    assert module.class_counts.tolist() == [7, 1]
    drawn = module.drawn_labels(4000, torch.Generator().manual_seed(0)).double().mean()
    assert drawn == pytest.approx(1 / 8, abs=0.02)


def test_unconditional_levels_ignore_labels(tmp_path):
    module = level1(num_classes=1)
    fit(module, tmp_path, 1)
    assert module.sample(2).shape == (2, 6, 3, 8, 8)


def test_predict_makes_a_video_per_label(trained_level1):
    module = type(level1()).load_from_checkpoint(trained_level1, weights_only=True)
    made = trainer(1, ".").predict(module, datamodule=Blobs(1, count=3))
    assert [len(part) for part in made] == [3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_frames": 10}, "12 frames of 16 x 16"),
        ({"resolution": 32}, "12 frames of 16 x 16"),
        ({"num_classes": 3}, "num_classes=3"),
        ({"level": 3}, "holds level 1, but level 3 goes on from level 2"),
    ],
)
def test_a_previous_level_that_does_not_fit_is_one_line(options, words, trained_level1):
    module = level2(str(trained_level1), **{"window": 2, **options})
    with pytest.raises(InputError, match=words):
        module.setup("fit")


def test_other_files_are_no_previous_level(tmp_path):
    torch.save({"state_dict": {}, "lit_ssl.cascade": {"levels": [{"level": "1"}]}}, tmp_path / "a")
    torch.save({"state_dict": {}}, tmp_path / "b")
    for name, words in (("a", "no level of a cascade"), ("b", "no checkpoint of Cascaded")):
        with pytest.raises(InputError, match=words):
            level2(str(tmp_path / name)).setup("fit")
    with pytest.raises(InputError, match="no checkpoint"):
        level2(str(tmp_path / "c")).setup("fit")
    with pytest.raises(InputError, match="goes on from a trained level 1"):
        level2(None).setup("fit")


def test_another_previous_level_than_the_checkpoint_has(trained_level1, trained_level2, tmp_path):
    torch.manual_seed(9)
    fit(level1(), tmp_path).save_checkpoint(tmp_path / "other.ckpt", weights_only=False)
    with pytest.raises(InputError, match="another level 1 than"):
        fit(level2(str(tmp_path / "other.ckpt")), tmp_path, 3, ckpt_path=trained_level2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"previous": "x.ckpt"}, "leave out previous"),
        ({"window": 2}, "leave out window"),
        ({"lr_g": math.nan}, "lr_g must be"),
        ({"betas": (0.0, 1.0)}, "betas must lie"),
        ({"d_steps": 0}, "d_steps must be"),
        ({"score_reduction": "max"}, "score_reduction"),
        ({"num_classes": 0}, "num_classes must be"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        level1(**options)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (blobs(2), "batches"),
        ((blobs(2), torch.tensor([0, 1])), "16 x 16 pixels"),
        ((downsample_video(blobs(2), 4, 2), torch.tensor([0, 1])), "num_frames: 6"),
        ((downsample_video(blobs(2), 2, 2), torch.tensor([0, 2])), "labels from 0 to 2"),
        ((downsample_video(blobs(2), 2, 2), torch.tensor([0, -1])), "labels from -1 to 0"),
    ],
)
def test_wrong_batches_are_one_line(batch, words):
    with pytest.raises(InputError, match=words):
        level1().training_step(batch, 0)


def test_batches_are_cut_into_equal_parts(tmp_path):
    with pytest.raises(InputError, match="d_steps=3 equal parts"):
        fit(level1(d_steps=3), tmp_path, 1)


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge_d_loss(real, fake).item() == pytest.approx(0.25 + 0.5)
    assert hinge_g_loss(fake).item() == pytest.approx(1.5)


def test_unknown_labels_and_plain_ddp_are_refused(tmp_path):
    class Unknown(Blobs):
        def labels(self, split):
            return super().labels(split) - 1

    with pytest.raises(InputError, match="have no label"):
        trainer(1, tmp_path).fit(level1(), datamodule=Unknown(1))
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        trainer(1, tmp_path, strategy="ddp").fit(level1(), datamodule=Blobs(1))


def test_bf16_keeps_the_average_wide(tmp_path):
    module = level1()
    fit(module, tmp_path, 2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in module.generator_ema.parameters())
    assert module.sample(2).shape[0] == 2
