"""Cases about SLURM's signals, sent to processes that are at different steps."""

from __future__ import annotations

import os
import signal
from functools import partial

import lightning.pytorch as pl
import torch
from cases_golden import LOCAL, SGD, SLOWMO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from problems import GoldenModule, Noisy, load, make_trainer

from lit_ssl.callbacks import LastCheckpoint, SlurmRequeue

SCONTROL = """\
#!/bin/sh
echo "$@" >> "{log}"
"""


class Signal(pl.Callback):
    """Sends a signal to this process in given steps, before or after the optimizer's step.

    Step −1 is before all batches.
    """

    def __init__(self, steps, late=False, signum=signal.SIGUSR1):
        self.steps, self.late, self.signum = steps, late, signum

    def on_train_start(self, trainer, *args):
        if -1 in self.steps:
            os.kill(os.getpid(), self.signum)

    def on_train_batch_start(self, trainer, *args):
        if not self.late and trainer.global_step in self.steps:
            os.kill(os.getpid(), self.signum)

    def on_before_zero_grad(self, trainer, *args):
        if self.late and trainer.global_step in self.steps:
            os.kill(os.getpid(), self.signum)


def under_slurm(rank, world, folder):
    """Environment of a job of SLURM, with an ``scontrol`` that notes what it is asked to do."""
    (folder / "bin").mkdir(exist_ok=True)
    if rank == 0:
        (folder / "bin" / "scontrol").write_text(SCONTROL.format(log=folder / "asked.txt"))
        (folder / "bin" / "scontrol").chmod(0o755)
    os.environ |= {"SLURM_NTASKS": str(world), "SLURM_NTASKS_PER_NODE": str(world)}
    os.environ |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
    os.environ |= {"SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "train"}
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder / 'bin'}:{path}"
    return path


def leave_slurm(path):
    os.environ["PATH"] = path
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]


def run(make, rank, world, where, steps=(), late=False, cls=Noisy, end=16, callbacks=(), **options):
    torch.manual_seed(0)
    module = cls(load("slowmo_sgd_w2"), SGD, rank % 2)
    callbacks = [*callbacks, Signal(steps, late)]
    trainer = make_trainer(
        make(), world, max_steps=end, default_root_dir=where, callbacks=callbacks,
        plugins=[SLURMEnvironment()], **options,
    )  # fmt: skip
    trainer.fit(module)
    return torch.stack(module.trajectory), sorted(p.name for p in where.glob("hpc*"))


# In "next_round", rank 1 is told when both have saved already: nothing more is to be done.
# strategy; class; steps in which each rank gets the signal; whether late in the step
PREEMPTED = {
    "slowmo": (partial(SLOWMO, sync_every=4), Noisy, ([5], [6], [4]), False),
    "slowmo_late": (partial(SLOWMO, sync_every=4), Noisy, ([7], [4]), True),
    "slowmo_next_round": (partial(SLOWMO, sync_every=4), Noisy, ([7], [8]), False),
    "slowmo_one": (partial(SLOWMO, sync_every=4), Noisy, ([], [6]), False),
    "local": (partial(LOCAL, sync_every=3), Noisy, ([4], [3]), False),
    "warming": (partial(LOCAL, sync_every=3, warmup_steps=9), GoldenModule, ([4], [5]), False),
    "delayed": (partial(LOCAL, sync_every=4, delay=2), Noisy, ([5], [6]), False),
    "nodes": (partial(SLOWMO, sync_every=4, group_size=2), Noisy, ([5], [6], [], [7]), False),
    "ddp": (DDPStrategy, GoldenModule, ([5], [6]), False),
    "ddp_late": (DDPStrategy, GoldenModule, ([], [6]), True),
}


def preempted(name, rank, world, folder):
    """A job that is told of its end, then the same command again."""
    make, cls, steps, late = PREEMPTED[name]
    path = under_slurm(rank, world, folder)
    callbacks = [SlurmRequeue()] if "ddp" in name else []
    try:
        for where in ("whole", "job"):
            (folder / where).mkdir(exist_ok=True)
        one = partial(run, make, rank, world, cls=cls)
        whole, _ = one(where=folder / "whole", callbacks=callbacks)
        job = folder / "job"
        first, files = one(where=job, steps=steps[rank], late=late, callbacks=callbacks)
        torch.manual_seed(99 + rank)
        saved = [torch.load(job / name, weights_only=True)["global_step"] for name in files]
        again, _ = one(where=job, callbacks=callbacks)
    finally:
        leave_slurm(path)
    asked = (folder / "asked.txt").read_text().splitlines()
    return {
        "whole": whole, "first": first, "again": again, "asked": asked,
        "steps": saved,
    }  # fmt: skip


# strategy; class; rank that gets SIGTERM, step, accumulated batches
TERMINATED = {
    "ddp": (DDPStrategy, GoldenModule, (1, 5), 1),
    "ddp_first": (DDPStrategy, GoldenModule, (1, -1), 1),
    "ddp_accumulating": (DDPStrategy, GoldenModule, (0, 3), 2),
    "slowmo": (partial(SLOWMO, sync_every=4), Noisy, (1, 5), 1),
    "delayed": (partial(LOCAL, sync_every=4, delay=2), Noisy, (0, 5), 1),
    "warming": (partial(LOCAL, sync_every=3, warmup_steps=9), GoldenModule, (1, 4), 1),
}


def terminated(name, rank, world, folder):
    """SIGTERM for one process: all save and stop after the same step; then a run that goes on."""
    make, cls, (who, step), accumulated = TERMINATED[name]
    end = 8 if accumulated > 1 else 16

    def one(where, steps=(), path=None):
        torch.manual_seed(0 if path is None else 99 + rank)
        module = cls(load("slowmo_sgd_w2"), SGD, rank)
        saver = ModelCheckpoint(folder / where, every_n_train_steps=100)
        signals = Signal(steps if rank == who else [], signum=signal.SIGTERM)
        trainer = make_trainer(
            make(), world, max_steps=end, accumulate_grad_batches=accumulated,
            callbacks=[saver, LastCheckpoint(), SlurmRequeue(), signals],
        )  # fmt: skip
        status = None
        try:
            trainer.fit(module, ckpt_path=path, weights_only=True if path else None)
        except SystemExit as error:
            status = error.code
        made = torch.stack(module.trajectory) if len(module.trajectory) else torch.empty(0)
        return made, status, trainer.global_step

    whole, _, _ = one("whole")
    first, status, stopped = one("first", [step])
    last = folder / "first" / "last.ckpt"
    is_there = last.exists()
    result = {"whole": whole, "first": first, "status": status, "stopped": stopped}
    if is_there:
        result["step"] = torch.load(last, weights_only=True)["global_step"]
        result["again"], _, _ = one("again", path=last)
    return {**result, "saved": is_there, "broken": True}


CASES = {f"preempted_{name}": partial(preempted, name) for name in PREEMPTED}
CASES |= {f"terminated_{name}": partial(terminated, name) for name in TERMINATED}
