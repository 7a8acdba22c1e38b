"""Golden trajectories under a real Trainer."""

from __future__ import annotations

from functools import partial

import torch
from problems import GoldenModule, load, make_trainer

from lit_ssl.strategies import DiLoCoStrategy, LocalSGDStrategy, SlowMomentumStrategy

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
NESTEROV = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
ADAMW = partial(torch.optim.AdamW, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)

SLOWMO = partial(SlowMomentumStrategy, buffers="maintain")
LOCAL = partial(LocalSGDStrategy, buffers="maintain")

RUNS = {
    "ddp_sgd_w2": (SGD, partial(LOCAL, warmup_steps=1000)),
    "slowmo_sgd_w2": (SGD, partial(SLOWMO, sync_every=4, slow_momentum=0.5)),
    "slowmo_sgd_w2_average_nesterov": (
        NESTEROV,
        partial(SlowMomentumStrategy, sync_every=3, slow_momentum=0.7, buffers="average"),
    ),
    "slowmo_lrdecay_w2": (SGD, partial(SLOWMO, sync_every=4, slow_momentum=0.5)),
    "postlocal_sgd_w2": (
        SGD,
        partial(LOCAL, sync_every=4, warmup_steps=5, first_sync="immediate"),
    ),
    "tft_localsgd_w2": (SGD, partial(LOCAL, sync_every=4)),
    "diloco_w2": (ADAMW, partial(DiLoCoStrategy, sync_every=6)),
    "slowmo_sgd_w4_reset": (
        SGD,
        partial(SlowMomentumStrategy, sync_every=6, slow_momentum=0.6, buffers="reset"),
    ),
    "slowmo_adamw_w4": (ADAMW, partial(SLOWMO, sync_every=4, slow_momentum=0.4, slow_lr=0.8)),
    "slowmo_inner_localsgd_w4": (
        SGD,
        partial(SLOWMO, sync_every=6, average_every=2, slow_momentum=0.5),
    ),
    "slowmo_hier_w4_n2": (
        SGD,
        partial(SLOWMO, sync_every=4, average_every=2, slow_momentum=0.5, group_size=2),
    ),
    "localsgd_sgd_w4": (SGD, partial(LOCAL, sync_every=3)),
    "postlocal_adamw_w4_sub2": (
        ADAMW,
        partial(LOCAL, sync_every=3, warmup_steps=4, first_sync="immediate", group_size=2),
    ),
    "hier_sgd_w4": (
        SGD,
        partial(LOCAL, sync_every=4, average_every=2, average_group=2, first_sync="immediate"),
    ),
    "diloco_stream_w4": (
        ADAMW,
        partial(DiLoCoStrategy, sync_every=6, fragments=["hidden.*", "out.*"], delay=1, mix=0.5),
    ),
}


def golden(name, rank, world, folder):
    optimizer, strategy = RUNS[name]
    module = GoldenModule(load(name), optimizer, rank)
    strategy = strategy()
    make_trainer(strategy, world, max_steps=24).fit(module)
    state = module.trainer.optimizers[0].state
    kept = {
        key: torch.cat([state[p][key].flatten() for p in module.parameters()])
        for key in state[module.hidden.weight]
        if key != "step"
    }
    u = strategy.units[0].outer.get("u") if strategy.units else None
    return {
        "trajectory": torch.stack(module.trajectory),
        "u": u,
        "state": kept,
        "end": torch.cat([p.detach().flatten() for p in module.parameters()]),
    }


CASES = {name: partial(golden, name) for name in RUNS}
