"""Captions streamed from shards, for a corpus that is not on this machine's disks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lit_ssl.datamodules.loading.resumable import Targets
from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.image_captions import ImageCaptionModule
from lit_ssl.datamodules.vision_language.shards.shard_batches import (
    PairDecoder,
    ShardPass,
    ShardStream,
    StreamSampler,
)
from lit_ssl.datamodules.vision_language.shards.shard_names import list_shards
from lit_ssl.datamodules.vision_language.shards.shard_opening import check_shards_open
from lit_ssl.datamodules.vision_language.shards.shard_sets import ShardSet, as_sets, stated_pairs
from lit_ssl.datamodules.vision_language.shards.shard_stream import StreamKeys
from lit_ssl.datamodules.vision_language.shards.stream_tally import UNREADABLE, Tally
from lit_ssl.errors import InputError
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.trainer.hparams import not_plain

__all__ = ["CaptionShardsDataModule"]


class CaptionShardsDataModule(ImageCaptionModule):
    """Images with captions, streamed from tars as img2dataset and webdataset write them.

    Shards are read from their beginning to their end, from a URL while they are fetched; nothing is
    kept. Batches are those of ``ImageCaptionModule``; image numbers are hashes of shard and key.
    Tars on local disks are better read with ``TarPairs``, which shuffles all pairs and can hold
    some out.

    Each epoch deals out the shards, in a new order, to the streams of all processes: none is read
    by two, none is left over. A stream is shuffled through a buffer, and gives its share of
    ``epoch_samples``. Where it has fewer pairs it begins again; where it has more, the others are
    not seen in this epoch. So each pair comes exactly once per epoch where all streams have
    ``epoch_samples`` / streams pairs and that is a multiple of ``batch_size``; every process always
    makes the same number of batches. After a crash the run goes on with the same batches, if
    ``streams`` and the number of processes are the same: what was used of the epoch is read again,
    but not decoded.

    Args:
        shards: Paths, globs, folders or URLs, with numbers in braces:
            ``https://host/cc3m/{00000..00331}.tar``; http(s), gs, and what ``webdataset.gopen``
            opens besides; s3 and others by fsspec and its packages. Or several ``ShardSet``, to be
            mixed.
        tokenizer: A folder with a tokenizer, or a ``vocab.txt``.
        val_shards: Shards to validate on; each process reads all of them and decodes its part.
            None: no validation.
        caption: "txt": captions are in ``<key>.txt``; else the name of a field of ``<key>.json``.
            A ``ShardSet`` has its own.
        epoch_samples: Pairs of an epoch, over all processes. None: all, as img2dataset's files
            ``00000_stats.json`` beside shards on local disks count them.
        streams: Streams per process, each of which reads other shards. None: as many as workers,
            at least 1; else a multiple of ``num_workers``. The order depends on them, and not on
            the workers.
        shuffle_buffer: Pairs, not decoded, that a stream draws the next one from.
        allow_pipe: Let shards be commands, ``pipe:aws s3 cp s3://bucket/{00000..00331}.tar -``,
            which **the shell runs** on this machine. Leave it out for configurations of others.
        on_corrupt: "raise" stops at a shard that is cut short or cannot be fetched, at a caption
            that is no text and at an image that cannot be read; "skip" goes on with the next pair
            (for an image: of the same batch), warns of the first of each kind and counts them.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageCaptionModule``.

    Raises:
        InputError: A number is out of its range, or an option is given that a stream cannot have.
    """

    def __init__(
        self,
        *,
        shards: str | Sequence[str] | Sequence[ShardSet],
        tokenizer: str | CorpusWordPiece | Sequence[str],
        val_shards: str | Sequence[str] | Sequence[ShardSet] | None = None,
        caption: str = "txt",
        epoch_samples: int | None = None,
        streams: int | None = None,
        shuffle_buffer: int = 1000,
        allow_pipe: bool = False,
        on_corrupt: Literal["raise", "skip"] = "raise",
        num_workers: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer, num_workers=num_workers, on_corrupt=on_corrupt, **kwargs
        )
        if isinstance(tokenizer, CorpusWordPiece):
            raise InputError(
                "a CorpusWordPiece is trained on texts that are all there before the start, and"
                " these are streamed: train it once on some of the shards with TarPairs, and give"
                " tokenizer the file that it wrote"
            )
        if self.subset is not None:
            raise InputError("a stream has no rows to choose a subset from: name fewer shards")
        if self.val_size or kwargs.get("val_file") is not None:
            raise InputError("a stream holds no rows out (val_size, val_file): set val_shards")
        if self.other_images:
            raise InputError(
                "a stream cannot draw images from all of a corpus (other_images): leave it out, and"
                " texts are matched with other images of their batch"
            )
        for name, value in (("epoch_samples", epoch_samples), ("streams", streams)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if shuffle_buffer < 1:
            raise InputError(
                f"shuffle_buffer must be at least 1 (no shuffling), not {shuffle_buffer}"
            )
        if streams is not None and num_workers and streams % num_workers:
            raise InputError(
                f"streams must be a multiple of num_workers, else several workers read the same"
                f" shards: {streams} is none of {num_workers}"
            )
        for name in not_plain(shards=shards, val_shards=val_shards):
            self.hparams.pop(name, None)  # a checkpoint with objects in it could not be read
        self.sets = as_sets(shards, caption)
        self.val_sets = None if val_shards is None else as_sets(val_shards, caption)
        self.epoch_samples = epoch_samples
        self.streams = streams or max(1, num_workers)
        self.shuffle_buffer = shuffle_buffer
        self.allow_pipe = allow_pipe
        self.tally = Tally(max(self.streams, num_workers, 1), on_corrupt == "skip")

    # What there is

    @cached_property
    def train_shards(self) -> list[list[str]]:
        """The training shards of each set."""
        return self._listed(self.sets)

    @cached_property
    def _val_shards(self) -> list[list[str]]:
        return self._listed(self.val_sets or ())

    def _listed(self, sets: Sequence[ShardSet]) -> list[list[str]]:
        found = [list_shards(one.shards) for one in sets]
        for names in found:
            check_shards_open(names, self.allow_pipe)
        return found

    @property
    def longest_text(self) -> int:
        """Most tokens that a text may have: texts of a stream are not known beforehand."""
        return self.max_length

    def setup(self, stage: str | None = None) -> None:
        """Check shards, tokenizer and shares, so that errors show before training starts.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.

        Raises:
            InputError: There are fewer shards than streams, the length of an epoch is not known, or
                there is no way to open some shards.
        """
        _ = self.text_tokenizer, self._val_shards
        if stage in ("fit", None):
            processes, _ = self.shard()
            for names in self.train_shards:
                if len(names) < processes * self.streams:
                    raise InputError(
                        f"{len(names):,} shards, such as {names[0]}, cannot be shared among"
                        f" {processes} processes with {self.streams} streams each: use fewer"
                        " streams (or workers), or smaller and more shards"
                    )
            count = sum(map(len, self.train_shards))
            rank_zero_info(
                f"train: {self.train_samples:,} pairs an epoch, streamed from {count:,} shards by"
                f" {processes} x {self.streams} streams"
            )
        elif not self.val_sets:
            raise InputError(f"{type(self).__name__} has no shards to {stage} on: set val_shards")

    def teardown(self, stage: str) -> None:
        """Say how much was left out, as counted by this process."""
        if counts := self.tally.counts():
            said = "; ".join(f"{count:,} {kind}" for kind, count in counts.items())
            rank_zero_info(f"Met in the stream by this process: {said}")

    @cached_property
    def train_samples(self) -> int:
        """Pairs of an epoch, over all processes.

        Raises:
            InputError: The files beside the shards count no pair.
        """
        if self.epoch_samples is not None:
            return self.epoch_samples
        pairs = sum(stated_pairs(shard) for names in self.train_shards for shard in names)
        if pairs < 1:
            raise InputError(
                "the files <shard>_stats.json count no pair in all shards: fetch the images, or set"
                " epoch_samples"
            )
        return pairs

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable images that this process has met so far (``on_corrupt: skip``)."""
        return self.tally.counts().get(UNREADABLE, 0)

    @property
    def validates_on_test(self) -> bool:
        """False: what ``val_shards`` are is not known here."""
        return False

    def load_rows(self, split: Split) -> Rows | None:
        """Return None: a stream has no rows."""
        return None

    def rows(self, split: Split) -> Rows | None:
        """Return None: a stream has no rows."""
        return None

    # Loaders

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set of batches (inputs, image numbers)."""
        processes, rank = self.shard()
        decoder = PairDecoder(
            self.view(training),
            self.text_tokenizer,
            self.word_columns,
            self.max_length,
            self.width,
            self.tally,
        )
        if not training:
            return ShardPass(
                self.val_sets or (),
                self._val_shards,
                replicas=processes,
                rank=rank,
                batch_size=self.batch_size,
                decoder=decoder,
            )
        keys = StreamKeys(
            seed=self.run_seed(),
            epoch=0,
            stream=rank * self.streams,
            streams=processes * self.streams,
            buffer=self.shuffle_buffer,
        )
        return ShardStream(
            self.sets,
            self.train_shards,
            samples=self.train_samples,
            keys=keys,
            streams=self.streams,
            batch_size=self.batch_size,
            decoder=decoder,
        )

    def epoch_sampler(self, dataset: Dataset) -> EpochSampler:
        """Return the sampler of training epochs."""
        listed = json.dumps([self.train_shards, [[s.caption, s.weight] for s in self.sets]])
        digest = hashlib.sha256(listed.encode()).digest()
        order = {
            "streams": self.streams,
            "shuffle_buffer": self.shuffle_buffer,
            "list_of_shards": int.from_bytes(digest[:4], "big"),
        }
        share = self.shard()
        options = {"seed": self.run_seed(), "drop_last": self.drop_last}
        return StreamSampler(dataset, *share, order=order, **options)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches; an empty list without ``val_shards``."""
        return self._pass() if self.val_sets else []

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of validation batches."""
        return self._pass()

    def bank_dataloader(self, positions: np.ndarray | None = None) -> DataLoader:
        """Refuse: a stream cannot give its training images in order, each once.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{type(self).__name__} streams its training images, and a callback wants them in"
            " order: read them with TarPairs, or leave the callback out"
        )

    def _pass(self) -> DataLoader:
        arguments = {**self._arguments(lambda: ()), "batch_size": None}
        del arguments["targets"]
        return DataLoader(self.served("val"), persistent_workers=self.num_workers > 0, **arguments)

    def _arguments(self, targets: Targets) -> dict[str, Any]:
        # Image numbers come from the workers, not from columns.
        return {**super()._arguments(targets), "targets": None}
