"""Speed of both view engines beside a plain Pillow pipeline, in one run.

Counts views per second of CPU time of one process, in interleaved repeats, so that other work on
the machine hits all engines alike. On CUDA the device engine is charged with the host's CPU time
only, and the views per second of the GPU are printed as well.

    python benchmarks/augmentation.py
    python benchmarks/augmentation.py --device cuda --batch 128
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image, ImageFilter
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lit_ssl.transforms import CropSpec, MultiCrop, msn_crops

# Per size of the large views: the recipe and the height and width of the source images.
RECIPES = {
    224: (msn_crops(224, 96, num_large=2, num_small=10), (375, 500)),
    32: (msn_crops(32, 16, num_large=2, num_small=4), (32, 32)),
}


def pillow_pipeline(spec: CropSpec) -> T.Compose:
    """The same recipe from torchvision's first transforms, on Pillow images."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*spec.blur_sigma)))

    jitter = T.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    return T.Compose(
        [
            T.RandomResizedCrop(spec.size, scale=spec.scale, ratio=spec.ratio),
            T.RandomHorizontalFlip(spec.hflip),
            T.RandomApply([jitter], spec.jitter_prob),
            T.RandomGrayscale(spec.grayscale),
            T.RandomApply([blur], spec.blur),
            T.PILToTensor(),
        ]
    )


def make_image(height: int, width: int) -> Image.Image:
    """A smooth colourful image."""
    noise = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, (height, width), mode="bicubic")[0].clamp(0, 1)
    return to_pil_image(smooth)


def engines(
    crops: list[CropSpec], image: Image.Image, images: torch.Tensor
) -> dict[str, tuple[Callable[[int], object], int]]:
    """Per engine: a function of a seed, and the number of source images it works on."""
    pipelines = [(pillow_pipeline(spec), spec.count) for spec in crops]
    recipe = MultiCrop(crops)

    def pillow(seed: int) -> object:
        return [[pipeline(image) for _ in range(count)] for pipeline, count in pipelines]

    def worker(seed: int) -> object:
        return recipe(pil_to_tensor(image), seed)

    def device(seed: int) -> object:
        return recipe.batched(images, generator=torch.Generator().manual_seed(seed))

    return {"pillow": (pillow, 1), "worker": (worker, 1), "device": (device, len(images))}


def rate(function: Callable[[int], object], num_views: int, seconds: float, cuda: bool) -> float:
    """Views per second of this process's CPU time; waiting for the GPU is not counted."""
    calls, spent = 0, 0.0
    while spent < seconds:
        start = time.process_time()
        function(calls)
        spent += time.process_time() - start
        calls += 1
        if cuda:
            torch.cuda.synchronize()
    return calls * num_views / spent


def gpu_rate(function: Callable[[int], object], num_views: int, calls: int = 10) -> float:
    """Views per second of the GPU, by its own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for seed in range(calls):
        function(seed)
    end.record()
    torch.cuda.synchronize()
    return calls * num_views / begin.elapsed_time(end) * 1000


def run(size: int, args: argparse.Namespace) -> None:
    """Measures one recipe and prints its table."""
    crops, (height, width) = RECIPES[size]
    views = sum(spec.count for spec in crops)
    image = make_image(height, width)
    images = pil_to_tensor(image).expand(args.batch, -1, -1, -1).to(args.device)
    images = images.contiguous()
    cuda = images.is_cuda
    table: dict[str, list[float]] = {}
    compared = engines(crops, image, images)
    for name, (function, _) in compared.items():
        function(0)
        table[name] = []
    for _ in range(args.repeats):
        for name, (function, count) in compared.items():
            on_gpu = cuda and name == "device"
            table[name].append(rate(function, count * views, args.seconds, on_gpu))

    kinds = " + ".join(f"{spec.count} x {spec.size}" for spec in crops)
    print(f"\n{kinds} px from {height} x {width}, batch {args.batch} on {args.device}")
    print(f"{'engine':<8}{'views per CPU second':>22}{'ratio to pillow':>18}")
    for name, rates in table.items():
        ratios = [own / base for own, base in zip(rates, table["pillow"], strict=True)]
        print(f"{name:<8}{statistics.median(rates):>22.0f}{statistics.median(ratios):>18.2f}")
    if cuda:
        gpu = gpu_rate(compared["device"][0], args.batch * views)
        print(f"device engine on {torch.cuda.get_device_name()}: {gpu:.0f} views/s")


def main() -> None:
    """Parses the arguments and runs the recipes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=64, help="source images of the device engine")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        choices=list(RECIPES),
        default=list(RECIPES),
        help="size of the large views: which recipes to run",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per repeat")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for size in args.size:
        run(size, args)


if __name__ == "__main__":
    main()
