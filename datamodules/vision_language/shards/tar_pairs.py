"""Captions in tars on disk, as img2dataset and webdataset write them, with random access."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import (
    AS_USUAL,
    CorruptImageError,
    Decoding,
    decode_image,
)
from lit_ssl.datamodules.reading.encoded import Jpeg
from lit_ssl.datamodules.reading.encoded import encoded as jpeg_or_pixels
from lit_ssl.datamodules.reading.images import Images, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages
from lit_ssl.datamodules.vision_language.shards.shard_names import is_remote, list_shards
from lit_ssl.datamodules.vision_language.shards.tar_index import (
    TarIndex,
    index_path,
    index_tar,
    stored_index,
)
from lit_ssl.datamodules.vision_language.shards.tar_members import NO_TEXT, TXT, CorruptShardError
from lit_ssl.distributed import process_rank, world_size
from lit_ssl.errors import InputError, check_choice

__all__ = ["TarImages", "TarPairs"]

_MOST_OPEN = 128  # tars per process; systems allow some 1,000 files


class TarImages(Images):
    """RGB images in tars, read where they lie; nothing is unpacked.

    Args:
        tars: Paths of the tars.
        tar_of: int32 ``[N]``: the tar of each image.
        offsets: int64 ``[N]``: where its file begins in the tar, in bytes.
        sizes: int64 ``[N]``: its bytes.
        names: N names, for lists and messages.
        decoding: How they are decoded.
    """

    def __init__(
        self,
        tars: Sequence[str],
        tar_of: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
        names: PackedStrings,
        decoding: Decoding = AS_USUAL,
    ) -> None:
        self.decoding = decoding
        self.tars = list(tars)
        self.tar_of = tar_of
        self.offsets = offsets
        self.sizes = sizes
        self.names = names
        self._files = _OpenFiles()

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Decode one image to uint8 ``[3, H, W]``, no side of it longer than ``max_side``."""
        return decode_image(self.encoded(index), self._called(index), max_side, self.decoding)

    def read_encoded(self, index: int, max_side: int | None = None) -> Jpeg | Tensor:
        """Return a JPEG file as it is where a device can decode it, else what ``read`` does."""
        return jpeg_or_pixels(self.encoded(index), self._called(index), max_side, self.decoding)

    def encoded(self, index: int) -> bytes:
        """Return the file of an image.

        Args:
            index: row of the image.

        Raises:
            CorruptImageError: It cannot be read.
        """
        tar, size = self.tars[self.tar_of[index]], int(self.sizes[index])
        name = self._called(index)
        try:
            content = self._files.read(tar, int(self.offsets[index]), size)
        except OSError as error:
            raise CorruptImageError(f"Cannot read the image {name}: {error}") from error
        if len(content) < size:
            raise CorruptImageError(
                f"Cannot read the image {name}: the tar is shorter than it was. Start again, so"
                " that it is indexed anew"
            )
        return content

    def _called(self, index: int) -> str:
        return f"{self.names[index]} (in {self.tars[self.tar_of[index]]})"

    def name(self, row: int) -> str | None:
        """Return the name of an image: its tar and its key, ``00000.tar/000000012``."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> TarImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; no tar is read."""
        return TarImages(
            self.tars,
            self.tar_of[rows],
            self.offsets[rows],
            self.sizes[rows],
            self.names.select(rows),
            self.decoding,
        )


class _OpenFiles:
    """Files of this process, the longest unused one closed where there are too many."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def read(self, path: str, offset: int, size: int) -> bytes:
        if self._process != os.getpid():
            # After a fork, a file has one position for both processes.
            self.__init__()  # type: ignore[misc]
        file = self._files.pop(path, None) or open(path, "rb", buffering=0)  # noqa: SIM115
        self._files[path] = file
        if len(self._files) > _MOST_OPEN:
            self._files.popitem(last=False)[1].close()
        file.seek(offset)
        return file.read(size)


class TarPairs(CaptionSource):
    """Images with captions in tars on disk: ``<key>.jpg``, ``<key>.txt`` and/or ``<key>.json``.

    So CC3M, CC12M and SBU come from img2dataset, and any webdataset is laid out. Images are
    ``.jpg``, ``.jpeg``, ``.png`` or ``.webp``; the files of a sample follow each other. One pass
    over each tar finds where the images are, and keeps that in a file; later starts read the file
    alone. From then on the pairs are rows like any others: shuffled, mixed, held out, resumed. What
    is no pair is left out, and a warning says how many those are. Nothing is unpacked.

    Args:
        shards: The tars of the training split: paths, globs or folders, with numbers in braces:
            ``/data/cc3m/{00000..00331}.tar``.
        val_shards: Those to validate on; None: there is no such split.
        test_shards: Those to test on; None: there is no such split.
        caption: "txt": captions are in ``<key>.txt``; else the name of a field of ``<key>.json``.
        index_dir: Folder to keep the indices in; None: ``.lit_ssl_index`` beside the tars. They are
            made anew where a tar has changed (size or time).
        on_corrupt: "raise" stops at a tar that is cut short and at a caption that is no text;
            "skip" uses the pairs before the cut, leaves such captions out, and warns.
        name: What lines about a run call it; None: the name of the folder of the first tar.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        *,
        val_shards: str | Sequence[str] | None = None,
        test_shards: str | Sequence[str] | None = None,
        caption: str = TXT,
        index_dir: str | None = None,
        on_corrupt: Literal["raise", "skip"] = "raise",
        name: str | None = None,
    ) -> None:
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        self.shards = {"train": shards, "val": val_shards, "test": test_shards}
        self.caption = caption
        self.index_dir = None if index_dir is None else Path(index_dir).expanduser()
        self.on_corrupt = on_corrupt
        self.name = name or _folder_name(shards) or type(self).__name__

    def load_rows(self, split: Split) -> Rows | None:
        """Return the pairs of a split; None if there is no such split.

        Args:
            split: "train", "val" or "test".

        Raises:
            InputError: There are no shards, or no pairs in them; one is broken.
        """
        shards = self.shards.get(split)
        if shards is None:
            return None
        tars = list_shards(shards)
        if remote := [tar for tar in tars if is_remote(tar)]:
            raise InputError(
                f"{self.name}: TarPairs reads tars on disk, and {remote[0]} is not: stream it with"
                " CaptionShardsDataModule"
            )
        indices = self._indices([Path(tar) for tar in tars])
        self._check(tars, indices)
        counts = [len(index.keys) for index in indices]
        common = os.path.commonpath([os.path.dirname(os.path.abspath(tar)) for tar in tars])
        inside = [Path(os.path.relpath(tar, common)).as_posix() for tar in tars]
        names = PackedStrings(
            f"{tar}/{key}" for tar, index in zip(inside, indices, strict=True) for key in index.keys
        )
        images = TarImages(
            tars,
            np.repeat(np.arange(len(tars), dtype=np.int32), counts),
            np.concatenate([index.offsets for index in indices]),
            np.concatenate([index.sizes for index in indices]),
            names,
        )
        texts = [text for index in indices for text in index.captions]
        rows = np.arange(len(texts))
        rank_zero_info(f"{self.name}: {len(texts):,} pairs for {split} in {len(tars):,} tars")
        columns = {"label": np.full(len(texts), -1), "image_number": rows}
        return Rows(CaptionedImages(images, rows, texts), columns)

    def _indices(self, tars: Sequence[Path]) -> list[TarIndex]:
        """The indices of tars, in their order; those that are not kept yet are made."""
        paths = [index_path(tar, self.caption, self.index_dir) for tar in tars]
        found: list[TarIndex | None] = [
            stored_index(tar, self.caption, path) for tar, path in zip(tars, paths, strict=True)
        ]
        lacking = [place for place, index in enumerate(found) if index is None]
        if lacking:
            rank_zero_info(
                f"{self.name}: reading {len(lacking):,} of {len(tars):,} tars once, to index them;"
                f" kept in {paths[lacking[0]].parent}"
            )
        # Each process begins elsewhere, and finds what others have made by then.
        begin = process_rank() * len(lacking) // world_size()
        for place in lacking[begin:] + lacking[:begin]:
            tar, path = tars[place], paths[place]
            kept = stored_index(tar, self.caption, path) if world_size() > 1 else None
            found[place] = kept or index_tar(tar, self.caption, path)
        return [index for index in found if index is not None]

    def _check(self, tars: Sequence[str], indices: Sequence[TarIndex]) -> None:
        """Stop at what is broken, or say what is left out."""
        pairs = sum(len(index.keys) for index in indices)
        total: dict[str, tuple[int, str]] = {}
        for tar, index in zip(tars, indices, strict=True):
            for why, (count, first) in index.left_out.items():
                known, example = total.get(why, (0, f"{tar}: {first!r}"))
                total[why] = (known + count, example)
        broken = [index.broken for index in indices if index.broken]
        if self.on_corrupt == "raise":
            if broken:
                more = f" ({len(broken):,} of {len(tars):,} tars are so)" if broken[1:] else ""
                raise CorruptShardError(f"{self.name}: {broken[0]}{more}")
            if NO_TEXT in total:
                raise CorruptShardError(
                    f"{self.name}: {_counted(total, NO_TEXT)}. Mend them, or set on_corrupt: skip"
                    " to leave them out"
                )
        said = "; ".join(_counted(total, why) for why in sorted(total))
        if not pairs:
            raise InputError(
                f"{self.name}: no pair of an image and a caption in {len(tars):,} tars, such as"
                f" {tars[0]}{': ' * bool(said)}{said}. Expected <key>.jpg (or .png, .webp) followed"
                f" by {_where(self.caption)}"
            )
        for line in broken:
            rank_zero_warn(
                f"{self.name}: {line.partition('. Fetch')[0]}: the pairs before are used"
            )
        empty = [tar for tar, index in zip(tars, indices, strict=True) if not len(index.keys)]
        if empty:
            rank_zero_warn(f"{self.name}: {len(empty):,} tars have no pair, such as {empty[0]}")
        if said:
            rank_zero_warn(f"{self.name}: left out of {pairs:,} pairs: {said}")


def _folder_name(shards: str | Sequence[str]) -> str:
    """The name of the folder of the first tar; empty where there is none."""
    first = shards if isinstance(shards, str) else next(iter(shards), "")
    if is_remote(first):
        return os.path.basename(os.path.dirname(first))
    path = os.path.abspath(os.path.expanduser(first))
    return os.path.basename(path if os.path.isdir(path) else os.path.dirname(path))


def _counted(total: dict[str, tuple[int, str]], why: str) -> str:
    count, example = total[why]
    return f"{count:,} {why} (such as {example})"


def _where(caption: str) -> str:
    if caption == TXT:
        return "<key>.txt; where captions are in <key>.json, set caption to the name of their field"
    return f"<key>.json with a text {caption!r}; set caption to its field, or to txt for <key>.txt"
