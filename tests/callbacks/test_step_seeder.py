from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from lit_ssl.callbacks import KNNEvaluator, StepSeeder
from lit_ssl.callbacks.seed import seed_generators, step_seed


class Draws(pl.Callback):
    """What the training step would draw; may fail in the middle of a step."""

    def __init__(self, fail_at=None):
        self.seen = []
        self.fail_at = fail_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if len(self.seen) == self.fail_at:
            raise RuntimeError("power cut")
        self.seen.append(torch.rand(1).item())


def draws(make_trainer, module, data, *callbacks, seeder=None, ckpt=None, **settings):
    spy = Draws()
    trainer = make_trainer(callbacks=[seeder or StepSeeder(), spy, *callbacks], **settings)
    trainer.fit(module, data, ckpt_path=ckpt)
    return spy.seen


def test_draws_are_a_function_of_seed_and_batch(toys, make_trainer, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    first = draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16))
    assert len(set(first)) == 4  # two epochs of two batches, all different
    torch.manual_seed(99)
    again = draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16), KNNEvaluator())
    assert again == first
    given = draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16), seeder=StepSeeder(seed=7))
    assert given == first
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16)) != first
    monkeypatch.delenv("PL_GLOBAL_SEED")
    zero = draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16))
    assert zero == draws(
        make_trainer, toys.ToyModule(), toys.ToyData(train=16), seeder=StepSeeder(seed=0)
    )


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("batches", [4, 8, 12])  # 8 batches per epoch
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_run_resumed_anywhere_draws_the_same(toys, make_trainer, tmp_path, accumulate, batches):
    data = toys.ToyData(train=64)
    steps = batches // accumulate
    settings = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    whole = draws(make_trainer, toys.ToyModule(), data, max_epochs=3, **settings)
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=steps)
    settings["enable_checkpointing"] = True
    begun = draws(make_trainer, toys.ToyModule(), data, keep, max_steps=steps, **settings)
    assert begun == whole[:batches]
    resumed = draws(
        make_trainer,
        toys.ToyModule(),
        data,
        ckpt=tmp_path / f"step={steps}.ckpt",
        max_epochs=-1,
        max_steps=24 // accumulate,
        **settings,
    )
    assert resumed == whole[batches:]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_batch_that_failed_is_drawn_again(toys, make_trainer, tmp_path):
    data = toys.ToyData(train=64)
    whole = draws(make_trainer, toys.ToyModule(), data)
    broken = Draws(fail_at=11)
    trainer = make_trainer(
        callbacks=[StepSeeder(), broken, OnExceptionCheckpoint(tmp_path, "failed")],
        enable_checkpointing=True,
    )
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(toys.ToyModule(), data)
    resumed = draws(make_trainer, toys.ToyModule(), data, ckpt=tmp_path / "failed.ckpt")
    assert broken.seen + resumed == whole


def test_seeds_differ_between_ranks_and_neighbouring_batches():
    seeds = {
        step_seed(seed, batch, rank)
        for seed in range(3)
        for batch in range(100)
        for rank in range(3)
    }
    assert len(seeds) == 3 * 100 * 3
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)  # the CPU generator's half
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 11, 0) != step_seed(11, 1, 0)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed >= 0"):
        StepSeeder(seed=-1)


def test_seeding_is_that_of_torch():
    torch.manual_seed(2**62 + 5)
    expected = torch.rand(3)
    torch.manual_seed(0)
    seed_generators(2**62 + 5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.gpu
def test_seeding_of_cuda_is_that_of_torch():
    torch.manual_seed(2**62 + 5)
    expected = torch.rand(3, device="cuda"), torch.rand(3)
    torch.manual_seed(0)
    seed_generators(2**62 + 5, torch.device("cuda", torch.cuda.current_device()))
    assert torch.equal(torch.rand(3, device="cuda"), expected[0])
    assert torch.equal(torch.rand(3), expected[1])
