"""Images with labels in tars on disk, as webdataset writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.shards.shard_names import is_remote, list_shards
from lit_ssl.datamodules.vision_language.shards.tar_index import (
    TarIndex,
    index_path,
    index_tar,
    stored_index,
)
from lit_ssl.datamodules.vision_language.shards.tar_members import CLS, NUMBER, CorruptShardError
from lit_ssl.datamodules.vision_language.shards.tar_pairs import TarImages
from lit_ssl.distributed import process_rank, world_size
from lit_ssl.errors import InputError, listed
from lit_ssl.files import text_lines
from lit_ssl.numerals import whole_number

__all__ = ["ImageTarsDataModule"]


class ImageTarsDataModule(ImageDataModule):
    """Labelled images in webdatasets on disk: ``<key>.jpg`` with ``<key>.cls`` or ``<key>.json``.

    Images are ``.jpg``, ``.jpeg``, ``.png`` or ``.webp``; the files of a sample follow each other.
    One pass over each tar finds where the images are and keeps that in a file; from then on they
    are rows like any others: shuffled, shared out, resumed. Samples without an image or a label are
    left out, and a warning says how many those are. Nothing is unpacked.

    Args:
        shards: The tars of the training split: paths, globs or folders, with numbers in braces:
            ``/data/imagenet/train-{0000..1023}.tar``.
        val_shards: Those to validate on; None: there is no such split.
        test_shards: Those to test on; None: there is no such split.
        label: "cls": labels are in ``<key>.cls``; else the name of a field of ``<key>.json``. They
            are numbers of classes, from 0; −1 is unknown.
        class_names: Names of the classes, or a text file with one a line. None: they are called by
            their numbers, up to the largest of the training split.
        index_dir: Folder to keep the indices in; None: ``.lit_ssl_index`` beside the tars.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageDataModule``.

    Raises:
        InputError: A tar is missing or broken, is not on this machine, or has no labels.
    """

    def __init__(
        self,
        *,
        shards: str | Sequence[str],
        val_shards: str | Sequence[str] | None = None,
        test_shards: str | Sequence[str] | None = None,
        label: str = "cls",
        class_names: str | Sequence[str] | None = None,
        index_dir: str | None = None,
        image_size: int = 224,
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        self.default_size = image_size
        self.shards = {"train": shards, "val": val_shards, "test": test_shards}
        self.label = label
        self.index_dir = None if index_dir is None else Path(index_dir).expanduser()
        self._given_names = class_names

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        given = self._given_names
        if given is None:
            labels = self._labels(list_shards(self.shards["train"] or ()))
            return [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
        if isinstance(given, str):
            return [line for _, line in text_lines(Path(given).expanduser())]
        return list(given)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split, None if there is no such split."""
        shards = self.shards.get(split)
        if shards is None:
            return None
        tars = list_shards(shards)
        indices = self._indices(tars)
        self._say_left_out(split, tars, indices)
        common = os.path.commonpath([os.path.dirname(os.path.abspath(tar)) for tar in tars])
        inside = [Path(os.path.relpath(tar, common)).as_posix() for tar in tars]
        images = TarImages(
            tars,
            np.repeat(np.arange(len(tars), dtype=np.int32), [len(one.keys) for one in indices]),
            np.concatenate([index.offsets for index in indices]),
            np.concatenate([index.sizes for index in indices]),
            PackedStrings(
                f"{tar}/{key}"
                for tar, index in zip(inside, indices, strict=True)
                for key in index.keys
            ),
        )
        rank_zero_info(f"{split}: {len(images):,} images in {len(tars):,} tars")
        return Rows(images, {"label": self._labels(tars)})

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Read images as ``background``, ``max_value`` and ``on_corrupt`` say."""
        images = copy(rows.source)
        assert isinstance(images, TarImages)
        images.decoding = self.decoding
        return Rows(ImageReader(images, self.on_corrupt == "skip"), rows.columns)

    def _labels(self, tars: Sequence[str]) -> np.ndarray:
        """Labels of the images of tars, int64."""
        labels = []
        for tar, index in zip(tars, self._indices(tars), strict=True):
            for key, text in zip(index.keys, index.captions, strict=True):
                number = whole_number(text)
                if number is None or number < -1:
                    raise InputError(
                        f"{tar}: the label of {key} is {text[:60]!r}: expected the number of a"
                        " class, from 0 (-1: unknown)"
                    )
                labels.append(number)
        return np.array(labels, dtype=np.int64)

    def _indices(self, tars: Sequence[str]) -> list[TarIndex]:
        """The indices of tars, in their order; those that are not kept yet are made."""
        if remote := [tar for tar in tars if is_remote(tar)]:
            raise InputError(
                f"{remote[0]} is not on this machine, and tars are indexed before they are trained"
                " on: copy them, or make shards where they are (`lit-ssl shard`), which"
                " StreamingImageDataModule reads from a store"
            )
        where = CLS if self.label == "cls" else NUMBER + self.label
        paths = [index_path(Path(tar), where, self.index_dir) for tar in tars]
        found: dict[int, TarIndex] = {}
        begin = process_rank() * len(tars) // world_size()
        places = list(range(len(tars)))
        for place in places[begin:] + places[:begin]:  # each process begins elsewhere
            tar = Path(tars[place])
            kept = stored_index(tar, where, paths[place])
            found[place] = kept or index_tar(tar, where, paths[place])
        return [found[place] for place in places]

    def _say_left_out(self, split: Split, tars: Sequence[str], indices: Sequence[TarIndex]) -> None:
        broken = [index.broken for index in indices if index.broken]
        if broken and self.on_corrupt == "raise":
            raise CorruptShardError(broken[0])
        for line in broken:
            rank_zero_warn(f"{line.partition('. Fetch')[0]}: the images before are used")
        total: dict[str, tuple[int, str]] = {}
        for tar, index in zip(tars, indices, strict=True):
            for why, (count, first) in index.left_out.items():
                known, example = total.get(why, (0, f"{tar}: {first!r}"))
                total[why.replace("caption", "label")] = (known + count, example)
        said = listed([f"{n:,} {why} (such as {first})" for why, (n, first) in total.items()])
        if not any(len(index.keys) for index in indices):
            expected = ".cls" if self.label == "cls" else f".json with a number {self.label!r}"
            raise InputError(
                f"no image with a label for the {split} split in {len(tars):,} tars, such as"
                f" {tars[0]}{': ' * bool(said)}{said}. Expected <key>.jpg (or .png, .webp) followed"
                f" by <key>{expected}"
            )
        if said:
            rank_zero_warn(f"left out of the {split} split: {said}")
