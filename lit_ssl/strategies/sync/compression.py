"""Sums over processes in fewer bytes: bfloat16 or int8 on the wire, with error feedback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["BFloat16Codec", "Codec", "CompressedSum", "Int8Codec", "make_codec"]

Parts = tuple[Tensor, ...]

# Elements that are worked on at once. Allocating (and touching) temporary tensors of the size of a
# model takes longer than the arithmetic on them.
_CHUNK = 2**20


class BFloat16Codec:
    """Two bytes for each number; blocks of one."""

    block = 1

    def empty(self, numel: int, device: torch.device) -> Parts:
        """Room for ``numel`` encoded numbers.

        Args:
            numel: a multiple of ``block``.
            device: where they lie.
        """
        return (torch.empty(numel, dtype=torch.bfloat16, device=device),)

    def encode(self, x: Tensor) -> Parts:
        """Compress ``[n]``, n a multiple of ``block``: round to bfloat16.

        Args:
            x: floating-point numbers.
        """
        return (x.bfloat16(),)

    def decode(self, parts: Parts) -> Tensor:
        """Restore ``[n]`` in float32.

        Args:
            parts: what ``encode`` gave, or views of it.
        """
        return parts[0].float()

    def part(self, parts: Parts, start: int, stop: int) -> Parts:
        """Views of the encoded numbers ``start`` to ``stop``, both multiples of ``block``.

        Args:
            parts: what ``encode`` or ``empty`` gave.
            start: the first.
            stop: one after the last.
        """
        return (parts[0][start:stop],)


class Int8Codec:
    """One byte for each number and a float32 scale for each block: ``s = max|v| / 127``.

    Args:
        block: numbers that share a scale.
    """

    def __init__(self, block: int = 1024) -> None:
        self.block = block

    def empty(self, numel: int, device: torch.device) -> Parts:
        """Room for ``numel`` encoded numbers.

        Args:
            numel: a multiple of ``block``.
            device: where they lie.
        """
        levels = torch.empty(numel, dtype=torch.int8, device=device)
        return levels, torch.empty(numel // self.block, device=device)

    def encode(self, x: Tensor) -> Parts:
        """Round to 255 levels within each block.

        Args:
            x: ``[n]``, floating-point numbers, n a multiple of ``block``.

        Returns:
            int8 ``[n]``, and float32 ``[n / block]``, the scale of each block.
        """
        blocks = x.float().view(-1, self.block)
        scale = blocks.abs().amax(dim=1, keepdim=True) / 127
        levels = (blocks / scale.masked_fill(scale == 0, 1)).round_().clamp_(-127, 127)
        return levels.to(torch.int8).flatten(), scale.squeeze(1)

    def decode(self, parts: Parts) -> Tensor:
        """Multiply by the scales.

        Args:
            parts: what ``encode`` gave, or views of it.

        Returns:
            float32 ``[n]``.
        """
        levels, scale = parts
        return (levels.view(-1, self.block) * scale.unsqueeze(1)).flatten()

    def part(self, parts: Parts, start: int, stop: int) -> Parts:
        """Views of some of the numbers.

        Args:
            parts: what ``encode`` or ``empty`` gave.
            start: the first, a multiple of ``block``.
            stop: one after the last, likewise.
        """
        levels, scale = parts
        return levels[start:stop], scale[start // self.block : stop // self.block]


# Turns flat float tensors, in whole blocks, into smaller ones and back.
Codec = BFloat16Codec | Int8Codec


def make_codec(name: str | None) -> Codec | None:
    """The codec called ``bf16`` or ``int8``; None for None.

    Args:
        name: of the codec.
    """
    if name is None:
        return None
    return BFloat16Codec() if name == "bf16" else Int8Codec()


class CompressedSum:
    """Sum of a flat tensor over processes: everyone adds up one share of it in float32.

    What rounding loses is kept by the process that rounded and added to its next value, so that
    nothing is lost over several rounds. All processes end with the same sum, bit for bit.

    Args:
        value: ``[n]``; becomes the sum in ``finish``.
        error: ``[n]``, float32: error feedback; holds the new error after ``finish``.
        codec: compression.
        group: processes to sum over; None: all.
    """

    def __init__(self, value: Tensor, error: Tensor, codec: Codec, group: Any = None) -> None:
        self.value, self.error, self.codec, self.group = value, error, codec, group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)
        unit = self.size * codec.block
        self.padded = -(-value.numel() // unit) * unit
        self.share = self.padded // self.size
        parts = codec.empty(self.padded, value.device)
        for start, stop in self._chunks(self.padded):
            whole = self._padded_sum(start, stop)
            encoded = codec.encode(whole)
            self._store(encoded, parts, start, stop)
            rest = whole.sub_(codec.decode(encoded))
            error[start:stop] = rest[: max(0, min(stop, value.numel()) - start)]
        self.received = codec.empty(self.padded, value.device)
        self.works: list[Any] = [
            dist.all_to_all_single(out, part, group=group, async_op=True)
            for out, part in zip(self.received, parts, strict=True)
        ]
        total = sum(part.numel() * part.element_size() for part in parts)
        self.bytes_sent = 2 * (self.size - 1) * total // self.size

    def _chunks(self, numel: int) -> Iterator[tuple[int, int]]:
        step = max(1, _CHUNK // self.codec.block) * self.codec.block
        return ((start, min(start + step, numel)) for start in range(0, numel, step))

    def _padded_sum(self, start: int, stop: int) -> Tensor:
        """Value plus error, with zeros after the end."""
        chunk = self.value.new_zeros(stop - start, dtype=torch.float32)
        inside = max(0, min(stop, self.value.numel()) - start)
        chunk[:inside] = self.value[start : start + inside]
        chunk[:inside] += self.error[start : start + inside]
        return chunk

    def _store(self, encoded: Parts, parts: Parts, start: int, stop: int) -> None:
        for target, source in zip(self.codec.part(parts, start, stop), encoded, strict=True):
            target.copy_(source)

    def finish(self) -> Tensor:
        """Wait for the shares, exchange their sums and return the sum, ``[n]``: the value given."""
        for work in self.works:
            work.wait()
        codec, device = self.codec, self.value.device
        mine = codec.empty(self.share, device)
        for start, stop in self._chunks(self.share):
            froms = [rank * self.share for rank in range(self.size)]
            pieces = (codec.part(self.received, at + start, at + stop) for at in froms)
            total = sum(map(codec.decode, pieces), torch.zeros(stop - start, device=device))
            encoded = codec.encode(total)
            self._store(encoded, mine, start, stop)
            lost = total.sub_(codec.decode(encoded))
            # This process alone knows what its share lost; it joins the next sum with weight 1.
            at = self.rank * self.share + start
            inside = max(0, min(at + stop - start, self.value.numel()) - at)
            self.error[at : at + inside] += lost[:inside]
        for out, part in zip(self.received, mine, strict=True):
            dist.all_gather(list(out.chunk(self.size)), part, group=self.group)
        for start, stop in self._chunks(self.padded):
            inside = max(0, min(stop, self.value.numel()) - start)
            decoded = codec.decode(codec.part(self.received, start, stop))
            self.value[start : start + inside] = decoded[:inside]
        return self.value
