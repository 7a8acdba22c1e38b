"""Sums over processes in fewer bytes: bfloat16 or int8 on the wire, with error feedback."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["BFloat16Codec", "Codec", "CompressedSum", "Int8Codec", "make_codec"]


class Codec(Protocol):
    """Turns the last dimension of float tensors into smaller ones and back."""

    block: int

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compress ``[..., n]``, n a multiple of ``block``."""
        ...

    def decode(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Restore ``[..., n]`` in float32."""
        ...


class BFloat16Codec:
    """Two bytes for each number."""

    block = 1

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Round to bfloat16."""
        return (x.bfloat16(),)

    def decode(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Widen to float32."""
        return parts[0].float()


class Int8Codec:
    """One byte for each number and a float32 scale for each block: ``s = max|v| / 127``.

    Args:
        block: numbers that share a scale.
    """

    def __init__(self, block: int = 1024) -> None:
        self.block = block

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Round to 255 levels within each block."""
        blocks = x.float().unflatten(-1, (-1, self.block))
        scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
        levels = (blocks / scale.masked_fill(scale == 0, 1)).round().clamp_(-127, 127)
        return levels.to(torch.int8).flatten(-2), scale.squeeze(-1)

    def decode(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Multiply by the scales."""
        levels, scale = parts
        return (levels.unflatten(-1, (-1, self.block)) * scale.unsqueeze(-1)).flatten(-2)


def make_codec(name: str | None) -> Codec | None:
    """The codec called ``bf16`` or ``int8``; None for None."""
    if name is None:
        return None
    return BFloat16Codec() if name == "bf16" else Int8Codec()


class CompressedSum:
    """Sum of a flat tensor over processes: everyone adds up one part of it in float32.

    What rounding loses is kept by the process that rounded and added to its next value, so that
    nothing is lost over several rounds. All processes end with the same sum, bit for bit.

    Args:
        value: ``[n]``; used up.
        error: ``[n]``, float32: error feedback; holds the new error after :meth:`finish`.
        codec: compression.
        group: processes to sum over; None: all.
    """

    def __init__(self, value: Tensor, error: Tensor, codec: Codec, group: Any = None) -> None:
        self.codec = codec
        self.group = group
        self.error = error
        self.size = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self.numel = value.numel()
        unit = self.size * codec.block
        padded = value.new_zeros(-(-self.numel // unit) * unit, dtype=torch.float32)
        torch.add(value, error, out=padded[: self.numel])
        parts = codec.encode(padded.view(self.size, -1))
        self.residual = padded.sub_(codec.decode(parts).flatten())
        self.received = tuple(torch.empty_like(part) for part in parts)
        self.works: list[Any] = [
            dist.all_to_all_single(out, part, group=group, async_op=True)
            for out, part in zip(self.received, parts, strict=True)
        ]
        share = sum(part[0].numel() * part.element_size() for part in parts)
        self.bytes_sent = 2 * (self.size - 1) * share

    def finish(self) -> Tensor:
        """Wait for the parts, exchange their sums and return the sum, ``[n]`` in float32."""
        for work in self.works:
            work.wait()
        own = self.codec.decode(self.received).sum(dim=0)
        parts = self.codec.encode(own)
        lost = own - self.codec.decode(parts)
        # This process alone knows what its part lost; its error joins the next sum with weight 1.
        self.residual.view(self.size, -1)[self.rank] += lost
        self.error.copy_(self.residual[: self.numel])
        gathered = []
        for part in parts:
            pieces = [torch.empty_like(part) for _ in range(self.size)]
            dist.all_gather(pieces, part, group=self.group)
            gathered.append(torch.cat(pieces))
        return self.codec.decode(tuple(gathered))[: self.numel]
