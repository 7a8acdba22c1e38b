"""From JPEG files to views: what a worker of a data loader spends on an image.

CPU milliseconds per image, from the bytes of a file to a collated batch, in interleaved repeats, so
that other work on the machine hits all pipelines alike: ours with the views made in the worker,
ours with ``augment: device`` (the worker's part: decode, shrink to the canvas), and the same recipe
written with torchvision's first transforms on Pillow images, with its second ones on tensors, and
as lightly's where it is installed.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py
    python benchmarks/augmentation.py --recipes msn --sides 375 500 --sides 768 1024
"""

from __future__ import annotations

import argparse
import functools
import io
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image

from lit_ssl.datamodules.loading.batches import EvaluationSet, RawSet, ViewSet
from lit_ssl.datamodules.reading.decoding import decode_image
from lit_ssl.datamodules.reading.images import Images
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop, msn_crops

Pipeline = Callable[[int], Any]  # a seed → a batch

PILLOW = "torchvision v1 on Pillow"


@dataclass(frozen=True)
class Recipe:
    """Views of an image, or, without any, the evaluation crop of this many pixels."""

    crops: list[CropSpec]
    evaluation: int = 0


def recipes(size: int) -> dict[str, Recipe]:
    """The recipes by name, for views of this many pixels."""
    small = round(size * 3 / 7)
    return {
        "msn": Recipe(msn_crops(size, small, num_large=2, num_small=10)),
        "supervised": Recipe([CropSpec(size, scale=(0.08, 1.0), hflip=0.5)]),
        "evaluation": Recipe([], evaluation=size),
    }


class Files(Images):
    """Files in memory."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def __len__(self) -> int:
        return len(self.contents)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        return decode_image(self.contents[index], self.name(index), max_side)

    def name(self, row: int) -> str:
        return f"{row}.jpg"

    def select(self, rows: np.ndarray) -> Files:
        return Files([self.contents[row] for row in rows])


def photograph(height: int, width: int, seed: int) -> bytes:
    """A JPEG file with detail at all scales: about 60 kB at 375 x 500 pixels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for octave in range(1, 8):
        grid = [max(2, side * 2**octave // 256) for side in (height, width)]
        noise = torch.rand(1, 3, *grid, generator=generator) - 0.5
        image += F.interpolate(noise, (height, width), mode="bicubic") * 1.4**-octave
    file = io.BytesIO()
    to_pil_image((image[0] + 0.5).clamp(0, 1)).save(file, "JPEG", quality=92)
    return file.getvalue()


def ours(contents: list[bytes], recipe: Recipe) -> dict[str, Pipeline]:
    """The data sets that our data modules give to their loaders."""
    reader = ImageReader(Files(contents))
    keys = range(len(contents))
    if recipe.evaluation:
        transform = EvalTransform(recipe.evaluation, resize=round(recipe.evaluation * 8 / 7))
        served = EvaluationSet(reader, transform)
        return {"ours": lambda seed: served.__getitems__(list(keys))}
    views = ViewSet(reader, MultiCrop(recipe.crops))
    raw = RawSet(reader, 384)
    return {
        "ours": lambda seed: views.__getitems__([(key, seed * 1000 + key) for key in keys]),
        "ours, augment: device": lambda seed: raw.__getitems__([(key, seed) for key in keys]),
    }


def first_transforms(spec: CropSpec) -> T.Compose:
    """A kind of views from torchvision's first transforms, on Pillow images."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*spec.blur_sigma)))

    steps = [
        T.RandomResizedCrop(spec.size, scale=spec.scale, ratio=spec.ratio),
        T.RandomHorizontalFlip(spec.hflip),
    ]
    if spec.has_color:
        jitter = T.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
        steps += [T.RandomApply([jitter], spec.jitter_prob), T.RandomGrayscale(spec.grayscale)]
    if spec.blur:
        steps.append(T.RandomApply([blur], spec.blur))
    return T.Compose([*steps, T.PILToTensor()])


def second_transforms(spec: CropSpec) -> v2.Compose:
    """The same from its second ones, on uint8 tensors."""
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(spec.size, scale=spec.scale, ratio=spec.ratio, antialias=True),
        v2.RandomHorizontalFlip(spec.hflip),
    ]
    if spec.has_color:
        jitter = v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
        steps += [v2.RandomApply([jitter], spec.jitter_prob), v2.RandomGrayscale(spec.grayscale)]
    if spec.blur:
        reach = int(np.ceil(3 * spec.blur_sigma[1]))
        steps.append(v2.RandomApply([v2.GaussianBlur(2 * reach + 1, spec.blur_sigma)], spec.blur))
    return v2.Compose(steps)


def by_pillow(content: bytes) -> Image.Image:
    """Decode as ``torchvision.datasets`` do."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def by_torchvision(content: bytes) -> Tensor:
    """Decode to a tensor."""
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)


def peers(contents: list[bytes], recipe: Recipe) -> dict[str, Pipeline]:
    """The pipelines of others."""
    if recipe.evaluation:
        size, resize = recipe.evaluation, round(recipe.evaluation * 8 / 7)
        first = [(T.Compose([T.Resize(resize), T.CenterCrop(size), T.PILToTensor()]), 1)]
        second = [(v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)]), 1)]
    else:
        first = [(first_transforms(spec), spec.count) for spec in recipe.crops]
        second = [(second_transforms(spec), spec.count) for spec in recipe.crops]

    def batch(
        decode: Callable[[bytes], Any], kinds: Sequence[tuple[Callable[[Any], Tensor], int]], _: int
    ) -> Any:
        images = map(decode, contents)
        return default_collate(
            [[kind(image) for kind, count in kinds for _ in range(count)] for image in images]
        )

    return {
        PILLOW: functools.partial(batch, by_pillow, first),
        "torchvision v2 on tensors": functools.partial(batch, by_torchvision, second),
    }


def lightly(contents: list[bytes], recipe: Recipe) -> dict[str, Pipeline]:
    """Lightly's views of MSN, without their normalisation; nothing for other recipes."""
    if len(recipe.crops) < 2:
        return {}
    try:
        from lightly.transforms import MSNTransform
    except ImportError:
        return {"lightly (not installed)": lambda seed: None}
    large, small = recipe.crops
    transform = MSNTransform(
        random_size=large.size,
        focal_size=small.size,
        random_views=large.count,
        focal_views=small.count,
        cj_strength=0.5,
    )
    return {
        "lightly": lambda seed: default_collate(
            [transform(by_pillow(content)) for content in contents]
        )
    }


def measured(pipelines: dict[str, Pipeline], repeats: int, images: int) -> dict[str, list[float]]:
    """CPU milliseconds per image of each pipeline, by repeat."""
    for pipeline in pipelines.values():
        pipeline(0)
    spent: dict[str, list[float]] = {name: [] for name in pipelines}
    for repeat in range(repeats):
        for name, pipeline in pipelines.items():
            start = time.process_time()
            pipeline(repeat + 1)
            spent[name].append((time.process_time() - start) * 1000 / images)
    return spent


def show(title: str, spent: dict[str, list[float]]) -> None:
    """Print the table of one recipe on files of one size."""
    print(f"\n{title}")
    print(f"{'pipeline':<28}{'CPU-ms per image':>18}{'Pillow / this':>16}")
    for name, times in spent.items():
        if "not installed" in name:
            print(f"{name}")
            continue
        ratio = statistics.median(
            base / own for own, base in zip(times, spent[PILLOW], strict=True)
        )
        print(f"{name:<28}{statistics.median(times):>18.2f}{ratio:>16.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(recipes(224))
    parser.add_argument("--recipes", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--sides",
        type=int,
        nargs=2,
        action="append",
        metavar=("HEIGHT", "WIDTH"),
        help="of the files, in pixels; may be given several times (375 500 and 1200 1600)",
    )
    parser.add_argument("--size", type=int, default=224, help="of the large views, in pixels")
    parser.add_argument("--images", type=int, default=8, help="different files, and the batch")
    parser.add_argument("--repeats", type=int, default=20, help="interleaved repeats")
    parser.add_argument("--threads", type=int, default=1, help="of torch; workers have one")
    parser.add_argument("--tiny", action="store_true", help="all of it in a second, for tests")
    args = parser.parse_args(arguments)
    if args.tiny:
        args.sides, args.size, args.images, args.repeats = [(60, 80)], 28, 2, 1
    # torchvision announces in every call that decoding moves to torchcodec
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchvision")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for height, width in args.sides or [(375, 500), (1200, 1600)]:
        contents = [photograph(height, width, seed) for seed in range(args.images)]
        kilobytes = statistics.mean(map(len, contents)) / 1000
        for name in args.recipes:
            recipe = recipes(args.size)[name]
            pipelines = {
                **ours(contents, recipe),
                **peers(contents, recipe),
                **lightly(contents, recipe),
            }
            title = f"{name}, files of {height} x {width} pixels and {kilobytes:.0f} kB"
            show(title, measured(pipelines, args.repeats, len(contents)))


if __name__ == "__main__":
    main()
