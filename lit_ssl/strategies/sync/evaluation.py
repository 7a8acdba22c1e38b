"""What is validated and saved: averages that are looked at without touching the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_ssl.strategies.sync import buffers as ex
from lit_ssl.strategies.sync.averaging import Averager, pack_, unpack_, views_of
from lit_ssl.strategies.sync.synchroniser import Synchroniser

__all__ = ["Evaluation", "Recalibration"]


class Evaluation:
    """Exchanges the local values in the module for others, and puts them back.

    Args:
        engine: runs the synchronisations.
    """

    def __init__(self, engine: Synchroniser) -> None:
        self.engine = engine
        self.recalibration = Recalibration(engine.options.bn_recalibration_batches)
        self._aside: list[tuple[Tensor, Tensor]] | None = None  # with their values that are not in

    def begin(self, context: AbstractContextManager[Any]) -> None:
        """Put in what is to be validated.

        Args:
            context: precision in which BatchNorm statistics are estimated.
        """
        mode = self.engine.options.eval_params
        if mode == "average":
            self._put_in_average()
        elif mode == "slow":
            self._put_in_slow()
        if not self.recalibration.batches:
            return
        held = {tensor.data_ptr() for tensor, _ in self._aside or []}
        statistics = [b for norm in _norms(self.engine.module) for b in norm.buffers()]
        own = [(t, t.clone()) for t in statistics if t.data_ptr() not in held]
        self._aside = [*(self._aside or []), *own]
        with context:
            self.recalibration.estimate_(self.engine.module)
        if mode != "local":
            self._pool(statistics)

    def end(self) -> None:
        """Put the local values back."""
        self._exchange()
        self._aside = None

    def average(self, state_of: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The average, or what is being validated, as a state of the module.

        Args:
            state_of: gives the state dict of the module as it is.

        Returns:
            The state; tensors that are the same in the training share its memory.
        """
        is_validating = self._aside is not None
        if not is_validating:
            self._put_in_average()
        exchanged = self._aside or []
        try:
            state = state_of()
            # what is put aside gets the average when the local values go back: no other copy
            taken = {} if is_validating else {_place(t): aside for t, aside in exchanged}
            memory = {tensor.untyped_storage().data_ptr() for tensor, _ in exchanged}
            for name, value in state.items():
                if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in memory:
                    aside = taken.get(_place(value))
                    state[name] = value.clone() if aside is None else aside
            return state
        finally:
            if not is_validating:
                self.end()

    @contextmanager
    def local(self) -> Iterator[None]:
        """The local values, during a validation too."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def keep_average(self) -> None:
        """Give up the local values."""
        self._put_in_average()
        self._aside = None

    @torch.no_grad()
    def _exchange(self) -> None:
        for tensor, aside in self._aside or []:
            now = tensor.clone()
            tensor.copy_(aside)
            aside.copy_(now)

    @torch.no_grad()
    def _put_in_average(self) -> None:
        self._aside = aside = []  # from now on, so that an error puts back what is already in
        for unit in self.engine.units:
            if self.engine.is_level(unit):
                continue
            integers = list(self.engine.extras_of(unit).integers.values())
            aside += [(t, t.clone()) for t in integers]
            # as long as that of a synchronisation: a process that is in one must hear of the look
            row = [1.0] + [0.0] * (Averager.RATES - 1 + len(unit.rates_of_round()))
            flight = self.engine.look(unit, row)
            aside += [(t, t.clone()) for t in unit.tensors + flight.others]
            if flight.weight > 0 and flight.others_weight > 0:
                unpack_(flight.flat[: unit.numel].div_(flight.weight), unit.tensors)
                self.engine.write_others(unit, flight)

    @torch.no_grad()
    def _put_in_slow(self) -> None:
        """``x0`` of all units, without communication unless it is sharded."""
        self._aside = [(t, t.clone()) for unit in self.engine.units for t in unit.tensors]
        for unit in self.engine.units:
            unpack_(unit.full_x0(), unit.tensors)

    @torch.no_grad()
    def _pool(self, statistics: Sequence[Tensor]) -> None:
        """Pool BatchNorm statistics of all processes, in place; integers are left alone."""
        ids, averager = {id(t) for t in statistics}, self.engine.averager
        found = ex.collect(self.engine.module, set(), "average", frozen=False).floats
        extras = [x for x in found if id(x.tensor) in ids]
        tensors = [x.tensor for x in extras]
        if not tensors:
            return
        flat = torch.empty(sum(t.numel() for t in tensors), device=tensors[0].device)
        views = views_of(pack_(flat, tensors), tensors)
        ex.prepare_(views, extras, averager.rank)
        for work in averager.reduce(flat):
            work.wait()
        ex.restore_(views, extras, averager.world_size)
        unpack_(flat, tensors)


class Recalibration:
    """Keeps batches and runs them through a module in order to count its BatchNorm statistics.

    A module may say how by ``recalibration_step(batch)``; else it is called with the batch, or its
    first part.

    Args:
        count: batches to keep.
    """

    def __init__(self, count: int) -> None:
        self.batches: deque[Any] = deque(maxlen=count)

    def remember(self, batch: Any) -> None:
        """Keep a batch (no copy) in place of the oldest one.

        Args:
            batch: of the training, on the device.
        """
        self.batches.append(batch)

    @torch.no_grad()
    def estimate_(self, module: nn.Module) -> None:
        """Replace running statistics by the mean over the kept batches, with all else as it is.

        Args:
            module: with BatchNorm layers; its ``recalibration_step(batch)``, if it has one, does
                the passes.
        """
        norms = _norms(module)
        before = [(norm.training, norm.momentum) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of all batches
            norm.train()
        try:
            for batch in self.batches:
                own = getattr(module, "recalibration_step", None)
                if own is not None:
                    own(batch)
                else:
                    module(batch[0] if isinstance(batch, list | tuple) else batch)
        finally:
            for norm, (training, momentum) in zip(norms, before, strict=True):
                norm.momentum = momentum
                norm.train(training)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies in memory, and how."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _norms(module: nn.Module) -> list[_BatchNorm]:
    """The module's BatchNorm layers that have running statistics."""
    layers = (m for m in module.modules() if isinstance(m, _BatchNorm))
    return [m for m in layers if m.running_mean is not None]
