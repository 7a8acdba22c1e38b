"""What the methods of group robustness ask of the trainer and its data module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_ssl.distributed import gather_stack, world_size
from lit_ssl.errors import InputError
from lit_ssl.trainer.private import before_batch_transfer, finds_unused_parameters

__all__ = ["allow_idle_network", "group_data", "predict_rows", "split_groups"]

_NEEDED = (
    "group_array", "soft_group_array", "set_groups", "set_sampling", "bank_dataloader",
    "num_attributes", "eval_group_names",
)  # fmt: skip


def group_data(trainer: Any, who: str) -> Any:
    """The data module with groups.

    Args:
        trainer: the running trainer.
        who: name of the method, for the message.

    Raises:
        ValueError: if there is none.
    """
    data = getattr(trainer, "datamodule", None)
    if missing := [name for name in _NEEDED if not hasattr(data, name)]:
        found = "none was given" if data is None else f"{type(data).__name__} has no {missing[0]}"
        raise InputError(
            f"{who} needs a data module whose rows have groups: {found}. Use WaterbirdsDataModule, "
            "CelebADataModule, GroupCSVDataModule (your own table) or another one with groups"
        )
    return data


def split_groups(batch: Any, who: str) -> tuple[Any, Tensor, Tensor]:
    """Inputs, labels ``[B]`` and groups of a batch.

    Args:
        batch: ``(inputs, labels, groups)``.
        who: name of the method, for the message.

    Raises:
        ValueError: if it has another form.
    """
    if isinstance(batch, list | tuple) and len(batch) == 3 and isinstance(batch[2], Tensor):
        return batch[0], batch[1], batch[2]
    raise InputError(
        f"{who} needs batches (inputs, labels [B], groups [B]) of a data module with groups, got a "
        f"{type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, list | tuple) else "")
    )


@torch.no_grad()
def predict_rows(
    trainer: Any,
    network: nn.Module,
    function: Callable[[Any], Tensor],
    loader: Iterable[Any],
    num_rows: int,
) -> Tensor:
    """Apply a function to the inputs of a bank loader, without touching the training.

    Args:
        trainer: the running trainer; batches go through its transfer and its precision.
        network: what the function evaluates; in eval mode meanwhile.
        function: inputs to ``[B, K]``.
        loader: what ``bank_dataloader()`` returned: row ``i`` of process ``r`` of ``W`` is row
            ``r + i * W``.
        num_rows: rows of all processes.

    Returns:
        float32 ``[num_rows, K]`` in the order of the rows, on every process, on the CPU.
    """
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    rows = []
    try:
        with isolate_rng():
            for batch in loader:
                batch = trainer.precision_plugin.convert_input(batch)
                batch = before_batch_transfer(trainer, batch)
                inputs = trainer.strategy.batch_to_device(batch)[0]
                with trainer.precision_plugin.forward_context():
                    rows.append(function(inputs).float())
    finally:
        for part, training in modes:
            part.training = training
    longest = -(-num_rows // world_size())
    if not rows:
        raise InputError("the bank loader is empty on this process: use fewer processes")
    local = torch.cat(rows)
    padded = torch.cat([local, local[-1:].expand(longest - len(local), -1)])
    return gather_stack(padded).transpose(0, 1).flatten(0, 1)[:num_rows].cpu()


def allow_idle_network(trainer: pl.Trainer, who: str) -> None:
    """Refuse a DDP that would wait for the gradients of a network that is not in use.

    Args:
        trainer: the running trainer.
        who: name of the method, for the message.

    Raises:
        InputError: with what to do.
    """
    strategy: Any = trainer.strategy
    is_ddp = isinstance(strategy, DDPStrategy) and type(strategy).__module__.startswith("lightning")
    if is_ddp and not finds_unused_parameters(strategy):
        raise InputError(
            f"{who} has two networks and trains one at a time: on several processes use "
            "--trainer.strategy ddp_find_unused_parameters_true."
        )


def row_seed(data: Any) -> int:
    """Seed of the run, as the data module has it."""
    seed = data.run_seed() if callable(getattr(data, "run_seed", None)) else 0
    return int(np.uint32(seed))
