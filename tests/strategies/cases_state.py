"""Cases about evaluation, checkpoints, resuming and exceptions."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from cases_golden import ADAMW, LOCAL, SGD, SLOWMO
from cases_training import fit
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from problems import GoldenModule, Noisy, SaveAt, flat, load, make_trainer

from lit_ssl.strategies import DiLoCoStrategy
from lit_ssl.strategies.state import pieces

KEY = "lit_ssl.strategy"


class Evaluated(pl.Callback):
    """Parameters that were validated, and the metric."""

    def __init__(self):
        self.parameters, self.losses, self.saved = {}, {}, {}

    def on_validation_epoch_end(self, trainer, pl_module):
        self.parameters[trainer.global_step] = flat(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.losses[trainer.global_step] = trainer.callback_metrics["val_loss"].item()
        self.saved[trainer.global_step] = trainer.strategy.lightning_module_state_dict()


def evaluation(rank, world, folder):
    result = {}
    for mode in ("off", "average", "local", "slow", "sync"):
        seen = Evaluated()
        strategy = SLOWMO(sync_every=4, eval_params="average" if mode == "off" else mode)
        options = {} if mode == "off" else {"val_check_interval": 5, "callbacks": [seen]}
        limit = 0 if mode == "off" else 3
        module = fit(strategy, rank, world, limit_val_batches=limit, max_epochs=1, **options)
        result[mode] = {
            "trajectory": torch.stack(module.trajectory),
            "parameters": seen.parameters,
            "losses": seen.losses,
            "saved": {k: v["out.weight"] for k, v in seen.saved.items()},
            "end": flat(module),
        }
    for mode in ("average", "outer", "none"):
        module = fit(SLOWMO(sync_every=5, final_sync=mode), rank, world)
        result[f"final_{mode}"] = flat(module)
    return result


RESUMED = {
    "local_adamw": (ADAMW, partial(LOCAL, sync_every=5), Noisy),
    "slowmo_sgd": (SGD, partial(SLOWMO, sync_every=5), Noisy),
    "slowmo_average": (SGD, partial(SLOWMO, sync_every=5, buffers="average"), Noisy),
    "sharded": (SGD, partial(SLOWMO, sync_every=5, shard_slow_state=True), GoldenModule),
    "boundary": (SGD, partial(SLOWMO, sync_every=13), Noisy),
    "warm": (SGD, partial(SLOWMO, sync_every=5, warmup_steps=10), GoldenModule),
    "warming": (SGD, partial(SLOWMO, sync_every=3, warmup_steps=15), GoldenModule),
    "int8": (ADAMW, partial(LOCAL, sync_every=5, compression="int8"), GoldenModule),
    "delayed": (ADAMW, partial(LOCAL, sync_every=5, delay=3), Noisy),
    "streaming": (
        ADAMW,
        partial(DiLoCoStrategy, sync_every=6, fragments=2, delay=2, mix=0.5),
        GoldenModule,
    ),
    "sidecar": (SGD, partial(SLOWMO, sync_every=5, per_rank_state="sidecar"), Noisy),
    "large": (SGD, partial(SLOWMO, sync_every=5, per_rank_state_limit_mb=1e-4), Noisy),
}


def resume(name, rank, world, folder):
    optimizer, make, cls = RESUMED[name]
    save = SaveAt([13], folder)
    run = partial(fit, rank=rank, world=world, optimizer=optimizer, steps=24, cls=cls)
    whole = run(make(), callbacks=[save])
    untouched = run(make())
    torch.distributed.barrier()
    torch.manual_seed(99 + rank)  # a new process has other random numbers
    module = cls(load("slowmo_sgd_w2"), optimizer, rank)
    trainer = make_trainer(make(), world, max_steps=24)
    trainer.fit(module, ckpt_path=folder / "13.ckpt", weights_only=True)
    content = torch.load(folder / "13.ckpt", weights_only=True)
    ranks = content[KEY].pop("ranks", None)
    return {
        "whole": torch.stack(whole.trajectory),
        "untouched": torch.stack(untouched.trajectory),
        "resumed": torch.stack(module.trajectory),
        "buffers": [[b.clone() for b in m.buffers()] for m in (whole, module)],
        "local": save.local[13],
        "content": content,
        "has_ranks": ranks is not None and len(ranks),
        "files": sorted(os.listdir(folder)),
        "steps": trainer.strategy.steps,
        "rounds": (whole.trainer.strategy.rounds, trainer.strategy.rounds),
    }


def other_checkpoints(rank, world, folder):
    """From plain DDP; weights only; with no state of the ranks; from another strategy."""
    result = {}
    save = SaveAt([10], folder)
    whole = fit(DDPStrategy(), rank, world, callbacks=[save], steps=10)
    torch.distributed.barrier()
    module = GoldenModule(load("slowmo_sgd_w2"), SGD, rank)
    strategy = SLOWMO(sync_every=4, warmup_steps=5)
    make_trainer(strategy, world, max_steps=16).fit(module, ckpt_path=folder / "10.ckpt")
    result["ddp"] = (torch.stack(whole.trajectory), torch.stack(module.trajectory), strategy.steps)

    (folder / "weights").mkdir(exist_ok=True)
    save = SaveAt([6], folder / "weights", weights_only=True)
    fit(SLOWMO(sync_every=4), rank, world, callbacks=[save])
    torch.distributed.barrier()
    result["weights_only"] = sorted(torch.load(folder / "weights" / "6.ckpt", weights_only=True))

    save = SaveAt([6], folder)
    none = SLOWMO(sync_every=4, per_rank_state="none", buffers="reset")
    whole = fit(none, rank, world, callbacks=[save], steps=16)
    torch.distributed.barrier()
    resumed = partial(GoldenModule, load("slowmo_sgd_w2"), SGD, rank)
    module = resumed()
    trainer = make_trainer(SLOWMO(sync_every=4, buffers="reset"), world, max_steps=16)
    trainer.fit(module, ckpt_path=folder / "6.ckpt")
    result["none"] = (torch.stack(whole.trajectory), torch.stack(module.trajectory))
    module = resumed()
    trainer = make_trainer(LOCAL(sync_every=3), world, max_steps=16)
    trainer.fit(module, ckpt_path=folder / "6.ckpt")
    return result


def odd_state(rank):
    """Tensors of all kinds, of which there are more bytes than a piece holds."""
    grid = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "half": torch.full((3,), rank + 0.5, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False, rank == 1]),
        "complex": torch.tensor([1 + 2j, rank * 1j]),
        "number": torch.tensor(rank),
        "empty": torch.empty(0, 3),
        "columns": grid.transpose(0, 2) + rank,
        "gaps": (grid + rank)[:, ::2],
        "repeated": torch.ones(1, 3).expand(4, 3) * 1 + rank,
        "wide": torch.arange(100 + 50 * rank, dtype=torch.int64),
        "parameter": torch.nn.Parameter(torch.ones(2) * rank),
    }
    return {"tensors": tensors, "list": [None, (1, torch.ones(rank))], "epoch_end": rank == 1}


def gathered(rank, world, folder):
    """States in pieces of 64 bytes, in which most tensors do not end."""
    pieces._BUFFER, before = 64, pieces._BUFFER
    sent = []
    send = torch.distributed.send
    torch.distributed.send = lambda piece, dst: sent.append(piece.numel()) or send(piece, dst)
    try:
        states = pieces.gather_states(odd_state(rank), torch.device("cpu"))
    finally:
        pieces._BUFFER, torch.distributed.send = before, send
    return {"states": states, "sent": sent, "mine": odd_state(rank)}


def checkpoint_for_four(rank, world, folder):
    """Read by four processes, see ``resume_from_two``."""
    save = SaveAt([6], folder)
    module = fit(SLOWMO(sync_every=4), rank, world, callbacks=[save], steps=6)
    buffer = module.trainer.optimizers[0].state[module.out.bias]["momentum_buffer"]
    return {"local": save.local[6], "momentum": buffer.clone()}


def resume_from_two(rank, world, folder):
    path = Path(os.environ["POOL2"]) / "checkpoint_for_four" / "6.ckpt"

    class Start(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            state = trainer.optimizers[0].state[pl_module.out.bias]
            self.momentum = state["momentum_buffer"].clone()
            self.in_round = trainer.strategy.steps_in_round

    start = Start()
    module = GoldenModule(load("slowmo_sgd_w4_reset"), SGD, rank)
    strategy = SLOWMO(sync_every=4)
    make_trainer(strategy, world, max_steps=14, callbacks=[start]).fit(module, ckpt_path=path)
    saved = torch.load(path, weights_only=True)
    return {
        "trajectory": torch.stack(module.trajectory),
        "weights": saved["state_dict"],
        "momentum": start.momentum,
        "in_round": start.in_round,
        "steps": strategy.steps,
    }


def model_checkpoint(rank, world, folder):
    """ModelCheckpoint during validation saves what was validated, and cleans up its sidecars."""
    seen = Evaluated()
    keep = ModelCheckpoint(
        folder, filename="{step}", monitor="val_loss", mode="max", save_top_k=1, save_last=True
    )
    strategy = SLOWMO(sync_every=4, per_rank_state="sidecar")
    fit(strategy, rank, world, val_check_interval=3, callbacks=[seen, keep], max_epochs=1)
    torch.distributed.barrier()
    best = torch.load(keep.best_model_path, weights_only=False)
    weights = torch.cat([best["state_dict"][n].flatten() for n in best[KEY]["units"][0]["names"]])
    return {
        "best": (best["global_step"], weights),
        "parameters": seen.parameters,
        "losses": seen.losses,
        "files": sorted(os.listdir(folder)),
    }


def exception(rank, world, folder):
    """Rank 0 fails in the middle of a round; then rank 1 does."""
    result = {"broken": True}
    for failing in (0, 1):

        class Failing(GoldenModule):
            def training_step(self, batch, batch_idx, failing=failing):
                if self.rank == failing and self.trainer.global_step == 6:
                    raise ValueError("meant to fail")
                return super().training_step(batch, batch_idx)

        where = folder / f"failing{failing}"
        saving = [
            ModelCheckpoint(where, filename="saved", save_on_exception=True, every_n_epochs=1),
            OnExceptionCheckpoint(where, filename="other"),
        ]
        module = Failing(load("slowmo_sgd_w2"), SGD, rank)
        trainer = make_trainer(SLOWMO(sync_every=4), world, callbacks=saving)
        try:
            trainer.fit(module)
        except Exception as error:
            result[f"error{failing}"] = f"{type(error).__name__}: {error}"
        torch.distributed.destroy_process_group()  # what the end of a process does
        if failing == 0:
            store = torch.distributed.FileStore(str(folder / "again"), world)
            torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
        result[f"local{failing}"] = flat(module)
    store = torch.distributed.FileStore(str(folder / "once_more"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.distributed.barrier()
    result["files"] = sorted(str(p.relative_to(folder)) for p in folder.glob("*/*.ckpt"))
    module = GoldenModule(load("slowmo_sgd_w2"), SGD, rank)
    trainer = make_trainer(SLOWMO(sync_every=4), world, max_steps=16)
    (path,) = (folder / "failing0").glob("*other*")
    trainer.fit(module, ckpt_path=path, weights_only=True)
    saved = torch.load(path, weights_only=True)
    result["saved"] = torch.cat(
        [saved["state_dict"][n].flatten() for n, _ in module.named_parameters()]
    )
    result["synced"] = saved[KEY]["synced"]
    result["resumed"] = torch.stack(module.trajectory)
    return result


def recalibration(rank, world, folder):
    class Recounted(Noisy):
        def recalibration_step(self, batch):
            self(self.data["X"][self.rank, int(batch)])

        def on_validation_epoch_start(self):
            hidden = torch.tanh(self.hidden(self.data["X"][:, 3:5]))  # [ranks, batches, 4, 7]
            mean, var = hidden.mean(2).mean(1), hidden.var(2).mean(1)
            pooled = (var + mean.square()).mean(0) - mean.mean(0).square()
            self.expected = mean.mean(0), pooled
            self.counted = self.norm.running_mean.clone(), self.norm.running_var.clone()

    result = {}
    for count in (0, 2):
        strategy = SLOWMO(sync_every=4, bn_recalibration_batches=count)
        run = partial(fit, strategy, rank, world, cls=Recounted, steps=8, max_epochs=1)
        module = run(val_check_interval=5)
        result[count] = (torch.stack(module.trajectory), module.counted, module.expected)
    return result


ALL = (
    evaluation, recalibration, other_checkpoints, checkpoint_for_four, resume_from_two,
    model_checkpoint, exception, gathered,
)  # fmt: skip
CASES = {function.__name__: function for function in ALL}
CASES |= {f"resume_{name}": partial(resume, name) for name in RESUMED}
