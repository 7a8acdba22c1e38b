"""Cases about numbers that are not finite, or not real."""

from __future__ import annotations

import math
from functools import partial

import lightning.pytorch as pl
import torch
from cases_golden import LOCAL, SGD, SLOWMO
from cases_training import fit
from problems import GoldenModule, SaveAt, load, make_trainer

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import NonFiniteError
from lit_ssl.methods import BARACK, GroupRobustClassifier
from lit_ssl.models import SmallCNN

NAN = math.nan


class AfterSync(pl.Callback):
    """What the module holds after each synchronisation."""

    def __init__(self):
        self.held = []

    def on_after_sync(self, trainer, pl_module):
        self.held.append({k: v.clone() for k, v in pl_module.state_dict().items()})


class Complex(GoldenModule):
    """A complex buffer and a complex frozen parameter, which differ between the processes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("phase", torch.zeros(3, dtype=torch.complex64))
        self.frozen = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64), requires_grad=False)
        self.register_buffer("constant", torch.full((2,), 0.3 + 0.7j))

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)  # may end a round
        with torch.no_grad():
            self.phase += 0.5 + self.rank * 1j
            self.frozen *= 1 - (self.rank + 1) * 0.1j


def complex_numbers(rank, world, folder):
    """Three changes are averaged at the end of the first round of four."""
    after, save = AfterSync(), SaveAt([6], folder)
    run = partial(fit, rank=rank, world=world, cls=Complex)
    whole = run(SLOWMO(sync_every=4, final_sync="none"), callbacks=[after, save])
    torch.distributed.barrier()
    resumed = Complex(load("slowmo_sgd_w2"), SGD, rank)
    trainer = make_trainer(SLOWMO(sync_every=4, final_sync="none"), world, max_steps=12)
    trainer.fit(resumed, ckpt_path=folder / "6.ckpt")
    saved = torch.load(folder / "6.ckpt", weights_only=True)["state_dict"]
    ends = [(m.phase.clone(), m.frozen.detach().clone()) for m in (whole, resumed)]
    return {"after": after.held, "ends": ends, "saved": saved}


class Unset(GoldenModule):
    """Losses by group that nobody has seen yet are NaN; a mask of −inf; a buffer with both."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("losses", torch.full((4,), NAN))
        self.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
        self.register_buffer("odd", torch.tensor([math.inf, -math.inf, NAN, 1.0]))
        self.register_buffer("log_weights", torch.zeros(3))

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        step = self.trainer.global_step
        if step == 5:
            self.log_weights[:] = torch.tensor([-math.inf, -0.5, -1.5 - self.rank])
        if self.rank == 0 and step == 1:
            self.losses[:2] = torch.tensor([1.0, 2.0])
        if self.rank == 1 and step in (2, 9):
            self.losses[1] = 4.0
        if self.rank == 1 and step == 6:
            self.losses[2] = 7.0


class Spoilt(Unset):
    """A loss that was seen becomes NaN."""

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        if self.rank == 1 and self.trainer.global_step == 6:
            self.losses[0] = NAN


def unset_values(rank, world, folder):
    result = {}
    for name, options in {
        "average": {}, "broadcast": {"sync_buffers": "broadcast"}, "delay": {"delay": 2},
        "int8": {"compression": "int8"}, "skip": {"nonfinite": "skip_rank"},
    }.items():  # fmt: skip
        after = AfterSync()
        fit(LOCAL(sync_every=4, **options), rank, world, cls=Unset, callbacks=[after])
        result[name] = after.held
    plain = fit(LOCAL(sync_every=4), rank, world)
    save = SaveAt([7], folder)
    whole = fit(LOCAL(sync_every=4), rank, world, cls=Unset, callbacks=[save])
    torch.distributed.barrier()
    resumed = Unset(load("slowmo_sgd_w2"), SGD, rank)
    trainer = make_trainer(LOCAL(sync_every=4), world, max_steps=12)
    trainer.fit(resumed, ckpt_path=folder / "7.ckpt")
    result["trajectories"] = [torch.stack(m.trajectory) for m in (plain, whole, resumed)]
    result["resumed"] = [m.losses.clone() for m in (whole, resumed)]
    result["saved"] = torch.load(folder / "7.ckpt", weights_only=True)["state_dict"]["losses"]
    try:
        fit(LOCAL(sync_every=4), rank, world, cls=Spoilt)
    except NonFiniteError as error:
        result["message"] = str(error)
    return {**result, "broken": True}


class Statistics(GoldenModule):
    """Running statistics become NaN on some processes, once or in every round."""

    bad_ranks, bad_steps = (), ()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = torch.nn.BatchNorm1d(5)

    def forward(self, x):
        return super().forward(self.norm(x))

    def on_train_batch_end(self, *args):
        super().on_train_batch_end(*args)
        if self.all_ranks[0] in self.bad_ranks and self.trainer.global_step in self.bad_steps:
            self.norm.running_mean[2] = NAN


def statistics(rank, world, folder, ranks, steps, group_size=1):
    class Module(Statistics):
        bad_ranks, bad_steps, all_ranks = ranks, steps, (rank,)

    after = AfterSync()
    strategy = SLOWMO(sync_every=4, nonfinite="skip_rank", group_size=group_size)
    result = {"broken": True}
    data = load("slowmo_sgd_w4_reset") if world == 4 else load("slowmo_sgd_w2")
    try:
        module = fit(strategy, rank, world, cls=Module, callbacks=[after], steps=16, data=data)
        result["trajectory"] = torch.stack(module.trajectory)
        result["end"] = module.norm.running_mean.clone()
    except NonFiniteError as error:
        result["message"] = str(error)
    return {**result, "after": after.held}


def group_methods(rank, world, folder):
    """Methods whose losses by group begin as NaN, and whose empty groups have the weight 0."""
    options = {"backbone": SmallCNN(2), "num_classes": 2, "num_attributes": 2, "lr": 0.02}
    uniform = {"objective": "group_dro", "sampling": "uniform"}
    result = {}
    for name, module in {
        "group_dro": GroupRobustClassifier(**options, **uniform),
        "local_group_dro": GroupRobustClassifier(**options, **uniform, gather=False),
        "barack": BARACK(**options, predictor_epochs=1, held_out=0.5),
    }.items():  # fmt: skip
        known = 0.5 if name == "barack" else 1.0
        data = ColouredMNISTDataModule(batch_size=8, seed=0, group_label_fraction=known)
        strategy = SLOWMO(sync_every=4)
        trainer = make_trainer(
            strategy, world, max_epochs=2, limit_train_batches=7, limit_val_batches=2,
            default_root_dir=folder, callbacks=[StepSeeder()], use_distributed_sampler=True,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        state = module.state_dict()
        result[name] = {k: v.clone() for k, v in state.items()}, strategy.rounds
    return result


ALL = (complex_numbers, unset_values, group_methods)
CASES = {function.__name__: function for function in ALL}
CASES["statistics_all"] = partial(statistics, ranks=(0, 1), steps=(6,))
CASES["statistics_for_good"] = partial(statistics, ranks=(0, 1), steps=range(16))
CASES["statistics_of_a_node"] = partial(statistics, ranks=(1,), steps=(6,), group_size=2)
