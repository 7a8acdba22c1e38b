"""One synchronisation of a unit: collect, average, write back; the outer step comes in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputRuntimeError
from lit_ssl.strategies.functional import mix_, rebase_, weighted_mean_
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.sync import buffers as ex
from lit_ssl.strategies.sync.averaging import Averager, InFlight, pack_, unpack_, views_of
from lit_ssl.strategies.sync.inner_optimizer import averaged_states, reset_
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = ["Synchroniser", "deciding_row"]


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

    def take_fingerprints(self, unit: SyncUnit) -> None:
        """Remember a unit's extras, to see which of them change in the round."""
        unit.fingerprints = ex.fingerprints(self.extras_of(unit))

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

    @torch.no_grad()
    def start(self, unit: SyncUnit, row: Sequence[float]) -> None:
        """Begin the synchronisation of a unit.

        Args:
            unit: what to synchronise.
            row: numbers of this process, in the averager's columns.
        """
        self.follow_optimizer(unit)
        states = averaged_states(unit.optimizer, unit.parameters)
        states = states if unit.policy == "average" else []
        unit.in_flight = self.start_average(unit, row, states)

    def start_average(
        self, unit: SyncUnit, row: Sequence[float], states: list[Tensor], is_look: bool = False
    ) -> InFlight:
        """Begin an average of a unit and its extras.

        Args:
            unit: what to average.
            row: numbers of this process, in the averager's columns.
            states: buffers of the inner optimizer, to be averaged too.
            is_look: leave alone what belongs to the training.
        """
        extras = self._agree_on_extras(unit, len(states))
        tensors = unit.tensors + [x.tensor for x in extras] + states
        used = sum(t.numel() for t in tensors)
        size = used + self.averager.world_size * len(row)
        if is_look:
            flat = torch.empty(size, dtype=unit.dtype, device=unit.device)
        else:
            flat = unit.workspace(size)
        pack_(flat, tensors)
        snapshot = flat[:used].clone() if self.options.delay > 0 and not is_look else None
        views = views_of(flat, tensors)[len(unit.parameters) :]
        ex.prepare_(views[: len(extras)], extras, self.averager.rank)
        x0 = error = None
        if self.averager.codec is not None and not is_look:
            if unit.error is None:
                unit.error = torch.zeros(unit.numel, device=unit.device)
            x0, error = unit.full_x0(), unit.error
        flight = self.averager.start(flat, unit.numel, row, x0, error)
        flight.extras, flight.states, flight.snapshot = extras, states, snapshot
        return flight

    def _agree_on_extras(self, unit: SyncUnit, states: int) -> list[ex.Extra]:
        """The extras that changed on some process; integer buffers get one value at once."""
        extras = self.extras_of(unit)
        if not (extras.floats or extras.integers or unit.policy == "average"):
            return []
        now = ex.fingerprints(extras)
        changed = [now[x.name] != unit.fingerprints.get(x.name) for x in extras.floats]
        mode, rank = self.options.sync_buffers, self.averager.rank
        chosen, same = ex.agree(extras, changed, states, mode, rank, unit.device)
        if not same:
            raise InputRuntimeError(
                "buffers='average': the inner optimizer has not the same state tensors on all "
                "processes (a parameter got no gradient on some); use buffers='maintain'"
            )
        return chosen

    @torch.no_grad()
    def receive(self, unit: SyncUnit) -> tuple[InFlight, Tensor]:
        """Wait for the average of a unit; nothing is applied yet.

        Returns:
            The average, and the mean of the parameters, ``[unit.numel]``.

        Raises:
            RuntimeError: on every process, if one has inf or NaN and that is an error.
        """
        flight = unit.in_flight
        assert flight is not None
        self.averager.finish(flight)
        unit.in_flight = None
        bad = [rank for rank, row in enumerate(flight.table) if row[Averager.NONFINITE]]
        if bad and self.options.nonfinite == "error":
            raise RuntimeError(
                f"inf or NaN in the parameters, buffers or momentum of rank(s) {bad} at the end of "
                f"round {unit.round.count + 1} of optimizer {unit.index}: lower the learning rate, "
                "or leave such processes out of the average with nonfinite='skip_rank'"
            )
        unit.rates = deciding_row(flight.table)[Averager.RATES :]
        return flight, self._mean(unit, flight)

    def _mean(self, unit: SyncUnit, flight: InFlight) -> Tensor:
        """Average of the parameters from their sum; ``x0`` if no process counts."""
        mean = flight.flat[: flight.numel]
        if flight.weight == 0:
            return mean.copy_(unit.full_x0())
        weighted_mean_(mean, flight.weight)
        if self.averager.codec is not None:
            torch.sub(unit.full_x0(), mean, out=mean)
        low, high = unit.bounds
        for slot in unit.fresh:
            part = slice(max(slot.start, low), min(slot.stop, high))
            if part.start < part.stop and unit.x0 is not None:
                unit.x0[part.start - low : part.stop - low] = mean[part].to(unit.x0.device)
        unit.fresh = []
        return mean

    @torch.no_grad()
    def write_back(self, unit: SyncUnit, flight: InFlight, new: Tensor) -> None:
        """Go on with new parameters, averaged buffers and frozen tensors, and reset momentum.

        Args:
            unit: what was synchronised.
            flight: its average.
            new: parameters, ``[unit.numel]``.
        """
        broken = bool(flight.table[self.averager.rank][Averager.NONFINITE])
        snapshot = None if broken else flight.snapshot
        if self.options.mix is not None and not broken:
            new = mix_(unit.flat_parameters(), new, self.options.mix)
        elif snapshot is not None:
            new = rebase_(unit.flat_parameters(), new, snapshot[: unit.numel])
        unpack_(new, unit.tensors)
        if flight.others_weight > 0:
            self.write_others(flight, snapshot)
        if unit.policy == "reset" or broken:
            reset_(unit.optimizer, unit.parameters)
        self.take_fingerprints(unit)
        if self.options.delay > 0:  # what moved on during the delay is not level even now
            for extra in flight.extras:
                unit.fingerprints.pop(extra.name, None)

    def write_others(self, flight: InFlight, snapshot: Tensor | None = None) -> None:
        """Write back what was averaged besides the parameters; with a snapshot, add progress."""
        others = flight.others
        values = flight.flat[flight.numel : flight.table_at]
        views = views_of(values, others)
        count, weight = len(flight.extras), flight.others_weight
        ex.restore_(views[:count], flight.extras, weight, flight.table[0][Averager.WEIGHT])
        for view in views[count:]:
            view.div_(weight)
        if snapshot is not None:
            now = pack_(torch.empty_like(values), others)
            values.copy_(rebase_(now, values, snapshot[flight.numel :]))
            for view, extra in zip(views, flight.extras, strict=False):
                if extra.kind == "variance":
                    view.clamp_(min=0)
        unpack_(values, others)

    def average_parameters(self, unit: SyncUnit, group: Any, size: int) -> None:
        """Average a unit's parameters alone, over ``size`` processes, in the middle of a round."""
        unpack_(self.averager.mean(unit.tensors, group, size), unit.tensors)

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

    # averages under way

    def wait(self) -> None:
        """Finish the communication that is under way; nothing is applied yet."""
        for unit in self.units:
            if unit.in_flight is not None:
                self.averager.wait(unit.in_flight)

    def restore_in_flight(
        self, unit: SyncUnit, state: Mapping[str, Any] | None, snapshot: Tensor | None
    ) -> None:
        """Continue with an average that was under way when a checkpoint was saved."""
        if state is None or snapshot is None:
            return
        flight = InFlight(state["flat"].to(unit.device), unit.numel, state["table_at"])
        found = {x.name: x for x in self.extras_of(unit).floats}
        flight.extras = [found[name] for name in state["extras"]]
        states = averaged_states(unit.optimizer, unit.parameters)
        flight.states = states if unit.policy == "average" else []
        flight.snapshot = snapshot.to(unit.device)
        flight.is_heeded = True  # the job that was asked to stop has ended
        unit.in_flight = flight
