"""Passes over data in the middle of a training, which leave the training untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_ssl.contracts.batches import inputs_of
from lit_ssl.distributed import gather_stack, streamed_rows
from lit_ssl.errors import InputError
from lit_ssl.trainer.private import before_batch_transfer

__all__ = ["evaluate_batches", "evaluation_mode", "on_rank_zero", "predict_rows"]

Result = TypeVar("Result")


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every submodule has the mode it had before.

    Args:
        module: whose submodules have modes of their own.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def evaluate_batches(
    trainer: pl.Trainer,
    module: nn.Module,
    function: Callable[[Any, Any], Result],
    loader: Iterable[Any],
    limit: int | None = None,
) -> list[Result]:
    """Apply a function to the batches of a loader, without touching any state of the training.

    Batches go through the trainer's own transfer, so that the data module normalises them, and
    through its precision; the module is in eval mode and every submodule gets its own mode back;
    random states are restored.

    Args:
        trainer: The running trainer.
        module: What the function evaluates.
        function: Takes a batch on the device, and as the loader served it.
        loader: Of this process.
        limit: Use so many batches; None: all.
    """
    results = []
    with isolate_rng(), evaluation_mode(module):
        for served in islice(loader, limit):
            batch = before_batch_transfer(trainer, trainer.precision_plugin.convert_input(served))
            batch = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.forward_context():
                results.append(function(batch, served))
    return results


def predict_rows(
    trainer: pl.Trainer, network: nn.Module, loader: Iterable[Any], num_rows: int
) -> Tensor:
    """Outputs of a network for numbered rows (``evaluate_batches``).

    Args:
        trainer: The running trainer.
        network: Inputs of a batch to ``[B, K]``.
        loader: Row i of process r of W is row ``r + i * W``, as of ``bank_dataloader()``.
        num_rows: Rows of all processes.

    Returns:
        float32 ``[num_rows, K]`` in the order of the rows, on every process, on the CPU.

    Raises:
        InputError: The loader has no batch on this process.
    """

    def outputs(batch: Any, _: Any) -> Tensor:
        return network(inputs_of(batch)).float()

    local = evaluate_batches(trainer, network, outputs, loader)
    if not local:
        raise InputError("the loader is empty on this process: use fewer processes")
    mine = torch.cat(local)
    local.clear()
    rows = torch.empty(num_rows, *mine.shape[1:])
    counts = gather_stack(torch.tensor([len(mine)], device=mine.device)).flatten().tolist()
    for start, pieces in streamed_rows(lambda a, b: mine[a:b], counts, mine):
        for rank, piece in enumerate(pieces):
            places = rows[rank :: len(counts)][start : start + len(piece)]
            places.copy_(piece[: len(places)])
    return rows


def on_rank_zero(trainer: pl.Trainer, compute: Callable[[], Result]) -> Result:
    """Compute on one process and give the result to all, so that all act on the same numbers.

    Args:
        trainer: The running trainer.
        compute: Called on rank zero only; the result must be picklable.

    Returns:
        Rank zero's result, on every process.
    """
    result = compute() if trainer.is_global_zero else None
    return trainer.strategy.broadcast(result)  # type: ignore[return-value]
