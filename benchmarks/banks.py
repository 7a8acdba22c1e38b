"""Peak memory and CPU time of evaluators over several processes, and that they agree with one.

Every process takes features of its share of the training images (the bank) and of the validation
images, and an evaluator measures them. Printed for each process: the largest memory beyond what it
had before, in multiples of the whole bank, and its CPU time. The features are cheap (sines of the
number of the image plus a pattern of its class), so that what is measured is what becomes of them.

    OMP_NUM_THREADS=1 python benchmarks/banks.py
    OMP_NUM_THREADS=1 python benchmarks/banks.py --processes 3 --rows 200000 --only knn
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lit_ssl.callbacks import KNNEvaluator, LowShotEvaluator, SoftNNEvaluator
from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.contracts.data import num_classes_of
from lit_ssl.datamodules import ShardSampler
from lit_ssl.metrics import knn_predict, topk_accuracy
from lit_ssl.trainer.passes import on_rank_zero

BATCH = 256


class GatheredKNN(RepresentationEvaluator):
    """k-NN the plain way: every process holds all features, and the first one compares them."""

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """k-NN accuracy."""
        bank = self.labelled(trainer, pl_module, "bank")
        queries = self.labelled(trainer, pl_module, split)
        classes = num_classes_of(trainer, self.num_classes)

        def compute() -> dict[str, float]:
            ranked = knn_predict(bank.features, bank.labels, queries.features, classes)
            return {"knn_acc1": topk_accuracy(ranked, queries.labels)}

        return on_rank_zero(trainer, compute)


EVALUATORS = {
    "knn, gathered": GatheredKNN,
    "knn": KNNEvaluator,
    "soft_nn": SoftNNEvaluator,
    "low_shot": partial(LowShotEvaluator, shots=(1, 5), draws=2),
}


class Numbers(Dataset):
    """Images that are their own number, and a class."""

    def __init__(self, start: int, count: int, classes: int) -> None:
        self.numbers = torch.arange(start, start + count)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once."""
        numbers = self.numbers[torch.tensor(rows)]
        return numbers.double()[:, None, None, None], numbers * 7919 % 104_729 % self.classes


def same(batch: Any) -> Any:
    """The batch as it is."""
    return batch


class Data(pl.LightningDataModule):
    """So many training and validation images."""

    def __init__(self, rows: int, queries: int, classes: int) -> None:
        super().__init__()
        self.num_classes = classes
        self.bank = Numbers(0, rows, classes)
        self.val = Numbers(rows, queries, classes)

    def val_dataloader(self) -> DataLoader:
        """Padded, as Lightning does it."""
        assert self.trainer is not None
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(self.val, world, rank, shuffle=False)
        return DataLoader(self.val, BATCH, sampler=sampler, collate_fn=same)

    def bank_dataloader(self) -> DataLoader:
        """In order, each once."""
        assert self.trainer is not None
        sampler = ShardSampler(self.bank, self.trainer.world_size, self.trainer.global_rank)
        return DataLoader(self.bank, BATCH, sampler=sampler, collate_fn=same)


class Network(pl.LightningModule):
    """Features that cost next to nothing."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.embed_dim = width
        self.classes = classes
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("rates", torch.rand(width, generator=generator))
        self.register_buffer("patterns", torch.randn(classes, width, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 1, 1, 1]`` to ``[B, width]``."""
        numbers = images.flatten()
        classes = numbers.long() * 7919 % 104_729 % self.classes
        noise = torch.sin(numbers[:, None].float() * self.rates * 97)
        return 0.15 * self.patterns[classes] + noise

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""


def status(name: str) -> float:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


class Watch(pl.Callback):
    """Memory and time between the start and the end of a validation, of all processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget earlier peaks."""
        Path("/proc/self/clear_refs").write_text("5")
        self.before, self.start = status("VmRSS"), time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather, and write."""
        mine = torch.tensor([status("VmHWM") - self.before, time.process_time() - self.start])
        every = trainer.strategy.all_gather(mine).reshape(-1, 2).tolist()
        values = {k: v.item() for k, v in trainer.callback_metrics.items() if k.endswith("acc1")}
        if trainer.is_global_zero:
            self.path.write_text(json.dumps({"every": every, "values": values}))


def measure(name: str, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One validation with one evaluator."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        trainer = pl.Trainer(
            accelerator="cpu", devices=processes, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            strategy="ddp_spawn" if processes > 1 else "auto",
            callbacks=[EVALUATORS[name](), Watch(path)],
        )  # fmt: skip
        data = Data(options.rows, options.queries, options.classes)
        trainer.validate(Network(options.width, options.classes), data, verbose=False)
        return json.loads(path.read_text())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=EVALUATORS, default=list(EVALUATORS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    size = 4 * options.rows * options.width / 1e6
    print(f"bank of {options.rows:,} x {options.width} float32, {size:.0f} MB;", end=" ")
    print(
        f"{options.queries:,} queries; torch {torch.__version__}, {torch.get_num_threads()} thread"
    )
    for name in options.only:
        for processes in options.processes:
            found = measure(name, processes, options)
            peaks = ", ".join(f"{peak / size:.2f}" for peak, _ in found["every"])
            seconds = ", ".join(f"{taken:.1f}" for _, taken in found["every"])
            values = " ".join(f"{key[4:]} {value:.6f}" for key, value in found["values"].items())
            print(f"{name:<14} {processes} process(es): {peaks} banks; {seconds} CPU-s; {values}")


if __name__ == "__main__":
    main()
