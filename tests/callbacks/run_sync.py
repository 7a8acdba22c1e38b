"""Two CPU processes with and without SyncMonitor write what they logged: run_sync.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

sys.path.insert(0, str(Path(__file__).parent))
import toys

from lit_ssl.callbacks import SyncMonitor
from lit_ssl.strategies import SlowMomentumStrategy


class Record(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        found = {k: v for k, v in metrics.items() if k.startswith("strategy/")}
        if found:
            self.rows.append([step, found])


class Write(pl.Callback):
    """Forked processes do not share memory with the one that started them."""

    def __init__(self, out, log):
        self.out, self.record = out, log

    def on_fit_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            weights = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
            content = {"rows": self.record.rows, "weights": weights.tolist()}
            content["bytes_sent"] = trainer.strategy.bytes_sent
            Path(self.out).write_text(json.dumps(content))


def main(out, monitor, warmup):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    log = Record()
    callbacks = [SyncMonitor(drift_every=2, skip=1, timed_batches=3)] if monitor else []
    trainer = toys.make_trainer(
        Path(out).parent,
        devices=2,
        strategy=SlowMomentumStrategy(sync_every=3, warmup_steps=warmup, start_method="fork"),
        max_epochs=3,
        log_every_n_steps=4,
        limit_val_batches=0,
        callbacks=[*callbacks, Write(out, log)],
        logger=log,
    )
    trainer.fit(toys.ToyModule(), toys.ToyData(train=64))


if __name__ == "__main__":
    folder = sys.argv[1]
    main(f"{folder}/with.json", True, 0)
    main(f"{folder}/without.json", False, 0)
    main(f"{folder}/warmup.json", True, 6)
