"""Cases about parameters that a callback unfreezes while the training runs."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import torch
from cases_golden import ADAMW, LOCAL, SGD, SLOWMO
from lightning.pytorch.callbacks import BackboneFinetuning
from problems import GoldenModule, SaveAt, load, make_trainer

from lit_ssl.strategies import DiLoCoStrategy

FEW = {"limit_train_batches": 6, "max_epochs": 4}


class WithBackbone(GoldenModule):
    @property
    def backbone(self):
        return self.hidden


class Unfreeze(BackboneFinetuning):
    """Lightning's, which after a resume does not unfreeze again what was unfrozen before."""

    def __init__(self):
        super().__init__(1, backbone_initial_lr=0.05, should_align=False, lambda_func=lambda e: 1)

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        for group in trainer.optimizers[0].param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(True)


class FreezeLate(pl.Callback):
    """The same, but DDP's wrapper is made while all can be trained."""

    def on_train_start(self, trainer, pl_module):
        pl_module.hidden.requires_grad_(False)
        del trainer.optimizers[0].param_groups[0]["params"][:2]

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pl_module.hidden.requires_grad_(True)
            group = {"params": list(pl_module.hidden.parameters()), "lr": 0.05, "momentum": 0.9}
            trainer.optimizers[0].add_param_group(group)


def run(strategy, rank, world, callbacks, optimizer=SGD, path=None, end=24):
    torch.manual_seed(0)
    data = load("slowmo_sgd_w4_reset") if world == 4 else load("slowmo_sgd_w2")
    module = WithBackbone(data, optimizer, rank)
    trainer = make_trainer(strategy, world, callbacks=callbacks, max_steps=end, **FEW)
    trainer.fit(module, ckpt_path=path)
    return torch.stack(module.trajectory)


def warming(rank, world, folder):
    return {
        "unfrozen": run(LOCAL(sync_every=4, warmup_steps=12), rank, world, [Unfreeze()]),
        "known": run(
            LOCAL(sync_every=4, warmup_steps=12, find_unused_parameters=True),
            rank, world, [FreezeLate()],
        ),
    }  # fmt: skip


def in_nodes(rank, world, folder):
    return {"unfrozen": run(LOCAL(sync_every=4, group_size=2), rank, world, [Unfreeze()])}


def parted(rank, world, folder):
    """Something changes the parameters of one process in the warm-up."""

    class Part(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == 6 and rank == 1:
                with torch.no_grad():
                    pl_module.out.bias += 1

    return {"trajectory": run(SLOWMO(sync_every=4, warmup_steps=6), rank, world, [Part()])}


RESUMED = {
    "slowmo": (SGD, partial(SLOWMO, sync_every=4)),
    "diloco": (ADAMW, partial(DiLoCoStrategy, sync_every=4)),
    "delayed": (SGD, partial(LOCAL, sync_every=4, delay=2)),
    "sharded": (SGD, partial(SLOWMO, sync_every=4, shard_slow_state=True)),
}


def resumed(name, rank, world, folder):
    """Saved in the round in which parameters join (at step 6), in the next, and in a later one."""
    optimizer, make = RESUMED[name]
    steps = (7, 9, 14)
    one = partial(run, rank=rank, world=world, optimizer=optimizer)
    whole = one(make(), callbacks=[Unfreeze(), SaveAt(steps, folder)])
    torch.distributed.barrier()
    again = {
        step: one(make(), callbacks=[Unfreeze()], path=folder / f"{step}.ckpt") for step in steps
    }
    return {"whole": whole, "again": again}


CASES = {
    "unfrozen_warming": warming,
    "unfrozen_in_nodes": in_nodes,
    "unfrozen_parted": parted,
    **{f"unfrozen_{name}": partial(resumed, name) for name in RESUMED},
}
