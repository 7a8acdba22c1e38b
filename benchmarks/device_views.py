"""What views on the device cost: counted for CUDA, measured on this CPU.

Counts what a batch of MSN's views needs on an accelerator, without one: copies from the host,
kernels (operations that are not mere views of memory; a compiled function is one), and bytes that
kernels read and write. Beside it stands the program that a CPU runs, operation by operation with
only the views that an operation changes, which CUDA ran before.

On the CPU it measures the cuts alone, by products with matrices and by interpolation, and what a
worker does for each file with each engine, interleaved.

    OMP_NUM_THREADS=1 python benchmarks/device_views.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms.v2.functional import to_pil_image

from lit_ssl.datamodules.loading.batches import RawSet, ViewSet
from lit_ssl.datamodules.loading.encoded import EncodedImages, EncodedSet
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.transforms import CropSpec, MultiCrop, SingleView, draw_params, msn_crops
from lit_ssl.transforms.views import accelerator, geometry
from lit_ssl.transforms.views.device import make_batched_views
from lit_ssl.transforms.views.effects import apply_effects
from lit_ssl.transforms.views.geometry import crop_resize


class Count(TorchDispatchMode):
    """Counts what happens to tensors on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = self.kernels = self.bytes = 0
        self.inside = False  # a compiled function

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        result = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.is_meta for tensor in result) or self.inside or func.is_view:
            return out
        if given and not any(tensor.is_meta for tensor in given):
            self.copies += 1
        elif str(func) not in ("aten._unsafe_view.default", "aten.empty.memory_format"):
            self.add(given, result)
        return out

    def add(self, given: list[Tensor], result: list[Tensor]) -> None:
        """One kernel more."""
        self.kernels += 1
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in given + result)

    def fused(self, function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
        """Counts a function as one kernel."""

        def call(*args: Any) -> Tensor:
            self.inside = True
            out = function(*args)
            self.inside = False
            self.add([arg for arg in args if isinstance(arg, Tensor)], [out])
            return out

        return call


@contextmanager
def counting() -> Iterator[Count]:
    """Counts, with compiled functions as one kernel each."""
    count = Count()
    with (
        patch.object(accelerator, "fused", count.fused),
        patch.object(geometry, "fused", count.fused),
        count,
    ):
        yield count


def count(batch: int) -> None:
    """Prints the counts of both programs."""
    images = torch.empty(batch, 3, 384, 384, dtype=torch.uint8, device="meta")
    sizes = torch.tensor([[375, 500]]).expand(batch, 2).clamp(max=384)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        (draw_params(spec, *sizes.repeat_interleave(spec.count, 0).unbind(1), generator), spec)
        for spec in msn_crops()
    ]

    def one_by_one() -> None:
        for params, spec in drawn:
            apply_effects(crop_resize(images, params, spec.shape), params, spec)

    print(f"{batch} images, 2 x 224 + 10 x 96 px from a canvas of 384, on an accelerator")
    print(f"{'program':<26}{'copies':>8}{'kernels':>9}{'GB moved':>10}")
    for name, program in (
        ("operation by operation", one_by_one),
        ("one upload, compiled", lambda: make_batched_views(images, drawn)),
    ):
        program()  # tables that are made once
        with counting() as counted, torch.no_grad():
            if program is one_by_one:
                with patch.object(geometry, "fused", lambda function, device: function):
                    program()
            else:
                program()
        print(f"{name:<26}{counted.copies:>8}{counted.kernels:>9}{counted.bytes / 1e9:>10.2f}")


def measure(repeats: int) -> None:
    """Prints CPU microseconds per view of the two ways to cut."""
    print("\ncut and resize on this CPU, microseconds per view")
    print(f"{'from':>10}{'to':>6}{'products':>10}{'interpolation':>15}")
    for side, batch in ((28, 64), (48, 64), (96, 16), (384, 4)):
        large = min(224, side)
        for spec in msn_crops(large, max(14, large * 3 // 7)):
            images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
            sides = torch.full((batch * spec.count,), side)
            params = draw_params(spec, sides, sides, torch.Generator().manual_seed(0))
            spent: dict[int, list[float]] = {10**6: [], 0: []}
            for _ in range(repeats):
                for limit, times in spent.items():
                    with patch.object(geometry, "_MATRIX_SIZE", limit):
                        start = time.process_time()
                        crop_resize(images, params, spec.shape)
                        times.append((time.process_time() - start) / len(sides) * 1e6)
            products, interpolation = map(statistics.median, spent.values())
            print(f"{side:>10}{spec.shape[0]:>6}{products:>10.0f}{interpolation:>15.0f}")


def rotate(repeats: int) -> None:
    """Prints CPU milliseconds of a batch of the digits' views, which are rotated."""
    recipe = MultiCrop([CropSpec(size=28, count=2, scale=(0.5, 1.0), rotation=15, brightness=0.4)])
    images = torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8)

    def by_products(theta: Tensor, height: int, width: int) -> Tensor:
        return affine_grid(theta, [len(theta), 1, height, width], align_corners=False)

    places = {"affine_grid": by_products, "own": geometry._grid}
    spent: dict[str, list[float]] = {name: [] for name in places}
    for repeat in range(repeats):
        for name, function in places.items():
            with patch.object(geometry, "_grid", function):
                start = time.process_time()
                for seed in range(5):
                    recipe.batched(images, generator=torch.Generator().manual_seed(seed))
                if repeat:
                    spent[name].append((time.process_time() - start) / 5 * 1e3)
    medians = {name: f"{statistics.median(times):.2f}" for name, times in spent.items()}
    print(f"\n2 x 28 px, rotated, of 128 digits, ms per batch by where pixels come from: {medians}")


def photograph(height: int, width: int) -> Image.Image:
    """Smooth parts, edges and grain, whose JPEG file has the usual 0.5 bytes per pixel."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    smooth = interpolate(coarse, (height, width), mode="bicubic")[0]
    blocks = interpolate(coarse.flip(-1), (height, width), mode="nearest")[0]
    grain = torch.rand(1, height, width, generator=generator)
    return to_pil_image((0.6 * smooth + 0.2 * blocks + 0.2 * grain).clamp(0, 1))


def serve(repeats: int) -> None:
    """Prints what a worker spends and sends per image."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.jpg" for number in range(16)]
        for name in names:
            photograph(375, 500).save(os.path.join(folder, name), quality=85)
        size = os.path.getsize(os.path.join(folder, names[0]))
        reader = ImageReader(FileImages(folder, names))
        msn = MultiCrop(msn_crops())
        one = SingleView(CropSpec(size=224, hflip=0.5))
        served = {
            "12 MSN views (augment: worker)": ViewSet(reader, msn),
            "crop and flip (augment: worker)": ViewSet(reader, one),
            "canvas of 384 (augment: device)": RawSet(reader, 384),
            "canvas of 512 (augment: device)": RawSet(reader, 512),
            "its file (decode: device)": EncodedSet(reader, 512),
        }
        keys = [(row, row) for row in range(len(names))]
        spent: dict[str, list[float]] = {name: [] for name in served}
        for repeat in range(repeats + 1):
            for name, images in served.items():
                start = time.process_time()
                batch = images.__getitems__(keys)
                if repeat:
                    spent[name].append((time.process_time() - start) / len(keys) * 1e3)
                else:
                    spent[name] = [sent(batch[0]) / len(keys) / 1e3]
    print(f"\na worker's part per JPEG of 375 x 500, {size / 1e3:.0f} kB")
    print(f"{'sends':<34}{'CPU ms':>8}{'kB':>8}")
    for name, (kilobytes, *times) in spent.items():
        print(f"{name:<34}{statistics.median(times):>8.2f}{kilobytes:>8.0f}")


def sent(images: Any) -> int:
    """Bytes of the images of a batch."""
    if isinstance(images, EncodedImages):
        return images.files.numel() + images.pixels.numel()
    tensors = [leaf for leaf in tree_leaves(images) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main() -> None:
    """Parses the arguments, counts and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats")
    args = parser.parse_args()
    count(args.batch)
    measure(args.repeats)
    rotate(args.repeats)
    serve(args.repeats)


if __name__ == "__main__":
    main()
