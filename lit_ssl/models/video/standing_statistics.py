"""Statistics of batch normalisation measured anew, for a network that is going to sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_ssl.distributed import world_size
from lit_ssl.errors import InputError, NonFiniteError
from lit_ssl.models.video.replicas import JoinedBatchNorm2d

__all__ = ["standing_statistics"]

_BATCH_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, JoinedBatchNorm2d,
)  # fmt: skip


class _Sums:
    """Of the means and variances of one layer's batches."""

    def __init__(self) -> None:
        self.mean: Tensor | float = 0.0
        self.var: Tensor | float = 0.0
        self.count = 0

    def add(self, norm: Any, values: int) -> None:
        """Take up the running statistics of a batch of so many values per channel.

        Training divides by the biased variance, the running one is unbiased.
        """
        self.mean = self.mean + norm.running_mean.double()
        self.var = self.var + norm.running_var.double() * ((values - 1) / values)
        self.count += 1


@torch.no_grad()
def standing_statistics(
    module: nn.Module, sampler: Callable[[int], object], batches: int = 16
) -> None:
    """Replace the running statistics of a network by plain means over fresh batches.

    An averaged network's averaged statistics belong to no weights, and early in training its
    samples then look like noise. Here only its batch normalisation is put into training mode, so
    that each layer sees what it would see in training; then mean and biased variance are averaged
    over the batches. Nothing outside of the module is touched.

    Args:
        module: the network; it is left in evaluation mode, ready to sample.
        sampler: called with 0, 1, …; runs one forward pass of the module on fresh inputs. Batches
            should be of one size, since each counts alike.
        batches: number of passes, at least 1.

    Raises:
        ValueError: if there is no batch normalisation with running statistics, the sampler does
            not reach all of it, or the statistics are not finite.

    Source: BigGAN's "standing statistics", arXiv 1809.11096, appendix D.
    """
    if batches < 1:
        raise InputError(f"standing statistics need at least one batch, not {batches}")
    norms = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _BATCH_NORMS) and layer.running_mean is not None
    }
    if not norms:
        raise InputError(f"{type(module).__name__} has no batch normalisation to measure anew")
    sums = {name: _Sums() for name in norms}
    momenta = {name: norm.momentum for name, norm in norms.items()}
    hooks = [norm.register_forward_hook(partial(_add, sums[name])) for name, norm in norms.items()]
    module.eval()
    try:
        for norm in norms.values():
            norm.train()
            norm.momentum = 1.0  # what runs is the last batch's
            norm.reset_running_stats()
        for index in range(batches):
            sampler(index)
    finally:
        for hook in hooks:
            hook.remove()
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        module.eval()
    if unseen := [name for name in norms if not sums[name].count]:
        raise InputError(f"the sampler runs no forward pass of {', '.join(unseen)}")
    for name, norm in norms.items():
        _write(norm, sums[name])
    if not all(_finite(norm) for norm in norms.values()):
        raise NonFiniteError(
            "statistics of batch normalisation are NaN or infinite: training has diverged; go back "
            "to an earlier checkpoint and lower the learning rates"
        )


def _add(sums: _Sums, norm: nn.Module, inputs: tuple[Tensor, ...], _output: object) -> None:
    values = inputs[0].numel() // inputs[0].shape[1]
    if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized():
        values *= dist.get_world_size(norm.process_group)
    elif isinstance(norm, JoinedBatchNorm2d) and norm.joined:
        values *= world_size()
    sums.add(norm, values)


def _write(norm: Any, sums: _Sums) -> None:
    norm.running_mean.copy_(sums.mean / sums.count)
    norm.running_var.copy_(sums.var / sums.count)
    norm.num_batches_tracked.fill_(sums.count)


def _finite(norm: Any) -> bool:
    return bool(norm.running_mean.isfinite().all() & norm.running_var.isfinite().all())
