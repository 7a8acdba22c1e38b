"""States of all processes on rank 0, sent as plain bytes through one small buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_states", "map_tensors", "size_in_bytes", "with_memory_of_its_own"]

_BUFFER = 16 * 2**20  # bytes


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Nested dictionaries, lists and tuples with another value in place of each tensor.

    Args:
        function: gives the other value.
        value: what is nested; values of other kinds stay.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def size_in_bytes(value: Any) -> int:
    """Bytes of all tensors in nested containers.

    Args:
        value: what is nested.
    """
    sizes: list[int] = []
    map_tensors(lambda tensor: sizes.append(tensor.numel() * tensor.element_size()), value)
    return sum(sizes)


def with_memory_of_its_own(tensor: Tensor) -> Tensor:
    """A tensor to write into a file: of a view into a larger one, a copy, else itself.

    Args:
        tensor: without its gradient in either case.
    """
    tensor = tensor.detach()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def gather_states(mine: Any, device: torch.device) -> list[Any] | None:
    """Gather nested containers of tensors on rank 0; all processes must call it.

    What the containers look like is sent as an object without values, and the values byte by byte
    in pieces. A process needs 16 MB beside its own state, and rank 0 the room of what it gets.

    Args:
        mine: the state of this process; other values than tensors are few and small.
        device: where this process computes.

    Returns:
        On rank 0 the states of all processes, with all tensors on the CPU but for its own, which
        are as they are; None elsewhere.
    """
    if "gloo" in dist.get_backend():  # which sends nothing from a GPU
        device = torch.device("cpu")
    forms: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    form = map_tensors(lambda tensor: torch.empty_like(tensor, device="meta"), mine)
    dist.gather_object(form, forms, dst=0)
    buffer = torch.empty(_BUFFER, dtype=torch.uint8, device=device)
    if forms is None:
        sent: list[Tensor] = []
        map_tensors(sent.append, mine)
        for parts in _pieces(sent):
            dist.send(_filled(buffer, parts), dst=0)
        return None
    states = [mine]
    for rank in range(1, len(forms)):
        state = map_tensors(lambda tensor: torch.empty_like(tensor, device="cpu"), forms[rank])
        received: list[Tensor] = []
        map_tensors(received.append, state)
        for parts in _pieces(received):
            sizes = [part.numel() for part in parts]
            piece = buffer[: sum(sizes)]
            dist.recv(piece, src=rank)
            for part, value in zip(parts, piece.split(sizes), strict=True):
                part.copy_(value)
        states.append(state)
    return states


def _filled(buffer: Tensor, parts: Sequence[Tensor]) -> Tensor:
    sizes = [part.numel() for part in parts]
    for part, place in zip(parts, buffer[: sum(sizes)].split(sizes), strict=True):
        place.copy_(part)
    return buffer[: sum(sizes)]


def _pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Bytes of tensors, as views in lists that fill the buffer."""
    held: list[Tensor] = []
    room = _BUFFER
    for tensor in tensors:
        left = _bytes_of(tensor)
        while left.numel():
            part, left = left[:room], left[room:]
            held.append(part)
            room -= part.numel()
            if room == 0:
                yield held
                held, room = [], _BUFFER
    if held:
        yield held


def _bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in the order in which ``torch.empty_like`` lays it out."""
    tensor = tensor.detach()
    if tensor.stride() != torch.empty_like(tensor, device="meta").stride():
        tensor = tensor.clone()  # it has gaps or overlaps
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8)
