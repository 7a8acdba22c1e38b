"""Runs the synchronisations of all units: collect, average, outer step, write back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.strategies.functional import mix_, rebase_, weighted_mean_
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.sync import buffers as ex
from lit_ssl.strategies.sync.averaging import Averager, InFlight, pack_, unpack_, views_of
from lit_ssl.strategies.sync.inner_optimizer import averaged_states, reset_
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = ["Swap", "Synchroniser", "deciding_row"]

OuterStep = Callable[[SyncUnit, Tensor], Tensor]
Swap = list[tuple[Tensor, Tensor]]  # tensors in the module and their local values


@dataclass
class _Packed:
    """A flat buffer and what lies in it after the parameters."""

    flat: Tensor
    extras: list[ex.Extra]
    states: list[Tensor]
    snapshot: Tensor | None = None

    @property
    def others(self) -> list[Tensor]:
        return [x.tensor for x in self.extras] + self.states


def deciding_row(table: list[list[float]]) -> list[float]:
    """Row of the process whose period and learning rates all take: the first that counts."""
    return next((row for row in table if row[Averager.WEIGHT] > 0), table[0])


class Synchroniser:
    """Averages the units of a module over processes.

    Args:
        module: the LightningModule.
        units: what is synchronised together.
        averager: does the communication.
        options: what is synchronised, and how.
    """

    def __init__(
        self, module: nn.Module, units: Sequence[SyncUnit], averager: Averager, options: Options
    ) -> None:
        self.module = module
        self.units = list(units)
        self.averager = averager
        self.options = options
        self._packed: dict[int, _Packed] = {}  # by unit, while its average is in flight
        self._owner: dict[str, int] = {}

    # what belongs to a unit

    def extras_of(self, unit: SyncUnit) -> ex.Extras:
        """Buffers and frozen tensors that are synchronised with a unit."""
        owned = {id(p) for u in self.units for p in u.parameters}
        options = self.options
        found = ex.collect(self.module, owned, options.sync_buffers, options.sync_frozen)
        names = [x.name for x in found.floats] + list(found.integers)
        if any(name not in self._owner for name in names):
            self._owner = ex.assign_by_prefix(names, [u.names for u in self.units])
        own, owner = self.units.index(unit), self._owner
        return ex.Extras(
            [x for x in found.floats if owner[x.name] == own],
            {name: t for name, t in found.integers.items() if owner[name] == own},
        )

    def is_level(self, unit: SyncUnit) -> bool:
        """Whether a unit is known to have the same values on all processes."""
        mixed = self.options.delay > 0 or bool(self.options.mix)
        return unit.round.worked == 0 and not mixed

    def follow_optimizer(self, unit: SyncUnit) -> None:
        """Notice parameters that were added to an optimizer, or taken from it."""
        units = [u for u in self.units if u.optimizer is unit.optimizer]
        current = [p for group in unit.optimizer.param_groups for p in group["params"]]
        owner = {id(p): u for u in units for p in u.parameters}
        known = len(current) == len(owner) and all(id(p) in owner for p in current)
        if known or any(u.in_flight is not None for u in units):
            return
        names = {id(p): name for name, p in self.module.named_parameters()}
        for u in units:
            mine = [p for p in current if owner.get(id(p), units[-1]) is u]
            u.replace_parameters([names.get(id(p), "?") for p in mine], mine)

    # one synchronisation

    def _pack(self, unit: SyncUnit, columns: int, use_workspace: bool) -> _Packed:
        """Copy a unit and its extras into a flat buffer, ready to be summed."""
        extras, chosen = self.extras_of(unit), list[ex.Extra]()
        states = averaged_states(unit.optimizer, unit.parameters)
        states = states if unit.policy == "average" and use_workspace else []
        if extras.floats or extras.integers or unit.policy == "average":
            now = ex.fingerprints(extras)
            changed = [now[x.name] != unit.fingerprints.get(x.name) for x in extras.floats]
            mode, rank = self.options.sync_buffers, self.averager.rank
            chosen, same = ex.agree(extras, changed, len(states), mode, rank, unit.device)
            if not same:
                raise RuntimeError(
                    "buffers='average': the inner optimizer has not the same state tensors on all "
                    "processes (a parameter got no gradient on some); use buffers='maintain'"
                )
        tensors = unit.tensors + [x.tensor for x in chosen] + states
        used = sum(t.numel() for t in tensors)
        size = used + self.averager.world_size * columns
        if use_workspace:
            flat = unit.workspace(size)
        else:
            flat = torch.empty(size, dtype=unit.dtype, device=unit.device)
        pack_(flat, tensors)
        delayed = use_workspace and self.options.delay > 0
        snapshot = flat[:used].clone() if delayed else None
        views = views_of(flat, tensors)[len(unit.parameters) :]
        ex.prepare_(views[: len(chosen)], chosen, self.averager.rank)
        return _Packed(flat, chosen, states, snapshot)

    @torch.no_grad()
    def start(self, unit: SyncUnit, row: Sequence[float]) -> None:
        """Begin the synchronisation of a unit.

        Args:
            unit: what to synchronise.
            row: numbers of this process, in the averager's columns.
        """
        self.follow_optimizer(unit)
        packed = self._pack(unit, len(row), use_workspace=True)
        compress = self.averager.codec is not None
        if compress and unit.error is None:
            unit.error = torch.zeros(unit.numel, device=unit.device)
        x0 = unit.full_x0() if compress else None
        unit.in_flight = self.averager.start(packed.flat, unit.numel, row, x0, unit.error)
        self._packed[id(unit)] = packed

    def wait(self) -> None:
        """Finish the communication that is under way; nothing is applied yet."""
        for unit in self.units:
            if unit.in_flight is not None:
                self.averager.wait(unit.in_flight)

    def forget(self) -> None:
        """Drop averages that are under way, without waiting for them."""
        for unit in self.units:
            unit.in_flight = None
        self._packed.clear()

    @torch.no_grad()
    def finish(self, unit: SyncUnit, outer_step: OuterStep) -> list[list[float]]:
        """Complete the synchronisation of a unit.

        Args:
            unit: what to synchronise.
            outer_step: called with the unit and the average; gives the new parameters.

        Returns:
            The table of the averager: a row for each process.

        Raises:
            RuntimeError: on every process, if one has inf or NaN and that is an error.
        """
        flight = unit.in_flight
        assert flight is not None
        table, weight, world_weight = self.averager.finish(flight)
        packed = self._packed.pop(id(unit))
        unit.in_flight = None
        self._check_finite(unit, table)
        unit.rates = deciding_row(table)[Averager.RATES :]
        broken = bool(table[self.averager.rank][Averager.NONFINITE])
        snapshot = None if broken else packed.snapshot
        mean = self._mean(unit, flight, weight)
        new = outer_step(unit, mean) if weight > 0 else mean
        if self.options.mix is not None and not broken:
            new = mix_(unit.flat_parameters(), new, self.options.mix)
        elif snapshot is not None:
            new = rebase_(unit.flat_parameters(), new, snapshot[: unit.numel])
        unpack_(new, unit.tensors)
        if world_weight > 0:
            self._write_others(flight, packed, world_weight, table, snapshot)
        if unit.policy == "reset" or broken:
            reset_(unit.optimizer, unit.parameters)
        unit.fingerprints = ex.fingerprints(self.extras_of(unit))
        if self.options.delay > 0:  # what moved on during the delay is not level even now
            for extra in packed.extras:
                unit.fingerprints.pop(extra.name, None)
        return table

    def _check_finite(self, unit: SyncUnit, table: list[list[float]]) -> None:
        bad = [rank for rank, row in enumerate(table) if row[Averager.NONFINITE]]
        if bad and self.options.nonfinite == "error":
            raise RuntimeError(
                f"inf or NaN in the parameters, buffers or momentum of rank(s) {bad} at the end of "
                f"round {unit.round.count + 1} of optimizer {unit.index}: lower the learning rate, "
                "or leave such processes out of the average with nonfinite='skip_rank'"
            )

    def _mean(self, unit: SyncUnit, flight: InFlight, weight: float) -> Tensor:
        """Average of the parameters from their sum; ``x0`` if no process counts."""
        mean = flight.flat[: flight.numel]
        if weight == 0:
            return mean.copy_(unit.full_x0())
        weighted_mean_(mean, weight)
        if self.averager.codec is not None:
            torch.sub(unit.full_x0(), mean, out=mean)
        low, high = unit.bounds
        for slot in unit.fresh:
            part = slice(max(slot.start, low), min(slot.stop, high))
            if part.start < part.stop and unit.x0 is not None:
                unit.x0[part.start - low : part.stop - low] = mean[part].to(unit.x0.device)
        unit.fresh = []
        return mean

    def _write_others(
        self,
        flight: InFlight,
        packed: _Packed,
        weight: float,
        table: list[list[float]],
        snapshot: Tensor | None = None,
    ) -> None:
        values = flight.flat[flight.numel : flight.table_at]
        views = views_of(values, packed.others)
        count = len(packed.extras)
        ex.restore_(views[:count], packed.extras, weight, table[0][Averager.WEIGHT])
        for view in views[count:]:
            view.div_(weight)
        if snapshot is not None:
            now = pack_(torch.empty_like(values), packed.others)
            values.copy_(rebase_(now, values, snapshot[flight.numel :]))
            for view, extra in zip(views, packed.extras, strict=False):
                if extra.kind == "variance":
                    view.clamp_(min=0)
        unpack_(values, packed.others)

    def average_parameters(self, unit: SyncUnit, group: Any, size: int) -> None:
        """Average a unit's parameters alone, over ``size`` processes, in the middle of a round."""
        unpack_(self.averager.mean(unit.tensors, group, size), unit.tensors)

    # looks at the average without touching the training

    @torch.no_grad()
    def swap_in_average(self) -> Swap:
        """Put the average of all processes into the module; returns what to put back."""
        swap: Swap = []
        for unit in self.units:
            if self.is_level(unit):
                continue
            integers = list(self.extras_of(unit).integers.values())
            swap += [(t, t.clone()) for t in integers]
            row = [1.0] + [0.0] * (Averager.RATES - 1)
            packed = self._pack(unit, len(row), use_workspace=False)
            flight = self.averager.start(packed.flat, unit.numel, row)
            table, weight, world_weight = self.averager.finish(flight)
            swap += [(t, t.clone()) for t in unit.tensors + packed.others]
            if weight > 0 and world_weight > 0:
                unpack_(flight.flat[: unit.numel].div_(weight), unit.tensors)
                self._write_others(flight, packed, world_weight, table)
        return swap

    @torch.no_grad()
    def pool(self, statistics: Sequence[Tensor]) -> None:
        """Pool BatchNorm statistics of all processes, in place; integers are left alone."""
        ids = {id(t) for t in statistics}
        found = ex.collect(self.module, set(), "average", frozen=False).floats
        extras = [x for x in found if id(x.tensor) in ids]
        tensors = [x.tensor for x in extras]
        if not tensors:
            return
        flat = torch.empty(sum(t.numel() for t in tensors), device=tensors[0].device)
        views = views_of(pack_(flat, tensors), tensors)
        ex.prepare_(views, extras, self.averager.rank)
        for work in self.averager.reduce(flat):
            work.wait()
        ex.restore_(views, extras, self.averager.world_size)
        unpack_(flat, tensors)

    @torch.no_grad()
    def swap_in_slow(self) -> Swap:
        """Put ``x0`` of all units into the module, without communication unless it is sharded."""
        swap: Swap = []
        for unit in self.units:
            swap += [(t, t.clone()) for t in unit.tensors]
            unpack_(unit.full_x0(), unit.tensors)
        return swap

    @staticmethod
    @torch.no_grad()
    def exchange(swap: Swap) -> None:
        """Exchange the values in the module for those that were put aside."""
        for tensor, aside in swap:
            now = tensor.clone()
            tensor.copy_(aside)
            aside.copy_(now)

    # averages under way, in checkpoints

    def snapshot_of(self, unit: SyncUnit) -> Tensor | None:
        """Local values when the unit's average was started, if it is under way."""
        packed = self._packed.get(id(unit))
        return None if packed is None else packed.snapshot

    def in_flight_state(self, unit: SyncUnit) -> dict[str, Any] | None:
        """The unit's average that is under way, after :meth:`wait`."""
        if unit.in_flight is None:
            return None
        flight, packed = unit.in_flight, self._packed[id(unit)]
        names = [x.name for x in packed.extras]
        return {"flat": flight.flat, "table_at": flight.table_at, "extras": names}

    def restore_in_flight(
        self, unit: SyncUnit, state: Mapping[str, Any] | None, snapshot: Tensor | None
    ) -> None:
        """Continue with an average that was under way when a checkpoint was saved."""
        if state is None or snapshot is None:
            return
        flat = state["flat"].to(unit.device)
        found = {x.name: x for x in self.extras_of(unit).floats}
        extras = [found[name] for name in state["extras"]]
        states = averaged_states(unit.optimizer, unit.parameters)
        states = states if unit.policy == "average" else []
        unit.in_flight = InFlight(flat, unit.numel, state["table_at"], waited=True)
        self._packed[id(unit)] = _Packed(flat, extras, states, snapshot.to(unit.device))

    @torch.no_grad()
    def drift(self) -> float:
        """RMS distance of the processes' parameters from their mean."""
        squares, count = 0.0, 0
        for unit in self.units:
            count += unit.numel
            if not self.is_level(unit):
                distance = self.averager.mean(unit.tensors).sub_(unit.flat_parameters())
                total = distance.double().square().sum().view(1)
                squares += float(self.averager.mean([total]))
        return (squares / max(1, count)) ** 0.5
