"""A device that lives on a CPU, on which every wait of the host can be seen and counted.

Its tensors are on torch's ``meta`` device; the numbers behind them are kept, and computed, on the
CPU. So code for accelerators runs as it would there, and what would make the host wait for a GPU is
noted: values that are read (``item``, ``bool``, ``tolist``, copies to the host), operations whose
result has a size that depends on values (``nonzero``, boolean masks, ``unique``), solvers that
check their result, and uploads that are not ``non_blocking``, numbers that become tensors among
them. All of these stop ``torch.cuda.set_sync_debug_mode("error")``, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

META = torch.device("meta")
HOST = torch.device("cpu")
_ROOT = Path(__file__).resolve().parents[1]
_HERE = {Path(__file__).name, "host_syncs.py"}
_SOLVERS = ("_linalg_eigh", "_linalg_svd", "linalg_inv_ex", "linalg_cholesky_ex", "_linalg_det")
_SIZED = (
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
)  # fmt: skip
_SHAPES = ("squeeze_", "unsqueeze_", "t_", "transpose_", "as_strided_", "detach_")
_INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index_put")
_NUMBERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


class Sync(NamedTuple):
    """A place where the host waits.

    Attributes:
        what: kind of the wait.
        where: ``path:line`` of the innermost frames of this library and of Lightning, "" where
            neither called.
        step: number of the training step of this fit, from 0; −1 outside of all.
    """

    what: str
    where: str
    step: int


class _Generator(torch.Generator):
    """A generator of random numbers, which may say that it is the device's."""

    def __new__(cls, device: Any = "cpu") -> Any:
        """Make one of the host's in any case."""
        made = super().__new__(cls)
        made.place = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it was asked for."""
        return self.place


class CountingDevice:
    """Notes the waits of what runs inside :meth:`counting`.

    Attributes:
        syncs: all that were noted.
        step: the training step that runs; :class:`StepCounter` sets it.
    """

    def __init__(self) -> None:
        self.syncs: list[Sync] = []
        self.step = -1

    @contextmanager
    def counting(self) -> Iterator[CountingDevice]:
        """While this is open, reading from the meta device works, and is noted."""
        with ExitStack() as stack:
            for target, name, value in (
                (torch, "Generator", _Generator),
                (torch, "autocast", _autocast(torch.autocast)),
                (torch.amp, "autocast", _autocast(torch.amp.autocast)),
                (torch, "is_autocast_enabled", _of_host(torch.is_autocast_enabled)),
                (torch, "get_autocast_dtype", _of_host(torch.get_autocast_dtype)),
                (torch.amp, "is_autocast_available", _of_host(torch.amp.is_autocast_available)),
            ):
                stack.enter_context(mock.patch.object(target, name, value))
            stack.enter_context(_Functions(self))
            stack.enter_context(_Operations(self))
            yield self

    def note(self, what: str) -> None:
        """Note a wait, with the place that called."""
        own, foreign = "", ""
        frame = sys._getframe(1)
        while frame is not None and not (own and foreign):
            path = Path(frame.f_code.co_filename)
            place = f"{path.name}:{frame.f_lineno}"
            if _ROOT in path.parents and ".venv" not in path.parts:
                if path.name not in _HERE and not own:
                    own = f"{path.relative_to(_ROOT)}:{frame.f_lineno}"
            elif "lightning" in path.parts and not foreign and not own:
                foreign = f"lightning {place}"
            frame = frame.f_back  # type: ignore[assignment]
        self.syncs.append(Sync(what, " < ".join(filter(None, [foreign, own])), self.step))


class _Functions(TorchFunctionMode):
    """Notes numbers that become tensors of the device, which no operation shows."""

    def __init__(self, device: CountingDevice) -> None:
        super().__init__()
        self.counted = device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _NUMBERS:
            value = args[1] if function is Tensor.new_tensor else (args or [kwargs.get("data")])[0]
            place = kwargs.get("device")
            if place is None and function is Tensor.new_tensor:
                place = args[0].device
            if place is not None and torch.device(place) == META and not isinstance(value, Tensor):
                self.counted.note("upload of a number")
                made = function(*args, **{**kwargs, "device": HOST})
                return made.to(META, non_blocking=True)
        return function(*args, **kwargs)


class _Memory:
    """The numbers behind tensors of the device: one storage of the host for each of theirs."""

    def __init__(self) -> None:
        self.host: dict[int, tuple[StorageWeakRef, torch.UntypedStorage]] = {}
        self.device: dict[int, StorageWeakRef] = {}

    def on_host(self, tensor: Tensor) -> Tensor:
        """The tensor of the host with the numbers of one of the device."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.host:  # made before the counting began
            self._join(storage, torch.zeros(storage.nbytes(), dtype=torch.uint8).untyped_storage())
        numbers = self.host[storage._cdata][1]
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        return torch.empty(0, dtype=tensor.dtype).set_(numbers, *place)

    def on_device(self, tensor: Tensor) -> Tensor:
        """The tensor of the device for one of the host; views stay views."""
        numbers = tensor.untyped_storage()
        ref = self.device.get(numbers._cdata)
        storage = None if ref is None else torch.UntypedStorage._new_with_weak_ptr(ref.cdata)
        if storage is None:
            storage = torch.UntypedStorage(numbers.nbytes(), device="meta")
            self._join(storage, numbers)
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        return torch.empty(0, dtype=tensor.dtype, device=META).set_(storage, *place)

    def _join(self, storage: torch.UntypedStorage, numbers: torch.UntypedStorage) -> None:
        if len(self.host) > 10_000:
            alive = {key: both for key, both in self.host.items() if not both[0].expired()}
            self.host = alive
            known = {numbers._cdata for _, numbers in alive.values()}
            self.device = {key: ref for key, ref in self.device.items() if key in known}
        ref = StorageWeakRef(storage)
        self.host[storage._cdata] = ref, numbers
        self.device[numbers._cdata] = ref


_MEMORY = _Memory()  # of all devices: libraries keep constants from one training to the next


class _Operations(TorchDispatchMode):
    """Computes on the host, and notes what makes it wait for a device."""

    def __init__(self, device: CountingDevice) -> None:
        super().__init__()
        self.counted = device
        self.memory = _MEMORY

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        flat, spec = tree_flatten((args, kwargs or {}))
        if not any(_is_there(value) or _is_its(value) for value in flat):
            return function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in _SHAPES:  # numbers stay where they are
            return function(*args, **(kwargs or {}))
        self._note(name, args, kwargs or {})
        host = [self._on_host(value) for value in flat]
        host_args, host_kwargs = tree_unflatten(host, spec)
        result = function(*host_args, **host_kwargs)
        if name == "_to_copy" and (kwargs or {}).get("device", META) == HOST:
            return result
        same = {id(new): old for new, old in zip(host, flat, strict=True)}
        return tree_map(lambda value: self._on_device(value, same), result)

    def _on_host(self, value: Any) -> Any:
        if _is_there(value):
            return self.memory.on_host(value)
        return HOST if _is_its(value) else value

    def _on_device(self, value: Any, same: dict[int, Any]) -> Any:
        if not isinstance(value, Tensor):
            return value
        return same[id(value)] if id(value) in same else self.memory.on_device(value)

    def _note(self, name: str, args: Any, kwargs: Any) -> None:
        first, note = (args[0] if args else None), self.counted.note
        if name in ("_to_copy", "copy_"):
            target, source, waits = kwargs.get("device"), first, not kwargs.get("non_blocking")
            if name == "copy_":
                target, source, waits = first.device, args[1], not (args[2:] and args[2])
            if source.device == META and target == HOST:
                note("copy to the host")
            elif source.device == HOST and target == META and waits:
                note("upload that waits")
        elif not _is_there(first):
            return
        elif name in ("_local_scalar_dense", "equal", "is_nonzero"):
            note("value read")
        elif name in _SIZED or (name == "repeat_interleave" and "output_size" not in kwargs):
            note(f"size depends on values: {name}")
        elif name in _INDEXING:
            masks = [t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]]
            value = args[2] if args[2:] else None
            fills = value is not None and value.numel() == 1 and not (args[3:] and args[3])
            if any(masks) and not (fills and len(masks) == 1):  # CUDA fills without waiting
                note(f"size depends on values: boolean {name}")
        elif name == "multinomial" and (args[1] == 1 or not (args[2:] and args[2])):
            note("value read: multinomial checks its input")
        elif name in _SOLVERS:
            note(f"solver checks its result: {name}")


def _is_there(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device == META


def _is_its(value: Any) -> bool:
    return isinstance(value, torch.device) and value == META


def _on_host(kind: Any) -> Any:
    return "cpu" if str(kind) == "meta" else kind


def _of_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the CPU in place of the device."""

    def call(*args: Any, **kwargs: Any) -> Any:
        named = {k: _on_host(v) if k == "device_type" else v for k, v in kwargs.items()}
        return function(*(_on_host(a) if isinstance(a, str) else a for a in args), **named)

    return call


def _autocast(kind: Any) -> Any:
    class Autocast(kind):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(_on_host(device_type), *args, **kwargs)

    return Autocast


class StepCounter(pl.Callback):
    """Tells a device which training step runs; give it before all other callbacks."""

    def __init__(self, device: CountingDevice) -> None:
        self.counted = device

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Until the next one, or the end of the epoch, waits belong to this step."""
        self.counted.step = trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The steps are over."""
        self.counted.step = -1

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """A validation is no step."""
        self.counted.step = -1


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Take the meta device."""


def strategy() -> SingleDeviceStrategy:
    """A Trainer's strategy on the device."""
    return SingleDeviceStrategy(device=META, accelerator=_Accelerator())
