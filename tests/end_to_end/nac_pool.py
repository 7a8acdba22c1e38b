"""Runs `lit-ssl` many times in one of two gloo processes: nac_pool.py FOLDER RANK PORT RUNS."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as pl
import torch


class Watch(pl.Callback):
    """Keeps the steps that were done, and the weights of the end."""

    seen: ClassVar[dict] = {}

    def on_fit_end(self, trainer, pl_module):
        weights = torch.cat([p.detach().double().flatten() for p in pl_module.parameters()])
        Watch.seen = {
            "steps": trainer.global_step,
            "weights": weights.sum().item().hex(),
            "finite": bool(weights.isfinite().all()),
            "strategy": type(trainer.strategy).__name__,
            "world": trainer.world_size,
        }


def main(folder, rank, port, runs):
    from lit_ssl.__main__ import main as lit_ssl

    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.chdir(folder)
    sys.modules["nac_pool"] = sys.modules["__main__"]
    results = {}
    for name, words in runs.items():
        out, code = io.StringIO(), 0
        sys.argv = ["lit-ssl", *words]
        Watch.seen = {}
        with redirect_stdout(out), redirect_stderr(out):
            try:
                lit_ssl()
            except SystemExit as stop:
                code = stop.code
        results[name] = {"code": code, "said": out.getvalue()[-2000:], **Watch.seen}
        Path(f"{rank}.json").write_text(json.dumps(results))
        if code:  # the other process would wait for this one
            break


if __name__ == "__main__":
    place, number, free_port, file = sys.argv[1:]
    main(Path(place), int(number), int(free_port), json.loads(Path(file).read_text()))
