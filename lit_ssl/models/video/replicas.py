"""Batch normalisation over the batches of all processes, on CPUs, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from lit_ssl.distributed import is_distributed

__all__ = ["JoinedBatchNorm2d", "join_batch_norms_"]


class JoinedBatchNorm2d(nn.Module):
    """``nn.BatchNorm2d`` with the moments of all processes, on any device.

    torch's ``SyncBatchNorm`` and DDP refuse it on the CPU. Moments are summed in float32 and
    gradients flow through the sums. In one process it is the plain layer, with the same names.

    Args:
        norm: the layer whose parameters and buffers it takes over.
        joined: False: stay alone, as a network that only one process may run.
    """

    def __init__(self, norm: nn.BatchNorm2d, joined: bool = True) -> None:
        super().__init__()
        self.joined = joined
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight: nn.Parameter | None = norm.weight
        self.bias: nn.Parameter | None = norm.bias
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]``; N may differ between processes.

        Args:
            inputs: of this process. While training, ``joined`` makes it a collective.
        """
        if self.training:
            self.num_batches_tracked.add_(1)
        if not (self.training and self.joined and is_distributed()):
            return F.batch_norm(
                inputs, self.running_mean, self.running_var, self.weight, self.bias,
                training=self.training, momentum=self._weight_of_batch(), eps=self.eps,
            )  # fmt: skip
        wide = inputs.float()
        rows = wide.new_full((1,), wide.numel() // wide.shape[1])
        total = all_reduce(torch.cat([wide.sum((0, 2, 3)), rows]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = wide - mean[:, None, None]
        squares = all_reduce(centred.square().sum((0, 2, 3)))
        self._keep(mean.detach(), squares.detach() / (count - 1).clamp(min=1))
        scale = (squares / count + self.eps).rsqrt()
        if self.weight is None or self.bias is None:
            return (centred * scale[:, None, None]).to(inputs.dtype)
        scale = scale * self.weight.float()
        return (centred * scale[:, None, None] + self.bias.float()[:, None, None]).to(inputs.dtype)

    def reset_running_stats(self) -> None:
        """Forget the running statistics."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        share = self._weight_of_batch()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _weight_of_batch(self) -> float:
        """Weight of this batch in the running statistics; momentum None averages all alike."""
        if self.momentum is not None:
            return self.momentum
        return 1.0 / max(int(self.num_batches_tracked), 1)


def join_batch_norms_(network: nn.Module, joined: bool = True) -> None:
    """Let the BatchNorm layers of a network, in place, see the batches of all processes.

    Args:
        network: its ``nn.BatchNorm2d`` are replaced; names of parameters and buffers stay.
        joined: False makes layers that stay alone, and that DDP leaves alone, too.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, JoinedBatchNorm2d(child, joined))
