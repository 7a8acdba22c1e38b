"""Randomness of a training step as a pure function of seed and step."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning.pytorch as pl
import torch

from lit_ssl.errors import InputError
from lit_ssl.seeding import run_seed
from lit_ssl.trainer.length import finished_batches


class StepSeeder(pl.Callback):
    """Re-seeds torch's generators before every training batch.

    The seed is a hash of (seed, number of training batches before this one, rank). Masks, drop path
    and dropout then do not depend on what ran before: a run that was killed in the middle of an
    epoch continues on the identical trajectory, also with ``accumulate_grad_batches``, and an
    evaluator that was added or removed does not change the training. Processes draw independent
    numbers.

    Only ``torch``'s global generators (CPU and accelerators) are seeded; Python's and NumPy's are
    not. The order of the data and the augmentation are the data module's part of the bargain.

    Args:
        seed: The seed; None takes the one of ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.

    Raises:
        ValueError: If ``seed`` is negative.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise InputError(f"StepSeeder needs seed >= 0 or None, got {seed}")
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed for this batch."""
        done = finished_batches(trainer)
        seed_generators(step_seed(run_seed(self.seed), done, trainer.global_rank), pl_module.device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Do what ``torch.manual_seed`` does for the CPU and one device.

    It also prepares all kinds of accelerators that are not in use, which takes longer than all the
    rest of a small step's seeding.

    Args:
        seed: any that ``torch.manual_seed`` takes.
        device: of the module.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def step_seed(seed: int, batch: int, rank: int) -> int:
    """Hash of the arguments, in [0, 2**63); each of its halves is well mixed.

    Args:
        seed: of the run.
        batch: number of the batch since the start of the training.
        rank: of the process.
    """
    text = f"{seed}/{batch}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
