"""Batch normalisation over the batches of all processes, on CPUs, too."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["normalized"]


def normalized(norm: nn.Module, inputs: Tensor) -> Tensor:
    """Apply a BatchNorm; after ``Trainer(sync_batchnorm=True)`` over all processes.

    torch's ``SyncBatchNorm`` refuses tensors on the CPU. There the moments are summed over the
    processes in float32, and gradients flow through the sums.

    Args:
        norm: ``nn.BatchNorm2d``, or the ``nn.SyncBatchNorm`` that it was converted to.
        inputs: ``[N, C, H, W]``; N may differ between processes.
    """
    on_cpu = isinstance(norm, nn.SyncBatchNorm) and inputs.device.type == "cpu"
    if not (on_cpu and norm.training and dist.is_available() and dist.is_initialized()):
        return _alone(norm, inputs) if on_cpu else norm(inputs)
    assert isinstance(norm, nn.SyncBatchNorm)
    wide = inputs.float()
    rows = torch.full((1,), float(wide.numel() // wide.shape[1]))
    sums = torch.cat([wide.sum((0, 2, 3)), rows])
    total = _summed(sums, norm.process_group)
    count = total[-1].detach()
    mean = total[:-1] / count
    centred = wide - mean[:, None, None]
    squares = _summed(centred.square().sum((0, 2, 3)), norm.process_group)
    variance = squares / count
    _update(norm, mean.detach(), squares.detach() / (count - 1).clamp(min=1))
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.float()
    out = centred * scale[:, None, None]
    if norm.affine:
        out = out + norm.bias.float()[:, None, None]
    return out.to(inputs.dtype)


def _alone(norm: nn.SyncBatchNorm, inputs: Tensor) -> Tensor:
    """As ``nn.BatchNorm2d`` with the same buffers: in eval mode, or in one process."""
    if norm.training:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return nn.functional.batch_norm(
        inputs,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        training=norm.training,
        momentum=_momentum(norm),
        eps=norm.eps,
    )


def _summed(values: Tensor, group: object) -> Tensor:
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values, group=group or dist.group.WORLD)


@torch.no_grad()
def _update(norm: nn.SyncBatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    momentum = _momentum(norm)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), momentum)


def _momentum(norm: nn.SyncBatchNorm) -> float:
    """Weight of this batch; None averages all batches alike."""
    if norm.momentum is not None:
        return norm.momentum
    return 1.0 / max(int(norm.num_batches_tracked or 0), 1)
