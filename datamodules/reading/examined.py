"""What is in image files: each is read and decoded wholly, by several processes."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from lit_ssl.datamodules.reading.decoding import decode_image
from lit_ssl.datamodules.reading.deep_pixels import has_wide_tiles, is_deep
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.errors import InputError, shortened
from lit_ssl.files import read_bytes

__all__ = ["ImageFacts", "examine", "examine_files"]

_CHUNK = 32  # files per message between processes
_FEW = 200  # files that are read before processes would have started
_ORIENTATION = 0x0112
_MODES = {
    "1": "black and white", "CMYK": "CMYK", "L": "grey", "LA": "grey with alpha", "La": "LA",
    "P": "palette", "PA": "palette with alpha", "RGB": "RGB", "RGBA": "RGBA",
}  # fmt: skip


class ImageFacts(NamedTuple):
    """What is known of a file once it was read as the data modules read it.

    Attributes:
        size: Bytes of the file.
        digest: Of its bytes: equal for equal files.
        format: Pillow's name of the format, by content; empty where it is no image.
        mode: How pixels are stored, in words.
        width: Of the picture as it is stored, in pixels.
        height: The same.
        turned: Whether the EXIF data say that it is to be turned or mirrored for viewing.
        transparent: Whether there are transparent pixels.
        pictures: Whether it holds several pictures, of which the first counts.
        problem: Why it cannot be read; empty where it can.
    """

    size: int
    digest: bytes
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    turned: bool = False
    transparent: bool = False
    pictures: bool = False
    problem: str = ""


def examine(path: str) -> ImageFacts:
    """Read and decode one image file, wholly, as training does.

    Args:
        path: The file.
    """
    try:
        content = read_bytes(path)
    except InputError as error:
        return ImageFacts(0, b"", problem=_line(_first(error)))
    facts = ImageFacts(len(content), hashlib.blake2b(content, digest_size=16).digest())
    if not content:
        return facts._replace(problem="the file is empty")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with Image.open(io.BytesIO(content)) as image:
                facts = _header(facts, image)
            decode_image(content, path)
        except UnidentifiedImageError:
            facts = facts._replace(problem="it is no image in a format that Pillow reads")
        except Exception as error:  # of a damaged file, each format has its own kinds
            facts = facts._replace(problem=_line(_first(error)))
    return facts._replace(transparent=any("transparent pixels" in str(w.message) for w in said))


def examine_files(folder: str, names: Sequence[str], workers: int) -> Iterator[ImageFacts]:
    """Yield what is in each of some files, in their order.

    Args:
        folder: Folder that holds them.
        names: Paths below it, with ``/``.
        workers: Processes that read, at least 1; a few files are read by this one.
    """
    if workers < 2 or len(names) <= _FEW:
        yield from (examine(os.path.join(folder, name)) for name in names)
        return
    chunks = DataLoader(
        _Chunks(folder, names), batch_size=None, num_workers=workers, collate_fn=_as_is
    )
    for chunk in chunks:
        yield from (ImageFacts(*fields) for fields in chunk)


class _Chunks(Dataset):
    """Item i is what is in the i-th of the chunks of the files."""

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = PackedStrings(names)

    def __len__(self) -> int:
        return -(-len(self.names) // _CHUNK)

    def __getitem__(self, item: int) -> list[tuple]:
        names = self.names[_CHUNK * item : _CHUNK * (item + 1)]
        return [tuple(examine(os.path.join(self.folder, name))) for name in names]


def _header(facts: ImageFacts, image: Image.Image) -> ImageFacts:
    deep = is_deep(image) or has_wide_tiles(image)
    # to look for EXIF data behind the pixels, Pillow would decode a PNG once more
    exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
    return facts._replace(
        format=image.format or "",
        mode="more than 8 bits" if deep else _MODES.get(image.mode, image.mode),
        width=image.width,
        height=image.height,
        turned=exif.get(_ORIENTATION, 1) not in (0, 1),
        pictures=bool(getattr(image, "is_animated", False)) and image.format != "MPO",
    )


def _first(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first(error.__cause__)


def _line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shortened(" ".join(text.split()))


def _as_is(chunk: Any) -> Any:
    return chunk
