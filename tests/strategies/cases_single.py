"""Cases for one process."""

from __future__ import annotations

from functools import partial

import torch
from cases_golden import ADAMW, LOCAL, SGD, SLOWMO
from problems import GoldenModule, flat, load, make_trainer

from lit_ssl.strategies import DiLoCoStrategy, LocalSGDStrategy


def fit(strategy, optimizer=SGD, cls=GoldenModule, steps=12, **options):
    torch.manual_seed(0)
    module = cls(load("slowmo_sgd_w2"), optimizer, 0)
    make_trainer(strategy, 1, max_steps=steps, **options).fit(module)
    return module


def lookahead(rank, world, folder):
    """k steps forward, one step of size α back (arXiv 1907.08610), written out."""
    module = fit(SLOWMO(sync_every=4, slow_momentum=0.0, slow_lr=0.6))
    plain = GoldenModule(load("slowmo_sgd_w2"), SGD, 0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    slow = [p.detach().clone() for p in plain.parameters()]
    expected = [flat(plain)]
    for step in range(12):
        x, y = plain.data["X"][0, step], plain.data["Y"][0, step]
        optimizer.zero_grad()
        (plain(x) - y).square().mean().backward()
        optimizer.step()
        if step % 4 == 3:
            for anchor, p in zip(slow, plain.parameters(), strict=True):
                anchor += 0.6 * (p.detach() - anchor)
                p.data.copy_(anchor)
        expected.append(flat(plain))
    return {"trajectory": torch.stack(module.trajectory), "expected": torch.stack(expected)}


def refusals(rank, world, folder):
    """Messages of errors that set-up raises."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    class Shared(GoldenModule):
        automatic_optimization = False

        def configure_optimizers(self):
            return [SGD(self.parameters()), SGD(self.out.parameters())]

    class Sharded(GoldenModule):
        def configure_model(self):
            if not hasattr(self, "mesh"):
                self.mesh = init_device_mesh("cpu", (1,))
                fully_shard(self.out, mesh=self.mesh)

    class ZeroRedundancyOptimizer(torch.optim.SGD):
        def consolidate_state_dict(self):
            pass

    runs = {
        "shared": {"cls": Shared, "strategy": LOCAL()},
        "sharded": {"cls": Sharded, "strategy": LOCAL()},
        "zero": {"optimizer": partial(ZeroRedundancyOptimizer, lr=0.1), "strategy": LOCAL()},
        "pattern": {"strategy": DiLoCoStrategy(fragments=["hidden.*"])},
        "empty": {"strategy": DiLoCoStrategy(fragments=["*", "nothing"])},
        "groups": {"strategy": LOCAL(group_size=2)},
        "endless": {"strategy": LOCAL(warmup_steps=0.5), "steps": -1, "max_epochs": -1},
    }
    messages = {}
    for name, run in runs.items():
        try:
            fit(**run)
        except Exception as error:
            messages[name] = f"{type(error).__name__}: {error}"
    return messages


def outer_optimizers(rank, world, folder):
    """Any optimizer may be the outer one; parameters may join while it runs."""

    class Growing(GoldenModule):
        def configure_optimizers(self):
            return SGD(self.hidden.parameters())

        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            if self.trainer.global_step == 5:
                group = {"params": list(self.out.parameters()), "lr": 0.1, "momentum": 0.9}
                self.trainer.optimizers[0].add_param_group(group)

    adam = partial(torch.optim.Adam, lr=0.1, eps=0.1)
    run = partial(fit, optimizer=ADAMW)
    module = run(DiLoCoStrategy(adam, sync_every=4))
    growing = fit(DiLoCoStrategy(sync_every=4), cls=Growing, steps=16)
    unit = growing.trainer.strategy.units[0]
    state = unit.outer_optimizer.state
    return {
        "adam": torch.stack(module.trajectory),
        "names": unit.names,
        "momenta": {n: p in state for n, p in unit.outer_parameters.items()},
        "finite": bool(torch.isfinite(flat(growing)).all()),
        "shares": unit.x0.data_ptr() == next(iter(unit.outer_parameters.values())).data_ptr(),
    }


def plain_use(rank, world, folder):
    """validate() before and after fit; fit twice with one Trainer; names from the registry."""
    strategy = LocalSGDStrategy(sync_every=4)
    module = GoldenModule(load("slowmo_sgd_w2"), SGD, 0)
    trainer = make_trainer(strategy, 1, max_steps=6, max_epochs=4)
    before = trainer.validate(module, verbose=False)[0]["val_loss"]
    trainer.fit(module)
    after = trainer.validate(module, verbose=False)[0]["val_loss"]
    trainer.fit_loop.epoch_loop.max_steps = 12
    trainer.fit(module)
    named = make_trainer("slowmo", 1, max_steps=2)
    return {
        "losses": (before, after),
        "steps": strategy.steps,
        "named": type(named.strategy).__name__,
        "half": make_trainer("post_local_sgd", 1).strategy.options.warmup_steps,
    }


def outer_devices(rank, world, folder):
    """Where x0 and the outer optimizer live; ``meta`` stands in for a second device."""
    result = {}
    for device in ("cpu", None):
        module = fit(DiLoCoStrategy(sync_every=4, outer_device=device))
        result[device] = torch.stack(module.trajectory)

    class Watched(DiLoCoStrategy):
        def _prepare_unit(self, unit):
            super()._prepare_unit(unit)
            outer = unit.outer_optimizer.param_groups[0]["params"]
            self.seen = {unit.x0.device.type, *(p.device.type for p in outer)}

    away = Watched(sync_every=4, outer_device="meta", final_sync="none")
    fit(away, steps=3)
    return {**result, "away": away.seen}


ALL = (lookahead, refusals, outer_optimizers, outer_devices, plain_use)
CASES = {function.__name__: function for function in ALL}
