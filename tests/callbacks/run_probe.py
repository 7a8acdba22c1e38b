"""The probe beside local steps on two CPU processes: run_probe.py OUT.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import toys

from lit_ssl.callbacks import LinearProbeEvaluator
from lit_ssl.strategies import LocalSGDStrategy

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "reduce_scatter")


class Count(pl.Callback):
    """Collectives of every batch, and the state of the probe after it."""

    def __init__(self, probe, out):
        self.probe, self.out, self.calls, self.batches, self.synced = probe, out, 0, [], []
        for name in COLLECTIVES:
            setattr(dist, name, self.counted(getattr(dist, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.calls += 1
            return function(*args, **kwargs)

        return call

    def on_train_batch_start(self, *args):
        self.calls = 0

    def on_after_sync(self, trainer, pl_module):
        self.synced.append(self.state())

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.batches.append([trainer.strategy.just_synced, self.calls, self.state()])

    def state(self):
        head = self.probe.head
        first = next(iter(self.probe.optimizer.state.values()), {})
        parts = [head.linear.weight, head.mean, head.variance]
        parts += [first["exp_avg"]] if first else []
        return [part.detach().double().sum().item() for part in parts]

    def on_fit_end(self, trainer, pl_module):
        mine = {"batches": self.batches, "synced": self.synced}
        found = [None, None]
        dist.all_gather_object(found, mine)
        if trainer.is_global_zero:
            accuracy = trainer.callback_metrics["val/linear_acc1"].item()
            Path(self.out).write_text(json.dumps({"ranks": found, "accuracy": accuracy}))


def main(out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    probe = LinearProbeEvaluator(lr=0.05)
    trainer = toys.make_trainer(
        Path(out).parent,
        devices=2,
        strategy=LocalSGDStrategy(sync_every=3, warmup_steps=2, start_method="fork"),
        max_epochs=6,
        callbacks=[probe, Count(probe, out)],
    )
    trainer.fit(toys.ToyModule(), toys.ToyData(train=64))


if __name__ == "__main__":
    main(sys.argv[1])
