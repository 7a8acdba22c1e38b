"""Generators of random masks that are a pure function of (seed, rank, step)."""

from __future__ import annotations

import torch

from lit_ssl.seeding import Stream, sample_seeds

__all__ = ["step_generator"]


def step_generator(
    seed: int,
    rank: int,
    step: int,
    device: torch.device | str = "cpu",
    stream: int = Stream.TOKEN_MASKS,
) -> torch.Generator:
    """Return a generator for the masks of one step.

    Masks made with it do not depend on the number of workers, nor on whether the run was resumed,
    and leave torch's own generator alone. Devices of another kind draw other numbers.

    Args:
        seed: Seed of the run.
        rank: Rank of the process.
        step: Step, >= 0.
        device: Where the masks are made.
        stream: Keeps different uses apart.
    """
    found = torch.Generator(device=device)
    return found.manual_seed(int(sample_seeds(seed, stream, rank, step)[0]))
