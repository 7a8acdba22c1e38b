from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.callbacks import KNNEvaluator, StepSeeder
from lit_ssl.callbacks.seed import step_seed


class Draws(pl.Callback):
    """What the training step would draw."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen[(trainer.current_epoch, batch_idx)] = torch.rand(1).item()


def draws(make_trainer, module, data, *callbacks, seeder=None, ckpt=None, **settings):
    spy = Draws()
    trainer = make_trainer(callbacks=[seeder or StepSeeder(), spy, *callbacks], **settings)
    trainer.fit(module, data, ckpt_path=ckpt)
    return spy.seen


def test_draws_are_a_function_of_seed_epoch_and_batch(toys, make_trainer, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    first = draws(make_trainer, toys.ToyModule(), toys.ToyData(train=16))
    assert len(set(first.values())) == 4  # two epochs of two batches, all different
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
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_run_resumed_inside_an_epoch_draws_the_same(toys, make_trainer, tmp_path, accumulate):
    pl.seed_everything(0, verbose=False)
    data = toys.ToyData(train=64)  # 8 batches per epoch
    settings = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    whole = draws(make_trainer, toys.ToyModule(), data, **settings)
    keep = ModelCheckpoint(
        tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=4 // accumulate
    )
    draws(
        make_trainer,
        toys.ToyModule(),
        data,
        keep,
        enable_checkpointing=True,
        max_steps=4 // accumulate,
        **settings,
    )
    resumed = draws(
        make_trainer,
        toys.ToyModule(),
        data,
        ckpt=tmp_path / f"step={4 // accumulate}.ckpt",
        **settings,
    )
    assert min(resumed) == (0, 4)
    assert resumed == {key: value for key, value in whole.items() if key >= (0, 4)}


def test_seeds_differ_between_ranks_and_neighbouring_steps():
    seeds = {
        step_seed(seed, epoch, batch, rank)
        for seed in range(3)
        for epoch in range(3)
        for batch in range(20)
        for rank in range(3)
    }
    assert len(seeds) == 3 * 3 * 20 * 3
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)  # the CPU generator's half
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 11, 0, 0) != step_seed(1, 1, 10, 0)  # no joined digits


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed >= 0"):
        StepSeeder(seed=-1)
