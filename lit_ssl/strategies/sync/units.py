"""Parameters that are synchronised together: those of one optimizer, or a fragment of them."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_ssl.errors import InputError
from lit_ssl.strategies.options import BufferPolicy, Fragments, Options
from lit_ssl.strategies.sync.averaging import (
    InFlight,
    all_gather_flat,
    flat_dtype,
    pack_,
    unpack_,
)
from lit_ssl.strategies.sync.inner_optimizer import choose_policy
from lit_ssl.strategies.sync.rounds import Round

__all__ = ["SyncUnit", "build_units", "check_same_parameters", "make_equal", "split_fragments"]


def split_fragments(names: Sequence[str], sizes: Sequence[int], fragments: Fragments) -> list[int]:
    """Divide parameters into fragments.

    Args:
        names: parameter names, in the optimizer's order.
        sizes: their numbers of elements.
        fragments: a number: consecutive parts of about equal size; or name patterns (``*`` and
            ``?``), one or several for each fragment.

    Returns:
        The fragment of each parameter.

    Raises:
        ValueError: if a fragment gets nothing, or a parameter belongs to none.
    """
    if isinstance(fragments, int):
        whole, done, owners = max(1, sum(sizes)), 0, []
        for size in sizes:
            owners.append(min(fragments - 1, fragments * (done + size // 2) // whole))
            done += size
        count = fragments
    else:
        lists = [[item] if isinstance(item, str) else list(item) for item in fragments]
        hits = [
            next((i for i, p in enumerate(lists) if any(fnmatch.fnmatchcase(n, q) for q in p)), -1)
            for n in names
        ]
        if -1 in hits:
            raise InputError(
                f"fragments: no pattern of {list(fragments)} matches {names[hits.index(-1)]!r}; "
                "add a pattern for it (the last one may be '*')"
            )
        owners, count = hits, len(lists)
    empty = sorted(set(range(count)) - set(owners))
    if empty:
        raise InputError(f"fragments: number {empty[0]} of {count} would hold no parameters")
    return owners


@dataclass(eq=False, repr=False)
class SyncUnit:
    """Parameters with one round counter, and what the outer step knows about them.

    Args:
        optimizer: inner optimizer.
        index: its number in the Trainer.
        fragment: number of the fragment, 0 without fragments.
        names: parameter names.
        parameters: the parameters, in the optimizer's order.
        round: where the unit stands in its round.
        policy: what happens to the inner optimizer's buffers after a synchronisation.
        delay: steps between the start of an average and the end of the round.

    Attributes:
        x0: parameters at the start of the round, flat, or this process's part of them.
        outer: tensors of the outer step by name, laid out like ``x0``.
        outer_optimizer: of DiLoCo.
        outer_parameters: its parameters by name, views into ``x0``.
        error: error feedback of compression.
        shards: number of equal parts of which ``x0`` and ``outer`` hold one.
        shard: number of this process's part.
        in_flight: the average that is under way.
        rates: last learning rate, then mean one, of each parameter group.
        fresh: places of parameters that joined in this round.
        fingerprints: of the extras at the start of the round, by name.
        at_start: buffers and frozen tensors at the start of the round: those with inf or NaN; with
            ``skip_rank``, all of them.
        fruitless: rounds in a row that no process has ended with finite numbers.
    """

    optimizer: Optimizer
    index: int
    fragment: int
    names: list[str]
    parameters: list[nn.Parameter]
    round: Round
    policy: BufferPolicy
    delay: int = 0
    x0: Tensor | None = None
    outer: dict[str, Tensor] = field(default_factory=dict)  # of the outer step, laid out like x0
    outer_optimizer: Optimizer | None = None
    outer_parameters: dict[str, nn.Parameter] = field(default_factory=dict)  # views into x0
    error: Tensor | None = None  # error feedback of compression
    shards: int = 1  # x0 and outer hold one of so many equal parts
    shard: int = 0
    in_flight: InFlight | None = None
    rates: list[float] = field(default_factory=list)  # last, then mean one of each parameter group
    fresh: list[slice] = field(default_factory=list)  # parameters that joined in this round
    fingerprints: dict[str, list[float]] = field(default_factory=dict)
    # Buffers and frozen tensors at the start of the round: those with inf or NaN; with skip_rank,
    # all of them.
    at_start: dict[str, Tensor] = field(default_factory=dict)
    fruitless: int = 0  # rounds in a row that no process has ended with finite numbers
    _workspace: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """The parameters, detached."""
        return [p.detach() for p in self.parameters]

    @property
    def numel(self) -> int:
        """Number of parameter elements."""
        return sum(p.numel() for p in self.parameters)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of averages and ``x0``."""
        return flat_dtype(self.tensors)

    @property
    def is_due(self) -> bool:
        """Whether it is time to start an average."""
        return self.in_flight is None and self.round.left <= self.delay

    @property
    def bounds(self) -> tuple[int, int]:
        """The range of the flat parameters that ``x0`` and ``outer`` hold here."""
        if self.shards == 1:
            return 0, self.numel
        size = -(-self.numel // self.shards)
        return min(self.shard * size, self.numel), min((self.shard + 1) * size, self.numel)

    def workspace(self, size: int) -> Tensor:
        """A flat buffer that is used again at every synchronisation; its content is undefined.

        Args:
            size: number of elements.

        Returns:
            ``[size]``.
        """
        if self._workspace is None or self._workspace.numel() < size:
            self._workspace = torch.empty(size, dtype=self.dtype, device=self.device)
        return self._workspace[:size]

    @torch.no_grad()
    def flat_parameters(self) -> Tensor:
        """A flat copy of the local parameters.

        Returns:
            ``[numel]``.
        """
        return pack_(torch.empty(self.numel, dtype=self.dtype, device=self.device), self.tensors)

    def take_snapshot(self) -> None:
        """Make the current parameters ``x0``."""
        low, high = self.bounds
        if self.x0 is None:
            flat = self.flat_parameters()
            self.x0 = flat if self.shards == 1 else flat[low:high].clone()
        else:
            self.x0.copy_(self.flat_parameters()[low:high])

    def full(self, part: Tensor) -> Tensor:
        """All elements of something laid out like ``x0``; gathers it if it is sharded.

        Args:
            part: what this process has of it, 1-D; all processes call it.

        Returns:
            ``[numel]``.
        """
        if self.shards == 1:
            return part
        size = -(-self.numel // self.shards)
        padded = part.new_zeros(size)
        padded[: part.numel()] = part
        out = part.new_empty(size * self.shards)
        all_gather_flat(out, padded)
        return out[: self.numel]

    def full_x0(self) -> Tensor:
        """``x0`` of all parameters, on their device.

        Returns:
            ``[numel]``.
        """
        assert self.x0 is not None
        return self.full(self.x0).to(self.device)

    def group_slices(self) -> list[tuple[slice, int]]:
        """Ranges of ``x0`` and the parameter group of the inner optimizer that each belongs to."""
        groups = {id(p): g for g, d in enumerate(self.optimizer.param_groups) for p in d["params"]}
        low, high = self.bounds
        ranges: list[tuple[slice, int]] = []
        at = 0
        for parameter in self.parameters:
            start, stop = max(at, low) - low, min(at + parameter.numel(), high) - low
            group = groups[id(parameter)]
            if start < stop and ranges and ranges[-1][1] == group:
                ranges[-1] = (slice(ranges[-1][0].start, stop), group)
            elif start < stop:
                ranges.append((slice(start, stop), group))
            at += parameter.numel()
        return ranges

    def learning_rates(self) -> list[Any]:
        """Current learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def rates_of_round(self) -> list[float]:
        """Learning rates of the last step, then means over the round, of each parameter group."""
        if not self.round.worked:
            return 2 * [float(lr) for lr in self.learning_rates()]
        groups = range(len(self.optimizer.param_groups))
        return [*map(self.round.last_lr, groups), *map(self.round.mean_lr, groups)]

    def slices(self) -> dict[int, slice]:
        """Where each parameter, by id, lies in the flat buffer."""
        found, at = {}, 0
        for parameter in self.parameters:
            found[id(parameter)] = slice(at, at + parameter.numel())
            at += parameter.numel()
        return found

    @torch.no_grad()
    def replace_parameters(self, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> None:
        """Follow an optimizer whose parameters have changed.

        What is known about a parameter stays; a new one starts with its value as ``x0`` (replaced
        by the average in the next outer step), zeros elsewhere.

        Args:
            names: of the parameters now.
            parameters: the same number, in the same order.
        """
        assert self.x0 is not None
        before = self.slices()
        held = {"x0": self.full_x0(), **{k: self.full(v) for k, v in self.outer.items()}}
        if self.error is not None:
            held["error"] = self.error
        self.names, self.parameters = list(names), list(parameters)
        after = self.slices()
        new = {key: torch.zeros_like(self.flat_parameters()) for key in held}
        new["x0"] = self.flat_parameters()
        for key, slot in after.items():
            if key in before:
                for name, flat in held.items():
                    new[name][slot] = flat[before[key]].to(self.device)
        self.fresh += [slot for key, slot in after.items() if key not in before]
        self.error = new.pop("error", None)
        low, high = self.bounds
        x0_device = self.x0.device
        self.x0 = new.pop("x0")[low:high].clone().to(x0_device)
        self.outer = {name: flat[low:high].clone() for name, flat in new.items()}


def build_units(
    module: nn.Module, optimizers: Sequence[Optimizer], options: Options
) -> list[SyncUnit]:
    """Make the units of a module: one for each fragment of each optimizer.

    Args:
        module: gives the parameters their names.
        optimizers: inner optimizers.
        options: what happens to their buffers, length of a round, delay and fragments.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    units = []
    for index, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not any(id(p) in names for p in parameters):
            continue  # Lightning's stand-in for a module without optimizers
        labels = [names.get(id(p), f"optimizer{index}.{i}") for i, p in enumerate(parameters)]
        owners = split_fragments(labels, [p.numel() for p in parameters], options.fragments)
        policy = choose_policy(options.buffers, optimizer, options.sync_every)
        for fragment in sorted(set(owners)):
            held = [i for i, owner in enumerate(owners) if owner == fragment]
            unit = SyncUnit(
                optimizer,
                index=index,
                fragment=fragment,
                names=[labels[i] for i in held],
                parameters=[parameters[i] for i in held],
                round=Round(options.sync_every),
                policy=policy,
                delay=options.delay,
            )
            units.append(unit)
    return units


@torch.no_grad()
def make_equal(units: Sequence[SyncUnit], device: torch.device, strategy: str) -> None:
    """Give all processes the parameters of rank 0 after a warm-up; warn if they had others.

    Args:
        units: of all optimizers.
        device: where the collectives run.
        strategy: name of the strategy, for the warning.
    """
    differ = torch.zeros(1, device=device)
    for unit in units:
        mine = unit.flat_parameters()
        first = mine.clone()
        dist.broadcast(first, src=0)
        if not torch.equal(mine, first):
            differ.fill_(1)
            unpack_(first, unit.tensors)
    if units:
        dist.all_reduce(differ, op=dist.ReduceOp.MAX)
    if differ:
        rank_zero_warn(
            f"{strategy}: the processes had different parameters at the end of the warm-up; all "
            "begin local steps with those of rank 0. Something has changed them without DDP."
        )


def check_same_parameters(units: Sequence[SyncUnit], rank: int, strategy: str) -> None:
    """Compare names, shapes and order of the parameters over processes; they are sent by position.

    Args:
        units: of all optimizers.
        rank: of this process, for the message.
        strategy: name of the strategy, for the message.

    Raises:
        ValueError: on every process, if they differ.
    """
    if not units:
        return
    lines = [
        f"{unit.index} {unit.fragment} {name} {tuple(p.shape)} {p.dtype}"
        for unit in units
        for name, p in zip(unit.names, unit.parameters, strict=True)
    ]
    digest = int.from_bytes(hashlib.sha256("\n".join(lines).encode()).digest()[:7], "big")
    ends = torch.tensor([digest, -digest], device=units[0].device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    if ends[0] != -ends[1]:
        raise InputError(
            f"{strategy}: rank {rank} has {len(lines)} parameters whose names, shapes, types or "
            "order differ from those of another rank; build the same model on all of them"
        )
