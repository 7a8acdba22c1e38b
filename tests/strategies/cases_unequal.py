"""Cases about processes that make unequal numbers of steps, and about communication in steps."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from cases_golden import LOCAL, SLOWMO
from cases_training import Gan, fit
from problems import GoldenModule, Noisy, make_trainer
from torch.utils.data import DataLoader


class Skipping(Gan):
    """Rank 1 leaves out the generator's step in some batches."""

    def __init__(self, rank, skipped, both=True, batches=14):
        super().__init__(rank)
        self.skipped, self.both, self.batches = skipped, both, batches

    def training_step(self, batch, batch_idx):
        if self.rank == 1 and batch_idx in self.skipped:
            if self.both:
                return
            _, critic = self.optimizers()
            loss = self.critic(torch.ones(4, 3)).mean()
            self.manual_backward(loss)
            critic.step()
            return
        super().training_step(batch, batch_idx)

    def train_dataloader(self):
        return DataLoader(range(self.batches), batch_size=1)


def skipped_steps(rank, world, folder, skipped, both=True, batches=14):
    torch.manual_seed(0)
    module = Skipping(rank, skipped, both, batches)
    result = {"broken": True, "message": ""}
    try:
        strategy = LOCAL(sync_every=4, find_unused_parameters=True)
        make_trainer(strategy, world).fit(module)
    except RuntimeError as error:
        result["message"] = str(error)
    return {**result, "steps": strategy.steps}


class Leaving(pl.Callback):
    """Rank 1 stops by itself after some steps."""

    def __init__(self, rank, step):
        self.rank, self.step = rank, step

    def on_train_batch_end(self, trainer, *args):
        if self.rank == 1 and trainer.global_step == self.step:
            trainer.should_stop = True


def leaving(rank, world, folder, cls=GoldenModule, **options):
    result = {"broken": True, "message": ""}
    try:
        strategy = SLOWMO(sync_every=4, **options)
        fit(strategy, rank, world, cls=cls, callbacks=[Leaving(rank, 6)])
    except RuntimeError as error:
        result["message"] = str(error)
    return result


class Talking(GoldenModule):
    """A loss that gathers by itself, as a contrastive one does."""

    every = 1

    def training_step(self, batch, batch_idx):
        if batch_idx % self.every == 0:
            dist.all_reduce(torch.ones(1))
        return super().training_step(batch, batch_idx)


class Seldom(Talking):
    every = 3


def talking(rank, world, folder, cls=GoldenModule, **options):
    strategy = SLOWMO(sync_every=4)
    fit(strategy, rank, world, cls=cls, steps=12, **options)
    return {}


CASES = {
    "skipped_in_epoch": partial(skipped_steps, skipped=(2, 5), batches=16),
    "skipped_by_one_optimizer": partial(skipped_steps, skipped=(3,), both=False),
    "skipped_without_harm": partial(skipped_steps, skipped=(12,)),
    "leaving": leaving,
    "leaving_with_buffers": partial(leaving, cls=Noisy, buffers="average"),
    "talking_loss": partial(talking, cls=Talking),
    "talking_timer": partial(talking, max_time=timedelta(hours=1)),
    "talking_seldom": partial(talking, cls=Seldom),
    "talking_never": partial(talking, cls=Noisy, val_check_interval=3, max_epochs=1),
}
