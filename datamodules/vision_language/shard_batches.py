"""Streamed pairs as batches: a training stream that can be entered anywhere, and one whole pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.reading.decoding import CorruptImageError, decode_image
from lit_ssl.datamodules.vision_language.image_batches import stack_images
from lit_ssl.datamodules.vision_language.shard_sets import ShardSet
from lit_ssl.datamodules.vision_language.shard_stream import (
    Sample,
    StreamKeys,
    endless_stream,
    in_order,
)
from lit_ssl.datamodules.vision_language.stream_tally import CUT, UNREADABLE, Tally
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.text.tokens import WordColumn, tokenize_words

__all__ = ["PairDecoder", "ShardPass", "ShardStream", "StreamSampler"]

Key = tuple[int, int] | int  # (place in this process's share of the epoch, epoch)
Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class PairDecoder:
    """Makes batches of captions: see ``ImageCaptionModule``.

    Args:
        transform: Maps (uint8 ``[3, H, W]``, seed) to uint8 ``[3, h, w]``.
        tokenizer: Of transformers.
        word_columns: See ``tokenize_words``.
        max_length: Most tokens of a text.
        width: Tokens per text of a batch; None: as many as its longest has.
        tally: Told of images that cannot be read, and of captions that are cut.
    """

    transform: Callable[[Tensor, int], Tensor]
    tokenizer: Any
    word_columns: Mapping[str, WordColumn]
    max_length: int
    width: int | None
    tally: Tally

    def batch(
        self, samples: Sequence[Sample], seeds: Sequence[int], row: int, refill: bool
    ) -> Batch | None:
        """Return a batch (inputs, image numbers); None if no image of it can be read.

        Args:
            samples: Its pairs.
            seeds: Of their views.
            row: Of the stream, for the tally.
            refill: Put the next readable pair of the batch in the place of one that is not, so that
                the batch keeps its size; False leaves it out.
        """
        images = [
            self._image(sample, seed, row) for sample, seed in zip(samples, seeds, strict=True)
        ]
        readable = [place for place, image in enumerate(images) if image is not None]
        if not readable:
            return None
        kept = readable
        if refill and len(readable) < len(images):
            after = np.searchsorted(readable, np.arange(len(images))) % len(readable)
            kept = [readable[place] for place in after]
        stacked = stack_images([image for place in kept if (image := images[place]) is not None])
        text = self._text([samples[place] for place in kept], row)
        numbers = torch.tensor([samples[place].number for place in kept], dtype=torch.int64)
        return {**stacked, **text}, numbers

    def _image(self, sample: Sample, seed: int, row: int) -> Tensor | None:
        try:
            image = decode_image(sample.image, sample.name)
        except CorruptImageError as error:
            self.tally.add(row, UNREADABLE, sample.name, error)
            return None
        return self.transform(image, seed)

    def _text(self, samples: Sequence[Sample], row: int) -> dict[str, Tensor]:
        if get_worker_info() is not None:
            # Threads of its own in each worker would fight for the cores.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        texts = [sample.caption for sample in samples]
        tokens = tokenize_words(self.tokenizer, texts, self.max_length, self.word_columns)
        longest = np.flatnonzero(np.diff(tokens.starts) == self.max_length)
        # One token more tells, of a text however long.
        whole = tokenize_words(
            self.tokenizer, [texts[place] for place in longest], self.max_length + 1
        )
        for place in longest[np.diff(whole.starts) > self.max_length]:
            self.tally.add(row, CUT, samples[place].name)
        return tokens.batch(np.arange(len(texts)), self.width)


class StreamSampler(EpochSampler):
    """The places of this process's share of an epoch, in order, each with the epoch.

    Args:
        dataset: Its length is that of an epoch over all processes.
        args: Of ``EpochSampler``.
        order: What the order of the stream depends on, as numbers.
        kwargs: Of ``EpochSampler``.
    """

    def __init__(
        self, dataset: Dataset, *args: Any, order: Mapping[str, int], **kwargs: Any
    ) -> None:
        super().__init__(dataset, *args, **kwargs)
        self._order = dict(order)

    def depends_on(self) -> dict[str, int]:
        """Return what the order of the stream depends on."""
        return self._order

    def _pairs(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        for place in range(start, self.num_samples):
            yield place, epoch


class ShardStream(Dataset):
    """Training batches of streamed shards, by their place in an epoch.

    A process has a fixed number of streams, and takes batch ``b`` from stream ``b`` modulo that
    number: whichever worker is asked for the batch opens that stream, at its beginning, and passes
    over what comes before, which is read but not decoded. A loader hands batches to its workers in
    turn, so a worker goes through its streams once; nothing depends on how many workers there are.

    Args:
        sets: The sets.
        shards: The shards of each.
        samples: Pairs of an epoch, over all processes.
        keys: Of the first stream of this process; the epoch does not matter.
        streams: Streams of this process.
        batch_size: Pairs per batch.
        decoder: Makes batches.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        shards: Sequence[Sequence[str]],
        *,
        samples: int,
        keys: StreamKeys,
        streams: int,
        batch_size: int,
        decoder: PairDecoder,
    ) -> None:
        self.sets = sets
        self.shards = shards
        self.samples = samples
        self.keys = keys
        self.streams = streams
        self.batch_size = batch_size
        self.decoder = decoder
        self._open: dict[int, _Opened] = {}

    def __len__(self) -> int:
        return self.samples

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def __getitem__(self, key: Key) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch at some places, which follow each other."""
        # A sampler that is not ours, as of Trainer(overfit_batches), tells no epoch.
        pairs = [key if isinstance(key, tuple) else (key, 0) for key in keys]
        places, epoch = np.array([place for place, _ in pairs]), pairs[0][1]
        number, stream = divmod(int(places[0]) // self.batch_size, self.streams)
        samples = self._opened(stream, epoch, number).take(number, len(keys))
        seeds = sample_seeds(
            Stream.SHARD_VIEW, self.keys.seed, epoch, self.keys.stream + stream, places
        )
        batch = self.decoder.batch(samples, seeds.tolist(), stream, refill=True)
        if batch is None:
            raise CorruptImageError(
                f"None of the {len(keys)} images of a batch can be read, from {samples[0].name} on"
            )
        return batch

    def _opened(self, stream: int, epoch: int, number: int) -> _Opened:
        opened = self._open.get(stream)
        if opened is None or opened.epoch != epoch or opened.next > number:
            keys = replace(self.keys, epoch=epoch, stream=self.keys.stream + stream)
            # Those of an epoch that is over hold files and pairs for nothing.
            self._open = {i: one for i, one in self._open.items() if one.epoch == epoch}
            report = partial(self.decoder.tally.add, stream)
            pairs = endless_stream(self.shards, self.sets, keys, report)
            opened = self._open[stream] = _Opened(pairs, epoch, self.batch_size)
        return opened


class _Opened:
    """A stream, and which of its batches is next."""

    def __init__(self, pairs: Iterator[Sample], epoch: int, batch_size: int) -> None:
        self.pairs = pairs
        self.epoch = epoch
        self.batch_size = batch_size
        self.next = 0

    def take(self, number: int, size: int) -> list[Sample]:
        """Return the pairs of a batch, the next one or a later one."""
        skipped = (number - self.next) * self.batch_size
        self.next = number + 1
        return list(islice(self.pairs, skipped, skipped + size))


class ShardPass(IterableDataset):
    """Batches of all pairs of some shards, in order, each once over all processes.

    Each process and worker reads all shards, and decodes its part.

    Args:
        sets: The sets.
        shards: The shards of each.
        replicas: Number of processes.
        rank: Of this process.
        batch_size: Pairs per batch.
        decoder: Makes batches.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        shards: Sequence[Sequence[str]],
        *,
        replicas: int,
        rank: int,
        batch_size: int,
        decoder: PairDecoder,
    ) -> None:
        self.sets = sets
        self.shards = shards
        self.replicas = replicas
        self.rank = rank
        self.batch_size = batch_size
        self.decoder = decoder

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        chosen: list[Sample] = []
        place = -1
        for place, sample in enumerate(self._pairs(report_to=mine)):
            number, rank = divmod(place, self.replicas)
            if rank == self.rank and number // self.batch_size % workers == mine:
                chosen.append(sample)
            if len(chosen) == self.batch_size:
                yield from self._batch(chosen, mine)
                chosen = []
        if place < 0:
            raise InputError(f"No pair of an image and a caption in {self.shards[0][0]}, …")
        yield from self._batch(chosen, mine)

    def _pairs(self, report_to: int) -> Iterator[Sample]:
        report = partial(self.decoder.tally.add, report_to)
        for one, shards in zip(self.sets, self.shards, strict=True):
            yield from in_order(shards, one.caption, report)

    def _batch(self, samples: Sequence[Sample], row: int) -> Iterator[Batch]:
        batch = self.decoder.batch(samples, [0] * len(samples), row, refill=False)
        if batch is not None:
            yield batch
