"""One synchronisation of a unit: collect, average, write back; the outer step comes in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lit_ssl.errors import InputRuntimeError, NonFiniteError
from lit_ssl.strategies.functional import mix_, rebase_, weighted_mean_
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.sync import buffers as ex
from lit_ssl.strategies.sync.averaging import Averager, InFlight, pack_, unpack_, views_of
from lit_ssl.strategies.sync.inner_optimizer import averaged_states, reset_
from lit_ssl.strategies.sync.units import SyncUnit
from lit_ssl.strategies.sync.unset import fill_in_, is_unset, may_be_unset, take_out_

__all__ = ["Synchroniser", "deciding_row"]

_APART = (
    "some processes validate, save or have ended the training, while others end a round: they have "
    "made unequal numbers of optimizer steps; let all step, and stop, together"
)
_PATIENCE = 3  # rounds in a row in which every process may have inf or NaN


def deciding_row(table: list[list[float]]) -> list[float]:
    """Row of the process whose period and learning rates all take: the first that counts.

    Args:
        table: a row for each process, in the averager's columns.
    """
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
        """Buffers and frozen tensors that are synchronised with a unit.

        Args:
            unit: the unit.
        """
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
        """Remember a unit's extras, to see which of them change in the round.

        Args:
            unit: whose round begins.
        """
        extras = self.extras_of(unit)
        unit.fingerprints = ex.fingerprints(extras)
        all_of_them = self.averager.skip_nonfinite
        unit.at_start = {
            x.name: x.tensor.clone()
            for x in extras.floats
            if all_of_them or not ex.is_finite(unit.fingerprints[x.name])
        }

    def is_level(self, unit: SyncUnit) -> bool:
        """Whether a unit is known to have the same values on all processes.

        Args:
            unit: the unit.
        """
        mixed = self.options.delay > 0 or bool(self.options.mix)
        return unit.round.worked == 0 and not mixed

    def follow_optimizer(self, unit: SyncUnit) -> None:
        """Notice parameters that were added to an optimizer, or taken from it.

        Args:
            unit: one of the optimizer's.
        """
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
        extras, unset = self._agree_on_extras(unit, len(states), is_look)
        tensors = unit.tensors + [x.tensor for x in extras] + states
        filled = sum(t.numel() for t in tensors)
        used = filled + sum(x.tensor.numel() for x in unset)
        size = used + self.averager.world_size * len(row)
        if is_look and unit.in_flight is not None:  # which is in the workspace
            flat = torch.empty(size, dtype=unit.dtype, device=unit.device)
        else:
            flat = unit.workspace(size)
        pack_(flat, tensors)
        snapshot = flat[:filled].clone() if self.options.delay > 0 and not is_look else None
        views = views_of(flat, tensors)[len(unit.parameters) :]
        ex.prepare_(views[: len(extras)], extras, self.averager.rank)
        if unset:
            of_flat = InFlight(flat, unit.numel, used, extras=extras, states=states, unset=unset)
            take_out_(*of_flat.parts()[1:], unset, unit.at_start, self.averager.rank)
        x0 = error = None
        if self.averager.codec is not None and not is_look:
            if unit.error is None:
                unit.error = torch.zeros(unit.numel, device=unit.device)
            x0, error = unit.full_x0(), unit.error
        flight = self.averager.start(flat, unit.numel, row, x0, error)
        flight.extras, flight.states, flight.unset = extras, states, unset
        flight.snapshot = snapshot
        return flight

    def _agree_on_extras(
        self, unit: SyncUnit, states: int, is_look: bool
    ) -> tuple[list[ex.Extra], list[ex.Extra]]:
        """The extras that changed on some process, and those of them that are not finite on some.

        Integer buffers get one value at once.
        """
        extras = self.extras_of(unit)
        if not (extras.floats or extras.integers or unit.policy == "average"):
            return [], []
        now = ex.fingerprints(extras)
        changed = [now[x.name] != unit.fingerprints.get(x.name) for x in extras.floats]
        unset = [
            is_new and may_be_unset(x, now[x.name], unit.at_start)
            for x, is_new in zip(extras.floats, changed, strict=True)
        ]
        mode, rank = self.options.sync_buffers, self.averager.rank
        (chosen, odd), (same, together) = ex.agree(
            extras, (changed, unset), (states, int(is_look)), mode, rank, unit.device
        )
        if not together:
            raise InputRuntimeError(_APART)
        if not same:
            raise InputRuntimeError(
                "buffers='average': the inner optimizer has not the same state tensors on all "
                "processes (a parameter got no gradient on some); use buffers='maintain'"
            )
        return chosen, odd

    @torch.no_grad()
    def receive(self, unit: SyncUnit) -> tuple[InFlight, Tensor]:
        """Wait for the average of a unit; nothing is applied yet.

        Args:
            unit: whose average is under way.

        Returns:
            The average, and the mean of the parameters, ``[unit.numel]``.

        Raises:
            NonFiniteError: on every process, if one has inf or NaN and that is an error.
        """
        flight = unit.in_flight
        assert flight is not None
        self.finish(flight)
        unit.in_flight = None
        self._refuse_nonfinite(unit, flight, "at the end of")
        unit.rates = deciding_row(flight.table)[Averager.RATES :]
        return flight, self._mean(unit, flight)

    @torch.no_grad()
    def look(self, unit: SyncUnit, row: Sequence[float]) -> InFlight:
        """Average a unit for others to see, with a row of numbers; nothing is applied.

        Args:
            unit: which is averaged as it is now.
            row: what this process tells, in the averager's columns.

        Returns:
            The average, which has arrived.

        Raises:
            NonFiniteError: on every process, if one has inf or NaN and that is an error.
        """
        flight = self.start_average(unit, row, [], is_look=True)
        self.finish(flight)
        self._refuse_nonfinite(unit, flight, "in")
        return flight

    def _refuse_nonfinite(self, unit: SyncUnit, flight: InFlight, when: str) -> None:
        bad = [rank for rank, row in enumerate(flight.table) if row[Averager.NONFINITE]]
        if bad and self.options.nonfinite == "error":
            raise NonFiniteError(
                f"inf or NaN in the loss, parameters, buffers or momentum of rank(s) {bad} {when} "
                f"round {unit.round.count + 1} of optimizer {unit.index} "
                f"({self._name_of_nonfinite(unit, flight, bad[0])}): lower the learning rate, "
                "or leave such processes out of the average with nonfinite='skip_rank'; a buffer "
                "that gets them on purpose belongs in module._ddp_params_and_buffers_to_ignore"
            )

    def finish(self, flight: InFlight) -> None:
        """Wait for an average, and read what all processes have told.

        Args:
            flight: the average.

        Raises:
            InputRuntimeError: on every process, if some end a round while others only look.
        """
        self.averager.finish(flight)
        looks = [row[Averager.PERIOD] == 0 for row in flight.table]
        if any(looks) and not all(looks):
            who = [rank for rank, is_look in enumerate(looks) if is_look]
            raise InputRuntimeError(f"{_APART}; there, rank(s) {who} look")

    def _name_of_nonfinite(self, unit: SyncUnit, flight: InFlight, rank: int) -> str:
        """The first tensor of a process with inf or NaN; all processes must call it."""
        found = "the loss"  # where all of these are finite
        if rank == self.averager.rank:
            named = list(zip(unit.names, unit.tensors, strict=True))
            named += [
                (x.name, x.tensor.masked_fill(is_unset(x, unit.at_start), 0)) for x in flight.extras
            ]
            named += [("momentum", state) for state in flight.states]
            found = next((name for name, t in named if not torch.isfinite(t).all()), found)
        answer = [found]
        dist.broadcast_object_list(answer, src=rank, device=unit.device)
        return f"{answer[0]} of rank {rank}"

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
        unit.fruitless = unit.fruitless if flight.others_weight == 0 else 0
        if flight.others_weight > 0:
            self.write_others(unit, flight, snapshot)
        else:
            self._go_back(unit)
        if unit.policy == "reset" or broken:
            reset_(unit.optimizer, unit.parameters)
        self.take_fingerprints(unit)
        if self.options.delay > 0:  # what moved on during the delay is not level even now
            for extra in flight.extras:
                unit.fingerprints.pop(extra.name, None)

    def _go_back(self, unit: SyncUnit) -> None:
        """No process has finite numbers: take extras, as the parameters, from the round's start.

        Raises:
            NonFiniteError: on every process, if this is the third time in a row.
        """
        unit.fruitless += 1
        what = f"every process had inf or NaN at the end of round {unit.round.count + 1}"
        if unit.fruitless == _PATIENCE:
            raise NonFiniteError(
                f"{what}, the {_PATIENCE}rd in a row, so that training stands still: lower the "
                "learning rate, or look for inf or NaN in the data"
            )
        rank_zero_warn(f"{what} of optimizer {unit.index}: all go back to the start of the round")
        for extra in self.extras_of(unit).floats:
            if extra.name in unit.at_start:
                extra.tensor.copy_(unit.at_start[extra.name])

    def write_others(
        self, unit: SyncUnit, flight: InFlight, snapshot: Tensor | None = None
    ) -> None:
        """Write back what was averaged besides the parameters; with a snapshot, add progress.

        Args:
            unit: which was averaged.
            flight: the average, which has arrived.
            snapshot: values of parameters and others when the average was sent, flat; what they
                have changed by since is added. None: the averages take their place.
        """
        others = flight.others
        values, unset, counts = flight.parts()
        views = views_of(values, others)
        count, weight = len(flight.extras), flight.others_weight
        for value, number, extra in zip(unset, counts, flight.unset, strict=True):
            if extra.kind != "first":
                value.mul_(torch.where(number > 0, weight / number, 1))
        ex.restore_(views[:count], flight.extras, weight, flight.table[0][Averager.WEIGHT])
        fill_in_(unset, counts, flight.unset, unit.at_start)
        for view in views[count:]:
            view.div_(weight)
        if snapshot is not None:
            means = [value.clone() for value in unset]
            now = pack_(torch.empty_like(values), others)
            values.copy_(rebase_(now, values, snapshot[flight.numel :]))
            for value, mean in zip(unset, means, strict=True):  # no progress from what was unset
                value.copy_(torch.where(torch.isfinite(value), value, mean))
            for view, extra in zip(views, flight.extras, strict=False):
                if extra.kind == "variance":
                    view.clamp_(min=0)
        unpack_(values, others)

    def average_parameters(self, unit: SyncUnit, group: Any, size: int) -> None:
        """Average a unit's parameters alone, over ``size`` processes, in the middle of a round.

        Args:
            unit: the unit.
            group: the process group; None: all processes.
            size: number of processes in it.
        """
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
        """Continue with an average that was under way when a checkpoint was saved.

        Args:
            unit: the unit.
            state: of the average, as it was saved; None: there was none.
            snapshot: values when it was sent, flat; None: there was none.
        """
        if state is None or snapshot is None:
            return
        flight = InFlight(state["flat"].to(unit.device), unit.numel, state["table_at"])
        found = {x.name: x for x in self.extras_of(unit).floats}
        flight.extras = [found[name] for name in state["extras"]]
        states = averaged_states(unit.optimizer, unit.parameters)
        flight.states = states if unit.policy == "average" else []
        flight.snapshot = snapshot.to(unit.device)
        flight.unset = [found[name] for name in state.get("unset", ())]
        flight.is_heeded = True  # the job that was asked to stop has ended
        unit.in_flight = flight
