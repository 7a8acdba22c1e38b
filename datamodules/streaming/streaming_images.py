"""Images out of shards in a folder or an object store, as their own data module serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import Served
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.streaming.chunk_sampler import ChunkSampler
from lit_ssl.datamodules.streaming.manifest import MANIFEST, Manifest, SplitFiles, parse_manifest
from lit_ssl.datamodules.streaming.row_files import RowTable, stored_rows
from lit_ssl.datamodules.streaming.streamed_images import ShardFiles, StreamedImages
from lit_ssl.errors import InputError, InputFileNotFoundError, check_choice, quoted
from lit_ssl.files import describe_folder
from lit_ssl.stores.byte_sizes import byte_count
from lit_ssl.stores.file_cache import FileCache
from lit_ssl.stores.places import Folder, place_at
from lit_ssl.transforms import EvalTransform, MultiCrop, SingleView

__all__ = ["StreamingImageDataModule"]

_AT_ONCE = 2  # chunks that evaluation reads beside those of training


class StreamingImageDataModule(ImageDataModule):
    """Images that ``lit-ssl shard`` has written, read while they are trained on.

    With the same options it gives the same batches as the data module that the shards were made of:
    rows, labels, views and their order are a function of (seed, epoch, row) in both. Classes, mean,
    std, evaluation transform and ``val_size`` are those of that module, unless given here.

    Shards of a folder are read where they are. Of those of a store, copies are kept in
    ``cache_dir``, which processes and runs share; where ``cache_size`` holds a split, its shards
    are fetched once. Where it does not, training images are fetched one by one (``shuffle: rows``),
    or shard by shard (``shuffle: chunks``); evaluation reads in order, shard by shard, and banks of
    training images one by one. Credentials are those of the environment (``AWS_…``); a store other
    than Amazon's is named by ``AWS_ENDPOINT_URL``.

    Args:
        url: The folder of the shards: a path, ``s3://``, ``http(s)://``, ``gs://`` or what else
            fsspec opens.
        cache_dir: Folder for copies of shards of a store. None: ``lit_ssl/shards`` in
            ``XDG_CACHE_HOME``, or else in ``~/.cache``.
        cache_size: Bytes that it may have in all, such as 100GB.
        shuffle: "rows": an epoch is a random order of all images, as with files. "chunks": shards
            come in random order, and images of ``window`` of them are mixed at any time, so that
            each shard is fetched once an epoch.
        window: Shards that are mixed with ``shuffle: chunks``.
        num_workers: Worker processes per loader.
        val_size: Number of training images held out for validation. None: as the data set has it.
        val_file: As of ``ImageDataModule``.
        mean: Mean of each channel. None: as the data set has it.
        std: Standard deviation of each channel. None: as the data set has it.
        kwargs: Arguments of ``ImageDataModule``.

    Raises:
        InputError: There are no such shards, or they are damaged.
    """

    def __init__(
        self,
        *,
        url: str,
        cache_dir: str | None = None,
        cache_size: str | int = "50GB",
        shuffle: Literal["rows", "chunks"] = "rows",
        window: int = 16,
        num_workers: int = 8,
        val_size: int | None = None,
        val_file: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("shuffle", shuffle, ("rows", "chunks"))
        if window < 1:
            raise InputError(f"window must be at least 1 shard, got {window}")
        limit = byte_count(cache_size, "cache_size")
        self.place = place_at(url)
        self.manifest = _manifest_at(url)
        # before the base asks for them
        self.in_channels = self.manifest.in_channels
        vars(self).update(inputs=self.manifest.inputs, chosen_by=self.manifest.chosen_by)
        held_out = self.manifest.val_size if val_file is None else 0
        super().__init__(
            num_workers=num_workers,
            val_size=held_out if val_size is None else val_size,
            val_file=val_file,
            mean=mean or self.manifest.mean,
            std=std or self.manifest.std,
            **kwargs,
        )
        self.url = url
        self.shuffle = shuffle
        self.window = window
        is_here = isinstance(self.place, Folder)
        self.cache = None if is_here else FileCache(cache_dir, limit)
        if shuffle == "chunks":
            for name, plain in (("classes_per_batch", None), ("repeats", 1)):
                if getattr(self, name) != plain:
                    raise InputError(
                        f"shuffle: chunks and {name} both order an epoch: give one of them"
                    )
            self._check_room()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; empty if there are no labels."""
        return self.manifest.class_names

    @property
    def validates_on_test(self) -> bool:
        """Whether validation sees the images that results are reported on; no choice is for it."""
        return self._splits.validation_source == self.manifest.reported

    def default_eval_transform(self) -> EvalTransform:
        """Return the evaluation transform that is usual for the data set."""
        return self.manifest.transform()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split, None if the data set has no such split.

        Raises:
            InputError: A shard on this machine is missing or cut short.
        """
        files = self.manifest.splits.get(split)
        if files is None:
            return None
        table = self._table(split, files)
        self._check_columns(split, table.columns)
        shards = ShardFiles(self.place, split, files.chunks, self.cache)
        if self.cache is None:
            _check_sizes(shards)
        images = StreamedImages(
            shards,
            table.chunk,
            table.offset,
            table.size,
            table.crc,
            table.names,
            files.kind,
            # training images in the order of the rows, which is not that of the shards
            whole=split != "train" or self._fits(files),
        )
        self._say_how(split, files, images.whole or self.shuffle == "chunks")
        return Rows(images, table.columns)

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Read images as ``background``, ``max_value`` and ``on_corrupt`` say."""
        images = copy(rows.source)
        assert isinstance(images, StreamedImages)
        if getattr(self, "decode", "worker") == "device" and images.kind == "arrays":
            raise InputError(
                "decode: device is for images in files, and these were in memory before they were"
                " in shards: set decode: worker"
            )
        images.decoding = self.decoding
        return Rows(ImageReader(images, self.on_corrupt == "skip"), rows.columns)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images or views, rows)."""
        dataset = super().served(split, training)
        if training and self.shuffle == "chunks":
            assert isinstance(dataset, Served)
            dataset.reader = copy(dataset.reader)
            dataset.reader.images = dataset.reader.images.read_whole()
        return dataset

    def training_set(self, recipe: MultiCrop | SingleView | None) -> Dataset:
        """Return a data set of the training images.

        Args:
            recipe: Views to make of them; hand it to ``finish`` too.
        """
        return super().served("train") if recipe is None else super().training_set(recipe)

    def epoch_sampler(self, dataset: Dataset) -> EpochSampler:
        """Return the sampler that orders training epochs."""
        if self.shuffle == "rows":
            return super().epoch_sampler(dataset)
        rows = self._require("train")
        assert isinstance(rows.source, ImageReader)
        assert isinstance(rows.source.images, StreamedImages)
        return ChunkSampler(
            dataset,
            rows.source.images.chunk,
            self.window,
            *self.shard(),
            seed=self.run_seed(),
            drop_last=self.drop_last,
        )

    # How shards are read

    def _table(self, split: str, files: SplitFiles) -> RowTable:
        name = f"{split}/rows.npz"
        if self.cache is None:
            assert isinstance(self.place, Folder)
            path = self.place.path(name)
            return stored_rows(path, files, self.place.name_of(name))
        while True:
            path = self.cache.path(self.place, name, files.rows_size, files.rows_sha256)
            try:
                return stored_rows(path, files, self.place.name_of(name))
            except InputError:
                if path.is_file():
                    raise  # else it had to make room in between

    def _check_columns(self, split: str, columns: Mapping[str, np.ndarray]) -> None:
        wrong = None
        if self.chosen_by is not None and self.chosen_by[0] not in columns:
            wrong = f"chosen_by: it has no column {quoted(self.chosen_by[0])}"
        highest = int(columns["label"].max(initial=0))
        if highest >= max(1, len(self.class_names)):
            wrong = f"class_names: {len(self.class_names)}, and labels go up to {highest}"
        if wrong is not None:
            raise InputError(
                f"{self.place.name_of(MANIFEST)} does not go with its split {split} ({wrong}): copy"
                " the set again, or run `lit-ssl shard` again"
            )

    def _fits(self, files: SplitFiles) -> bool:
        return self.cache is None or files.size <= self.cache.limit

    def _check_room(self) -> None:
        chunks = self.manifest.splits["train"].chunks
        largest = max((chunk.size for chunk in chunks), default=0)
        needed = min(len(chunks), self.window + _AT_ONCE) * largest
        if self.cache is not None and needed > self.cache.limit:
            raise InputError(
                f"a window of {self.window} shards needs {needed:,} bytes, and cache_size is"
                f" {self.cache.limit:,}: raise it, or mix fewer (window)"
            )

    def _say_how(self, split: str, files: SplitFiles, whole: bool) -> None:
        if self.cache is None or not files.chunks:
            return
        how = f"kept in {self.cache.folder}" if whole else "fetched image by image"
        more = "" if self._fits(files) else f", which may have {self.cache.limit / 1e9:,.3g} GB"
        rank_zero_info(
            f"{split}: {files.size / 1e9:,.3g} GB in {len(files.chunks):,} shards, {how}{more}"
        )


def _manifest_at(url: str) -> Manifest:
    place = place_at(url)
    if isinstance(place, Folder) and not place.path(MANIFEST).is_file():
        raise InputFileNotFoundError(
            f"no shards of images: {describe_folder(Path(place.url))}; `lit-ssl shard` makes them"
        )
    return parse_manifest(place.read(MANIFEST), place.name_of(MANIFEST))


def _check_sizes(shards: ShardFiles) -> None:
    assert isinstance(shards.place, Folder)
    for file in shards.files:
        path = shards.place.path(f"{shards.folder}/{file.name}")
        found = path.stat().st_size if path.is_file() else None
        if found != file.size:
            what = "is missing" if found is None else f"has {found:,} of {file.size:,} bytes"
            raise InputError(f"{path} {what}: copy the whole set again")
