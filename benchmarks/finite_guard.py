"""What FiniteGuard costs a training step: MSN on a small ViT, with and without it, interleaved.

    python benchmarks/finite_guard.py

Times are CPU seconds of this process in one thread: of a step, the medians of each round, and in
the callback, means over all steps, looks at the weights included. What the callback takes itself is
the number to rely on: the ratios of single rounds, which are printed, differ by percents.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_ssl import MSN
from lit_ssl.callbacks import FiniteGuard

VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3}


class Timed(FiniteGuard):
    """Adds up the time that it takes after each batch."""

    seconds = 0.0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Measure the hook."""
        start = time.process_time()
        super().on_train_batch_end(*args, **kwargs)
        self.seconds += time.process_time() - start


class Steps(pl.Callback):
    """Keeps the time from the start of each batch to behind the other callbacks' ends."""

    def __init__(self) -> None:
        self.start = 0.0
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self.start = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop it."""
        self.seconds.append(time.process_time() - self.start)


def views() -> tuple[list[Tensor], Tensor]:
    """A batch of 32 images, in two views each."""
    return [torch.randn(32, 2, 3, 32, 32)], torch.arange(32) % 4


def fit(guard: FiniteGuard | None, steps: int, every: int) -> list[float]:
    """Seconds of the steps of a short training, without the first five."""
    torch.manual_seed(0)
    module = MSN(
        backbone="vit_tiny_patch16_224", backbone_kwargs=VIT, num_prototypes=64,
        proj_hidden_dim=128, proj_output_dim=64,
    )  # fmt: skip
    clock = Steps()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=every,
        callbacks=[clock] if guard is None else [guard, clock],
    )  # fmt: skip
    trainer.fit(module, DataLoader([views()] * steps, batch_size=None))
    return clock.seconds[5:]


def main() -> None:
    """Print the times of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100, help="of a round, with and without")
    parser.add_argument("--every", type=int, default=50, help="steps between two looks")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    plain: list[float] = []
    guarded: list[float] = []
    guard = Timed()
    for _ in range(args.rounds):
        plain.append(statistics.median(fit(None, args.steps, args.every)) * 1e3)
        guarded.append(statistics.median(fit(guard, args.steps, args.every)) * 1e3)
    before, after = statistics.median(plain), statistics.median(guarded)
    ratios = sorted(b / a for a, b in zip(plain, guarded, strict=True))
    own = guard.seconds / (args.rounds * args.steps) * 1e3
    print(f"step {before:.1f} ms without, {after:.1f} ms with; ratio of a round's medians:")
    print(f"  {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(f"in the callback {own:.2f} ms a step, {100 * own / before:.2f}% of it")


if __name__ == "__main__":
    main()
