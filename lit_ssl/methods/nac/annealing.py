"""Kernels whose temperature, bandwidth and truncation settle in the course of a training."""

from __future__ import annotations

import math

import torch

from lit_ssl.errors import InputError
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit

__all__ = ["KernelAnnealing"]


class KernelAnnealing:
    """Moves options of the propagators' kernels from a start to the kernels' own values.

    Temperature and bandwidth move by equal factors, the truncation by equal steps; after ``share``
    of the run all are the kernels' own. What has no start stays as it is.

    Args:
        net: the network.
        temperature: τ at the start.
        bandwidth: ε at the start; for kernels whose bandwidth is not learned.
        truncation: distance at the start beyond which there is no link; for kernels that have a
            truncation.
        share: of the run, in (0, 1].

    Raises:
        InputError: for values outside their ranges, or kernels that they are not for.

    Source: ours; the truncation from 2 to 0.9 over a fifth of the run lets links that start out
    dead find each other.
    """

    def __init__(
        self,
        net: NeuralAttentiveCircuit,
        temperature: float | None = None,
        bandwidth: float | None = None,
        truncation: float | None = None,
        share: float = 0.2,
    ) -> None:
        starts = {"temperature": temperature, "bandwidth": bandwidth, "truncation": truncation}
        self.starts = {name: value for name, value in starts.items() if value is not None}
        self.share = share
        self.progress = 1.0  # of the kernels as they are
        if not 0 < share <= 1:
            raise InputError(f"anneal_share must lie in (0, 1], not {share}")
        for name, value in self.starts.items():
            if not 0 < value < math.inf:
                raise InputError(f"start_{name} must be a positive number, not {value}")
        if not self.starts:
            return
        if not net.has_graph:
            raise InputError(
                f"start_{next(iter(self.starts))} needs a network with a graph, and this one has "
                "none: leave it out"
            )
        options = net.kernel_options
        if bandwidth is not None and options.learnable_bandwidth:
            raise InputError(
                "start_bandwidth needs kernels with learnable_bandwidth: false, since a bandwidth "
                "is either learned or scheduled"
            )
        if truncation is not None and options.truncation is None:
            raise InputError(
                "start_truncation needs kernels with a truncation, at which it ends: give it, or "
                "leave start_truncation out"
            )

    def apply(self, net: NeuralAttentiveCircuit, progress: float) -> None:
        """Set the kernels of all depths.

        Args:
            net: the network.
            progress: share of the run that is done, in [0, 1].
        """
        self.progress = progress
        done = min(1.0, progress / self.share)
        for depth in range(net.depth if self.starts else 0):
            kernel = net.kernel(depth)
            own = kernel.options
            if "temperature" in self.starts:
                kernel.temperature = _by_factors(self.starts["temperature"], own.temperature, done)
            if "truncation" in self.starts and own.truncation is not None:
                start = self.starts["truncation"]
                kernel.truncation = start + (own.truncation - start) * done
            if "bandwidth" in self.starts:
                value = _by_factors(self.starts["bandwidth"], own.bandwidth, done)
                with torch.no_grad():
                    kernel.log_bandwidth.fill_(math.log(value))


def _by_factors(start: float, end: float, done: float) -> float:
    return end if done == 1 else start ** (1 - done) * end**done
