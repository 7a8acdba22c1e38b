"""What a set of shards says of itself: ``lit_ssl.json`` and a file of rows per split.

    lit_ssl.json              classes, transforms, splits, chunks with their checksums
    train/chunk-0-0.bin …     images with labels, as lit_ssl.datamodules.streaming.chunk_bytes says
    train/index.json          the same list of chunks for litdata
    train/rows.npz            of each image: chunk, offset, size, CRC-32, columns, name

Both files are data of others: they are checked before they are used, and nothing in them is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from lit_ssl.datamodules.streaming.chunk_bytes import FORMAT, ChunkFile
from lit_ssl.errors import InputError, quoted
from lit_ssl.json_text import parse_json
from lit_ssl.transforms import EvalTransform
from lit_ssl.version import __version__

__all__ = ["MANIFEST", "Kind", "Manifest", "SplitFiles", "chunk_name", "parse_manifest"]

MANIFEST = "lit_ssl.json"
_VERSION = 1  # of the format
_SPLITS = ("train", "val", "test")
_SMALLEST, _LARGEST = 1e-6, 1e6  # what mean and std may be
_SIDE = 16_384  # pixels of a side of evaluation images
_WORD = 200  # characters
# Files as they were; images of one size in memory; parts of images, frames of videos: the last two
# differ in how they are shrunk.
Kind = Literal["files", "arrays", "parts", "frames"]


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split.

    Args:
        kind: What its images were before.
        images: How many it has; 0: the split is there, with nothing in it.
        chunks: Its chunks.
        rows_size: Bytes of its file of rows.
        rows_sha256: Checksum of that, in hexadecimal.
        format: Parts of an item of its chunks, as litdata calls them.
    """

    kind: Kind
    images: int
    chunks: tuple[ChunkFile, ...]
    rows_size: int
    rows_sha256: str
    format: tuple[str, ...] = tuple(FORMAT)

    @property
    def size(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True)
class Manifest:
    """A set of shards.

    Args:
        data: Name of the data module that it was made of.
        class_names: Names of the classes, in the order of the labels.
        mean: Usual mean of each channel.
        std: Usual standard deviation of each channel.
        in_channels: Channels of its images.
        eval_transform: Arguments of the usual evaluation transform.
        val_size: Images that are usually held out of the training images for validation.
        reported: The split that papers report.
        inputs: What rows are.
        chosen_by: A column, and what has one value of it; None: rows are chosen one by one.
        splits: Name → files; a split that the data set does not have is missing.
        version: Of the format.
        lit_ssl: Version of this library that wrote it.
    """

    data: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_channels: int
    eval_transform: dict[str, Any]
    val_size: int
    reported: str
    inputs: str
    chosen_by: tuple[str, str] | None
    splits: dict[str, SplitFiles]
    version: int = _VERSION
    lit_ssl: str = field(default=__version__)

    def plain(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def transform(self) -> EvalTransform:
        """Return the usual evaluation transform."""
        return EvalTransform(**self.eval_transform)


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Return the manifest that a file holds.

    Args:
        content: The file.
        place: What messages call it.

    Raises:
        InputError: It is damaged, of another version, or its shards hold other things than images
            and labels.
    """
    try:
        values = parse_json(content)
        version = values.get("version")
        if type(version) is int and version == _VERSION:
            for name, files in dict(values["splits"]).items():
                _check_format(files["format"], f"{place}: the split {quoted(name)}")
            return _checked(values)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place} is damaged ({type(error).__name__}: {error}): copy it again, or run"
            " `lit-ssl shard` again"
        ) from error
    raise InputError(
        f"{place} is of version {quoted(version)} of the format, and this lit_ssl reads"
        f" {_VERSION}: run `lit-ssl shard` again, or use the lit_ssl that wrote it"
        f" ({quoted(values.get('lit_ssl'))})"
    )


def _check_format(form: Any, place: str) -> None:
    if form != FORMAT:
        raise InputError(
            f"{place} holds {quoted(form)}, and only shards of {FORMAT} are read, which run no code"
            " (a pickle does): make them with `lit-ssl shard`"
        )


def _checked(values: Mapping[str, Any]) -> Manifest:
    found = dict(values)
    if unknown := set(found) ^ {part.name for part in fields(Manifest)}:
        raise ValueError(f"{sorted(unknown)} missing or unknown")
    texts = found["class_names"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("class_names is no list of texts")
    channels = found["in_channels"]
    for name in ("mean", "std"):
        numbers = found[name]
        if len(numbers) not in (1, channels) or not all(_is_number(n) for n in numbers):
            raise ValueError(f"{name} is no list of {channels} numbers")
    if not all(number >= _SMALLEST for number in found["std"]):
        raise ValueError("std is not positive")
    if channels not in (1, 3) or not _is_count(channels) or not _is_count(found["val_size"]):
        raise ValueError("in_channels or val_size is no number that images have")
    for name in ("data", "inputs", "lit_ssl"):
        text = found[name]
        if not isinstance(text, str) or not text.isprintable() or not 1 <= len(text) <= _WORD:
            raise ValueError(f"{name} is no word")
    if found["reported"] not in _SPLITS or not set(found["splits"]) <= set(_SPLITS):
        raise ValueError("it names other splits than train, val and test")
    chosen_by = found["chosen_by"]
    if chosen_by is not None:
        column, units = chosen_by
        if not isinstance(column, str) or not isinstance(units, str) or not units.isprintable():
            raise ValueError("chosen_by is no column with a word for it")
        chosen_by = (column, units)
    splits = {name: _split(files) for name, files in found["splits"].items()}
    if not splits.get("train"):
        raise ValueError("it has no split train")
    _check_transform(found["eval_transform"])
    tuples = {name: tuple(found[name]) for name in ("class_names", "mean", "std")}
    return Manifest(**{**found, **tuples, "chosen_by": chosen_by, "splits": splits})


def _check_transform(arguments: Mapping[str, Any]) -> None:
    for name in ("size", "resize"):
        pixels = arguments[name]
        if not (_is_count(pixels) and pixels <= _SIDE) and (name, pixels) != ("resize", None):
            raise ValueError(f"eval_transform.{name} is no number of pixels")
    EvalTransform(**arguments)


def _split(files: Mapping[str, Any]) -> SplitFiles:
    if set(files) != {part.name for part in fields(SplitFiles)}:
        raise ValueError(f"a split has {sorted(files)}")
    if files["kind"] not in get_args(Kind):
        raise ValueError("the kind of a split")
    if not _is_count(files["images"]) or not _is_count(files["rows_size"]):
        raise ValueError("the sizes of a split")
    chunks = []
    for number, (name, size, images, sha256) in enumerate(files["chunks"]):
        if name != chunk_name(number):  # so that it can be no path
            raise ValueError(f"chunk {number} is called {quoted(name)}")
        if not _is_count(size) or not _is_count(images):
            raise ValueError(f"the sizes of {name}")
        chunks.append(ChunkFile(name, size, images, _hash(sha256)))
    if sum(chunk.images for chunk in chunks) != files["images"]:
        raise ValueError("its chunks have other numbers of images than it says")
    return SplitFiles(
        files["kind"],
        files["images"],
        tuple(chunks),
        files["rows_size"],
        _hash(files["rows_sha256"]),
    )


def chunk_name(number: int) -> str:
    """Return the name of a chunk, as litdata calls them.

    Args:
        number: of the chunk in its split, from 0.
    """
    return f"chunk-0-{number}.bin"


def _hash(text: Any) -> str:
    bytes.fromhex(text)
    if len(text) != 2 * hashlib.sha256().digest_size:
        raise ValueError("a checksum is none")
    return text


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST
