"""NAC on two processes: every parameter is used, and all have the same circuit."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.callbacks import ModuleDropSweep, StepSeeder
from lit_ssl.models import GraphPrior
from lit_ssl.strategies import DiLoCoStrategy, LocalSGDStrategy, SlowMomentumStrategy


class Watch(pl.Callback):
    """Writes what each process had, and the sizes of the prefixes that it kept."""

    def __init__(self):
        self.sizes = []

    def on_train_start(self, trainer, pl_module):
        net, seen = pl_module.net, self.sizes
        net.register_forward_pre_hook(
            lambda _, args: seen.append(None if args[-1] is None else len(args[-1]))
        )

    def on_train_end(self, trainer, pl_module):
        content = {"state": pl_module.state_dict(), "sizes": self.sizes}
        torch.save(content, f"rank{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def data(rows):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(rows, 1, 8, 8, generator=generator)
    return TensorDataset(images, torch.randint(3, (rows,), generator=generator))


@pytest.mark.distributed
def test_two_processes_have_one_circuit_and_no_unused_parameter(tiny, tmp_path):
    # another graph in each process, were it not for the seed of the prior
    net = tiny.net(graph_prior=GraphPrior("erdos-renyi", arguments={"p": 0.5}, steps=50))
    module = tiny.nac(net, module_dropout="nested", prior_refresh=2)
    # DDP's default: an unused parameter would end the second step with an error
    trainer = tiny.trainer(
        devices=2, strategy="ddp_spawn", max_epochs=2, callbacks=[StepSeeder(0), Watch()]
    )
    loader = DataLoader(data(24), batch_size=4)
    trainer.fit(module, loader)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for name, value in one["state"].items():
        assert torch.equal(value, two["state"][name]), name
    assert one["sizes"] == two["sizes"]
    assert len(set(one["sizes"])) > 1


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: LocalSGDStrategy(sync_every=2),
        lambda: SlowMomentumStrategy(sync_every=2),
        lambda: DiLoCoStrategy(sync_every=2),
    ],
    ids=["local_sgd", "slow_momentum", "diloco"],
)
def test_strategies_of_local_steps(tiny, strategy):
    module = tiny.nac(tiny.net(graph_prior=GraphPrior("complete")), module_dropout="sandwich")
    before = module.net.codes["mediator"].clone()
    trainer = tiny.trainer(devices=1, strategy=strategy(), callbacks=[StepSeeder(0)])
    trainer.fit(module, DataLoader(data(17), batch_size=4))
    assert trainer.global_step == 5
    assert not torch.equal(before, module.net.codes["mediator"])
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.slow
@pytest.mark.distributed
def test_a_sweep_on_two_processes_counts_all_rows_and_times_on_one(tiny, tmp_path):
    found = {}
    for devices in (1, 2):
        torch.manual_seed(0)
        module = tiny.nac()
        sweep = ModuleDropSweep(
            (0.5,), min_runs=1, seconds=0.0, batch_sizes=(2,), output=f"out{devices}", plot=False
        )
        trainer = tiny.trainer(
            devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", callbacks=[sweep]
        )
        trainer.test(module, DataLoader(data(24), batch_size=4), verbose=False)
        lines = (tmp_path / f"out{devices}" / "module_drop.csv").read_text().splitlines()
        found[devices] = [line.split(",")[:3] for line in lines]
    assert found[1] == found[2]
