"""Attention written out against torch's, by length, and a last block for the class token alone.

    OMP_NUM_THREADS=1 python benchmarks/short_attention.py

Times are the processor's, of forward and backward, medians of interleaved repeats. Ratios are
torch's (or the whole block's) time / ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lit_ssl.models.backbones.attention import written_out_attention
from lit_ssl.models.backbones.queried_block import with_queried_blocks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compare(ways: dict[str, Callable[[], None]], repeats: int) -> list[float]:
    """Median milliseconds of each way; the first repeat is left out."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if repeat:
                times[name].append(1e3 * (time.process_time() - start))
    return [statistics.median(column) for column in times.values()]


def attention_ways(batch: int, length: int, dtype: torch.dtype) -> dict[str, Callable[[], None]]:
    """Forward and backward of 3 heads of 64 channels, as a layer of a transformer lays them out."""
    qkv = torch.randn(batch, length, 3, 3, 64, dtype=dtype, requires_grad=True)
    ones = torch.ones(batch, length, 192, dtype=dtype)

    def way(attend: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            out = attend(*(part.transpose(1, 2) for part in qkv.unbind(2)))
            torch.autograd.grad(out.transpose(1, 2).flatten(2), qkv, ones)

        return run

    return {"torch": way(F.scaled_dot_product_attention), "ours": way(written_out_attention)}


def block_ways(
    batch: int, length: int, dim: int, heads: int, autocast: bool
) -> dict[str, Callable[[], None]]:
    """Forward and backward of a block's first row."""
    vit = VisionTransformer(embed_dim=dim, num_heads=heads, depth=1, num_classes=0)
    plain, ours = deepcopy(vit).blocks[0], with_queried_blocks(vit).blocks[0]
    x = torch.randn(batch, length, dim, requires_grad=True)

    def way(block: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = block(x)[:, 0]
            out.float().square().sum().backward()

        return run

    return {"timm": way(plain), "ours": way(lambda x: ours(x, queries=1))}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lengths = [17, 37, 65, 167, 197, 401, 785, 1025]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--tokens", type=int, default=1600, help="length × batch")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("attention   tokens  torch ms   ours ms  ratio")
    for name, dtype in DTYPES.items():
        for length in options.lengths:
            ways = attention_ways(max(1, options.tokens // length), length, dtype)
            torchs, ours = compare(ways, options.repeats)
            print(f"{name:<10}{length:>8}{torchs:>10.2f}{ours:>10.2f}{torchs / ours:>7.2f}")
    print("\nlast block   B × N × D       timm ms   ours ms  ratio")
    for name in DTYPES:
        for batch, length, dim, heads in ((128, 17, 64, 4), (4, 167, 192, 3), (8, 167, 384, 6)):
            ways = block_ways(batch, length, dim, heads, name == "bfloat16")
            timms, ours = compare(ways, options.repeats)
            shape = f"{batch} × {length} × {dim}"
            print(f"{name:<13}{shape:<15}{timms:>8.2f}{ours:>10.2f}{timms / ours:>7.2f}")


if __name__ == "__main__":
    main()
