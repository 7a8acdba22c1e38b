"""What a checkpoint in the middle of a round costs, where each process has its own weights.

Two gloo processes train a linear layer with momentum by local SGD and save in the middle of a
round; the layer has ``--millions`` of parameters in float32. Printed are the bytes on the disk, the
processor time of both processes, the largest memory of each while it saves beyond what it had
before, and the processor time in which one process writes as many bytes by ``torch.save`` with
checksums and waits for the disk. Both have ``OMP_NUM_THREADS`` threads, 1 unless it is set.

    python benchmarks/mid_round_checkpoint.py
    python benchmarks/mid_round_checkpoint.py --millions 100 --per-rank-state sidecar
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WORLD = 2
WIDTH = 1000


def saved(options: argparse.Namespace, rank: int, folder: Path) -> list[dict[str, float]]:
    """Train to the middle of a round and save, ``repeats`` times; costs of this process."""
    import lightning.pytorch as pl
    import torch
    import torch.distributed as dist
    from torch import nn

    from lit_ssl.checkpoints.whole import save_whole
    from lit_ssl.strategies import LocalSGDStrategy

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "GROUP_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}  # the group is made here
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)

    class Linear(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            rows = round(options.millions * 1e6 / WIDTH)
            self.layer = nn.Linear(WIDTH, rows, bias=False)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

        def train_dataloader(self) -> Any:
            torch.manual_seed(rank)
            return torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(torch.randn(8, WIDTH)), batch_size=2
            )

    found: list[dict[str, float]] = []

    class Saving(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step != 3:
                return
            for number in range(options.repeats):
                path = folder / f"{number}.ckpt"
                dist.barrier()
                with Peak() as peak:
                    start = time.process_time()
                    trainer.save_checkpoint(path)
                    spent = time.process_time() - start
                dist.barrier()
                files = list(folder.glob(f"{number}.ckpt*"))
                size = sum(file.stat().st_size for file in files)
                found.append({"cpu": spent, "mb": size / 1e6, "peak": peak.megabytes})
                if rank == 0:
                    content = {"a": torch.zeros(size // 4)}
                    start = time.process_time()
                    save_whole(content, folder / "plain.ckpt")
                    found[-1]["plain"] = time.process_time() - start
                    del content
                dist.barrier()
                if rank == 0:
                    for file in [*files, folder / "plain.ckpt"]:
                        file.unlink()

    named = {} if options.per_rank_state is None else {"per_rank_state": options.per_rank_state}
    if options.limit is not None:
        named["per_rank_state_limit_mb"] = options.limit
    trainer = pl.Trainer(
        strategy=LocalSGDStrategy(sync_every=8, **named),
        accelerator="cpu",
        devices=WORLD,
        max_steps=4,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        callbacks=[Saving()],
    )
    trainer.fit(Linear())
    return found


class Peak:
    """Largest resident memory while it is open, beyond that at its start; looks every 2 ms."""

    def __enter__(self) -> Peak:
        self._before = self._most = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._most = max(self._most, _resident())

    def __exit__(self, *args: Any) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """The largest growth."""
        return (self._most - self._before) / 1e6


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Start the processes and print what they measured."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--millions", type=float, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--per-rank-state", choices=("checkpoint", "sidecar"))
    parser.add_argument("--limit", type=float, help="per_rank_state_limit_mb")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        result = saved(options, options.rank, options.folder)
        (options.folder / f"{options.rank}.json").write_text(json.dumps(result))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        words = [sys.executable, __file__, *sys.argv[1:], "--folder", folder]
        ranks = [subprocess.Popen([*words, "--rank", str(rank)]) for rank in range(WORLD)]
        statuses = [process.wait() for process in ranks]
        if any(statuses):
            sys.exit("a process has failed")
        results = [json.loads((Path(folder) / f"{r}.json").read_text()) for r in range(WORLD)]
    first, second = results
    spent = statistics.median(a["cpu"] + b["cpu"] for a, b in zip(first, second, strict=True))
    plain = statistics.median(a["plain"] for a in first)
    print(
        f"{options.millions:g} million parameters, {first[0]['mb']:.0f} MB, {spent:.2f} CPU-s; "
        f"as many bytes written plainly {plain:.2f} CPU-s: {spent / plain:.2f} x"
    )
    for rank, result in enumerate(results):
        print(f"rank {rank}: {max(each['peak'] for each in result):.0f} MB beyond before")


if __name__ == "__main__":
    main()
