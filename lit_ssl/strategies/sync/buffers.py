"""Tensors that no optimizer owns but that drift apart too: buffers and EMA copies of networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_ssl.strategies.functional import pooled_variance

__all__ = [
    "Extra",
    "Extras",
    "agree",
    "assign_by_prefix",
    "collect",
    "fingerprints",
    "is_finite",
    "prepare_",
    "real_",
    "restore_",
]


@dataclass
class Extra:
    """A floating-point tensor to synchronise.

    Args:
        name: in the module.
        tensor: the tensor; complex numbers as pairs of real ones.
        kind: ``mean`` over processes; ``variance``, pooled with the running mean of the same
            module; or ``first``: take the value of rank 0.
        mean: the running mean, for a variance.
        is_strict: whether inf is always a sign of trouble: in statistics and frozen networks, not
            in other buffers, where it may be the logarithm of 0.
    """

    name: str
    tensor: Tensor
    kind: str
    mean: Tensor | None = None
    is_strict: bool = True


@dataclass
class Extras:
    """Buffers and frozen tensors of a module.

    Attributes:
        floats: those of floating-point type, which are averaged.
        integers: the others by name, which are brought to their maximum.
    """

    floats: list[Extra] = field(default_factory=list)
    integers: dict[str, Tensor] = field(default_factory=dict)


def collect(module: nn.Module, owned: set[int], buffers: str, frozen: bool) -> Extras:
    """Find what has to be synchronised besides the optimizers' parameters.

    They are looked up by name each time, because assigning to a registered buffer replaces it.
    Names in ``_ddp_params_and_buffers_to_ignore`` are left out, as in DDP.

    Args:
        module: the LightningModule.
        owned: ids of the parameters that optimizers hold.
        buffers: ``average``, ``broadcast`` or ``none``.
        frozen: whether to take parameters that no optimizer holds.
    """
    ignored = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))
    extras = Extras()
    if frozen:
        for name, parameter in module.named_parameters():
            value = real_(parameter.detach())
            if id(parameter) not in owned and name not in ignored and value.is_floating_point():
                extras.floats.append(Extra(name, value, "mean"))
    if buffers == "none":
        return extras
    named = {name: real_(b) for name, b in module.named_buffers() if name not in ignored}
    for name, buffer in named.items():
        if not buffer.is_floating_point():
            extras.integers[name] = buffer
            continue
        mean = named.get(name.removesuffix("running_var") + "running_mean")
        strict = name.endswith(("running_mean", "running_var"))
        if buffers == "broadcast":
            extras.floats.append(Extra(name, buffer, "first", is_strict=strict))
        elif name.endswith("running_var") and mean is not None:
            extras.floats.append(Extra(name, buffer, "variance", mean))
        else:
            extras.floats.append(Extra(name, buffer, "mean", is_strict=strict))
    return extras


def real_(tensor: Tensor) -> Tensor:
    """A view of complex numbers as pairs of real ones; other tensors as they are.

    Args:
        tensor: of any type and shape; complex ones give one of shape ``[…, 2]``.

    Returns:
        A view, so that what is written into it is written into the tensor.
    """
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def assign_by_prefix(names: Iterable[str], owners: Sequence[Sequence[str]]) -> dict[str, int]:
    """Give each name to the owner that holds the names nearest to it in the module tree.

    Args:
        names: names of buffers and frozen tensors.
        owners: parameter names of each owner.

    Returns:
        Index of the owner for each name; the first owner's where nothing is near.
    """
    prefixes = [{p for name in held for p in _ancestors(name)} for held in owners]

    def nearness(name: str, owner: int) -> int:
        return sum(ancestor in prefixes[owner] for ancestor in _ancestors(name))

    order = range(len(owners))
    return {name: max(order, key=lambda i: (nearness(name, i), -i)) for name in names}


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")[:-1]
    return [".".join(parts[: depth + 1]) for depth in range(len(parts))]


@torch.no_grad()
def fingerprints(extras: Extras) -> dict[str, list[float]]:
    """Sum and norm of each floating-point tensor, to see which ones have changed.

    Where a tensor is not finite: those of its finite part, and how many of the rest are NaN, inf
    and −inf, and the sum of their places.

    Args:
        extras: their floating-point tensors count.

    Returns:
        By name: two numbers of a finite tensor, six of another.
    """
    kind, tensors = torch.float64, [x.tensor for x in extras.floats]
    pairs = [torch.stack([t.sum(dtype=kind), t.norm(dtype=kind)]) for t in tensors]
    values = torch.stack(pairs).tolist() if pairs else []  # comes to the host once
    for tensor, pair in zip(tensors, values, strict=True):
        if not all(map(math.isfinite, pair)):
            finite = torch.isfinite(tensor)
            rest = tensor.where(finite, 0)
            pair[:] = torch.stack(
                [
                    rest.sum(dtype=kind),
                    rest.norm(dtype=kind),
                    torch.isnan(tensor).sum(dtype=kind),
                    torch.isposinf(tensor).sum(dtype=kind),
                    torch.isneginf(tensor).sum(dtype=kind),
                    (~finite).flatten().nonzero().sum(dtype=kind),
                ]
            ).tolist()
    return {x.name: pair for x, pair in zip(extras.floats, values, strict=True)}


def is_finite(fingerprint: Sequence[float]) -> bool:
    """Whether a tensor with this fingerprint holds finite numbers only.

    Args:
        fingerprint: see ``fingerprints``.
    """
    return len(fingerprint) == 2


@torch.no_grad()
def agree(
    extras: Extras,
    flags: Sequence[Sequence[bool]],
    counts: Sequence[int],
    buffers: str,
    rank: int,
    device: Any,
) -> tuple[list[list[Extra]], list[bool]]:
    """Settle which tensors changed on any process, and bring the integer buffers to one value.

    The integer buffers are left alone where ``counts`` differ.

    Args:
        extras: all candidates.
        flags: questions, e.g. which tensors changed here: an answer for each of ``extras.floats``.
        counts: numbers that should be equal everywhere.
        buffers: ``average``: integers to their maximum; ``broadcast``: to those of rank 0.
        rank: number of this process.
        device: where to communicate.

    Returns:
        For each question the tensors for which the answer is yes on any process; and for each of
        ``counts`` whether it was equal.
    """
    integers = list(extras.integers.values())
    answers = [int(answer) for question in flags for answer in question]
    ends = [end for count in counts for end in (count, -count)]
    parts = [torch.tensor([*ends, *answers], dtype=torch.int64, device=device)]
    lowest = torch.iinfo(torch.int64).min
    for tensor in integers:
        value = tensor.to(torch.int64).flatten()
        hidden = buffers == "broadcast" and rank != 0
        parts.append(torch.full_like(value, lowest) if hidden else value)
    message = torch.cat(parts)
    dist.all_reduce(message, op=dist.ReduceOp.MAX)
    heads = len(ends) + len(answers)
    head = message[:heads].tolist()
    same = [head[i] == -head[i + 1] for i in range(0, len(ends), 2)]
    sizes = [t.numel() for t in integers]
    values = message[heads:].split(sizes) if sizes and all(same) else ()
    for tensor, value in zip(integers, values, strict=False):
        tensor.copy_(value.view(tensor.shape))
    found = iter(head[len(ends) :])
    chosen = [[x for x in extras.floats if next(found)] for _ in flags]
    return chosen, same


@torch.no_grad()
def prepare_(values: Sequence[Tensor], extras: Sequence[Extra], rank: int) -> None:
    """Change packed values into what has to be summed.

    Args:
        values: a view into the flat buffer for each tensor, holding its value.
        extras: the tensors.
        rank: number of this process.
    """
    for value, extra in zip(values, extras, strict=True):
        if extra.kind == "variance" and extra.mean is not None:
            value.add_(extra.mean.to(value.dtype).square())
        elif extra.kind == "first" and rank != 0:
            value.zero_()


@torch.no_grad()
def restore_(
    values: Sequence[Tensor], extras: Sequence[Extra], weight: float, first_weight: float = 1.0
) -> None:
    """Change sums into what has to be written back.

    Args:
        values: a view into the flat buffer for each tensor, holding the sum over processes.
        extras: the tensors.
        weight: total weight of the processes, > 0.
        first_weight: weight of rank 0; with 0, what is taken from it keeps its local value.
    """
    means: dict[int, Tensor] = {}
    for value, extra in zip(values, extras, strict=True):
        if extra.kind != "first":
            value.div_(weight)
            means[id(extra.tensor)] = value
        elif first_weight == 0:
            value.copy_(extra.tensor)
        else:
            value.div_(first_weight)
    for value, extra in zip(values, extras, strict=True):
        if extra.kind == "variance" and extra.mean is not None:
            # A running mean that did not change is equal everywhere.
            mean = means.get(id(extra.mean), extra.mean.to(value.dtype))
            value.copy_(pooled_variance(value, mean))
