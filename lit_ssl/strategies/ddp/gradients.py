"""Who averages gradients: all processes in the warm-up, those of a node or nobody afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lit_ssl.errors import InputError
from lit_ssl.strategies.options import Options

__all__ = ["GradientSwitch", "Groups"]


class Groups:
    """Divides the processes into nodes of equal size, in the order of ranks.

    Args:
        rank: number of this process.
        world_size: number of processes.
        options: sizes of the groups: ``group_size`` and ``average_group``.
        timeout: of the groups' collectives.

    Raises:
        ValueError: if the processes cannot be divided like that.
    """

    def __init__(
        self, rank: int, world_size: int, options: Options, timeout: timedelta | None = None
    ) -> None:
        node_size, average_size = options.group_size, options.average_group
        for name, size in (("group_size", node_size), ("average_group", average_size)):
            if size is not None and world_size % size:
                raise InputError(f"{name}={size} does not divide the {world_size} processes")
        self.node: Any = None
        self.peers: Any = None  # None: all processes
        self.peer_ranks = list(range(world_size))
        self.average: Any = None
        self.average_size = world_size
        if node_size > 1:
            # Processes of a node have equal parameters, so that each only needs its peers.
            self.node, _ = dist.new_subgroups(group_size=node_size, timeout=timeout)
            for local in range(node_size):
                ranks = list(range(local, world_size, node_size))
                group = dist.new_group(ranks, timeout=timeout)
                if rank in ranks:
                    self.peers, self.peer_ranks = group, ranks
        if average_size is not None:
            self.average, _ = dist.new_subgroups(group_size=average_size, timeout=timeout)
            self.average_size = average_size
        elif node_size > 1:
            self.average, self.average_size = self.peers, len(self.peer_ranks)


class GradientSwitch:
    """Lets local steps pass DDP's wrapper by.

    ``no_sync()`` would not do: it acts on the forward pass inside it, while Lightning runs backward
    elsewhere, and manual optimization sets the flag back.

    Args:
        node: processes that average gradients in local steps too; None: nobody.
        warmup: steps in which all average them.
    """

    def __init__(self, node: Any = None, warmup: int = 0) -> None:
        self.node = node
        self.warmup = warmup
        self.is_local = False  # local steps are running
        self._asleep: list[nn.Parameter] = []  # whose gradients the wrapper leaves alone

    @property
    def needs_wrapper(self) -> bool:
        """Whether gradients are averaged at any time; without a wrapper, its buffers are saved."""
        return self.warmup > 0 or self.node is not None

    @property
    def passes_by(self) -> bool:
        """Whether a step has to leave out the wrapper."""
        return self.is_local and self.node is None

    def attach(self, model: nn.Module) -> None:
        """Let a wrapper average within the node only, once local steps are running.

        Args:
            model: the ``DistributedDataParallel``; it is changed.
        """
        assert isinstance(model, DistributedDataParallel)
        self._asleep = [p for p in model.parameters() if not p.requires_grad]
        if self.is_local:
            model.broadcast_buffers = False
        if self.node is not None:
            everyone: Any = dist.group.WORLD
            model.register_comm_hook(
                None,
                lambda state, bucket: allreduce_hook(
                    self.node if self.is_local else everyone, bucket
                ),
            )

    @property
    def is_outdated(self) -> bool:
        """Whether a parameter was unfrozen; a wrapper would never average its gradient."""
        return any(p.requires_grad for p in self._asleep)

    def begin_local_steps(self, model: nn.Module | None) -> None:
        """Average less from now on, and leave buffers to the synchronisations.

        Args:
            model: the wrapper, if there is one; it is changed.
        """
        self.is_local = True
        if self.node is None:
            self._asleep = []  # from now on the wrapper is passed by
        if isinstance(model, DistributedDataParallel):
            model.broadcast_buffers = False
