"""Training images whose JPEG files are decoded on the training device, a batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.datamodules.loading.batches import Key, RawImages, Served, split_keys
from lit_ssl.datamodules.reading.encoded import Jpeg
from lit_ssl.datamodules.reading.jpeg import decode_plain
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader

__all__ = ["EncodedImages", "EncodedSet", "decoded"]

_RGB = 3  # torchvision.io.ImageReadMode.RGB


class EncodedImages:
    """Undistorted training images of a batch, those in JPEG files as their files.

    An ordinary object, which Lightning leaves where it is: decoders want files on the host.

    Args:
        files: uint8 ``[bytes]``, the JPEG files, one after the other.
        ends: int64 ``[E]``, where each of them ends.
        places: int64 ``[E]``, which images of the batch they are.
        pixels: uint8 ``[B - E, 3, canvas, canvas]``, the others, decoded; each in the upper left
            corner.
        sizes: int64 ``[B, 2]``, height and width of each image on its canvas.
        rows: int64 ``[B]``, rows of the split.
        seeds: int64 ``[B]``, one seed per sample and epoch.
    """

    def __init__(
        self,
        files: Tensor,
        ends: np.ndarray,
        places: np.ndarray,
        pixels: Tensor,
        sizes: np.ndarray,
        rows: np.ndarray,
        seeds: np.ndarray,
    ) -> None:
        self.files = files
        self.ends = ends
        self.places = places
        self.pixels = pixels
        self.sizes = sizes
        self.rows = rows
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def canvas(self) -> int:
        """Side of the square that holds an image."""
        return self.pixels.shape[-1]

    def pin_memory(self) -> EncodedImages:
        """Copy what goes to the device as it is to page-locked memory, for the loader."""
        self.pixels = self.pixels.pin_memory()
        return self

    def contents(self) -> list[Tensor]:
        """Return the files, uint8 ``[bytes]`` each."""
        return list(self.files.split(np.diff(self.ends, prepend=0).tolist()))


class EncodedSet(Served):
    """Undistorted training images, those in JPEG files as their files.

    Args:
        reader: Images of the training split.
        canvas: Side of the square on which images lie once they are decoded; larger ones are
            shrunk.
    """

    reader: ImageReader

    def __init__(self, reader: ImageReader, canvas: int) -> None:
        super().__init__(reader)
        self.canvas = canvas

    def __getitems__(self, keys: Sequence[Key]) -> tuple[EncodedImages, Tensor]:
        """Return (EncodedImages, rows)."""
        indices, seeds = split_keys(keys)
        rows = np.empty_like(indices)
        sizes = np.empty((len(indices), 2), dtype=np.int64)
        files: list[np.ndarray] = []
        places: list[int] = []
        others: list[Tensor] = []
        for place, index in enumerate(indices):
            image, rows[place] = self.reader.read_encoded(int(index), self.canvas)
            if isinstance(image, Jpeg):
                files.append(np.frombuffer(image.content, dtype=np.uint8))
                places.append(place)
                sizes[place] = _shrunk(image.size, self.canvas)
            else:
                others.append(image)
                sizes[place] = image.shape[-2:]
        pixels = torch.zeros(len(others), 3, self.canvas, self.canvas, dtype=torch.uint8)
        for own, image in zip(pixels, others, strict=True):
            own[:, : image.shape[1], : image.shape[2]] = image
        joined = np.concatenate([np.empty(0, dtype=np.uint8), *files])
        images = EncodedImages(
            files=torch.from_numpy(joined),
            ends=np.cumsum([len(file) for file in files], dtype=np.int64),
            places=np.array(places, dtype=np.int64),
            pixels=pixels,
            sizes=sizes,
            rows=rows,
            seeds=seeds,
        )
        return images, torch.from_numpy(rows.copy())


def decoded(
    images: EncodedImages, device: torch.device, reader: ImageReader
) -> tuple[RawImages, dict[int, int]]:
    """Decode the images of a batch on their way to a device.

    A file that the device cannot decode is read again on the host, as workers would have done: it
    comes as they would have sent it, stops the run, or another image stands in its place.

    Args:
        images: Of a batch.
        device: Where they are trained on. JPEG files are decoded there on CUDA, else on the host.
        reader: Images of the split.

    Returns:
        The images on the device, and which images of the batch are of other rows than before.

    Raises:
        CorruptImageError: An image is unreadable, and none is to be skipped.
    """
    count, canvas = len(images), images.canvas
    pixels = torch.zeros(count, 3, canvas, canvas, dtype=torch.uint8, device=device)
    sizes = images.sizes.copy()
    replaced: dict[int, int] = {}
    sent = iter(images.pixels.to(device, non_blocking=True))
    found = dict(zip(images.places.tolist(), _decode(images.contents(), device), strict=True))
    for place in range(count):
        image = found[place] if place in found else next(sent)
        if image is None:
            image, row = reader.read(int(images.rows[place]), canvas)
            sizes[place] = image.shape[-2:]
            if row != images.rows[place]:
                replaced[place] = row
        height, width = sizes[place].tolist()
        if place in found and image.shape[1:] != (height, width):
            image = F.resize(image, [height, width], F.InterpolationMode.BICUBIC, antialias=True)
        pixels[place, :, :height, :width].copy_(image[:, :height, :width], non_blocking=True)
    return RawImages(pixels, sizes, images.seeds), replaced


def _decode(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Pixels uint8 ``[3, H, W]`` of each file; None where it cannot be decoded."""
    if not files:
        # always the same text, so that it is shown once
        warnings.warn(
            "decode: device: no image of a batch is a JPEG file that a device decodes, and workers"
            " decode them: where that is the rule, set decode: worker",
            stacklevel=2,
        )
        return []
    if device.type != "cuda":
        return [decode_plain(file.numpy().tobytes()) for file in files]
    try:
        # below torchvision.io.decode_jpeg, which warns at each call that it will move
        return list(torch.ops.image.decode_jpegs_cuda(files, _RGB, device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # one of them fails all
        if len(files) == 1:
            warnings.warn(
                "An image cannot be decoded on the device and is read on the host, which is slow"
                f" where it happens often: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
            return [None]
    return [_decode([file], device)[0] for file in files]


def _shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Height and width of an image in proportion, at most ``longest``, as workers shrink it."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
