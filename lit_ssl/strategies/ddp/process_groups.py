"""Process groups: the processes of a node, and their peers on other nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lit_ssl.errors import InputError
from lit_ssl.strategies.options import Options

__all__ = ["Groups"]


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
        self,
        rank: int,
        world_size: int,
        options: Options,
        timeout: timedelta | None = None,
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
