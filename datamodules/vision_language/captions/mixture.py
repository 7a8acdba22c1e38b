"""Captions of several sources, to pretrain on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.mixed import MixedEpochSampler
from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.reading.found import images_with_captions
from lit_ssl.datamodules.reading.images import Images, PackedStrings
from lit_ssl.datamodules.reading.joined_images import JoinedImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages, ImageCaptionModule
from lit_ssl.errors import InputError, InputTypeError, did_you_mean, listed, quoted

__all__ = ["VLPretrainDataModule"]


class VLPretrainDataModule(ImageCaptionModule):
    """Images with captions out of one source or several.

    Each caption is a row, so that an image with five captions comes five times an epoch. Images of
    several sources are told apart even where they are the same picture: Visual Genome has images of
    COCO. Validation rows are those of all sources that have some, unless ``val_size`` or
    ``val_file`` hold images out. At the start a line for each source says how many images and
    captions it has, and what share of an epoch.

    Args:
        sources: Where images and captions come from, such as ``CocoCaptions``. With several of
            them, lists of images (``val_file``, ``subset``) name an image by its source, ``/`` and
            its path, or by the name of its file.
        weights: None: an epoch is each caption once. Else the share of each source in an epoch, in
            their order or by their names; they are divided by their sum. An epoch is then as many
            draws as there are captions, and no caption of a source comes a second time before all
            of it have come once, over epochs.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageCaptionModule``.

    Raises:
        InputTypeError: A source is no source of captions.
        InputError: There is none, or two have one name.
    """

    objects: ClassVar[tuple[str, ...]] = (*ImageCaptionModule.objects, "sources")

    def __init__(
        self,
        *,
        sources: Sequence[CaptionSource],
        weights: Sequence[float] | Mapping[str, float] | None = None,
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        if isinstance(sources, CaptionSource) or not sources:
            raise InputError("sources must be a list of one source of captions or more")
        for source in sources:
            if not isinstance(source, CaptionSource):
                raise InputTypeError(
                    f"sources must be such as CocoCaptions or PairList, not {quoted(source)}"
                )
        self.sources = list(sources)
        self.names = [source.name for source in sources]
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise InputError(
                f"two sources are called {twice[0]!r}: give one of them another name, or take it"
                " out if it is the same data"
            )
        self.weights = None if weights is None else _by_source(weights, self.names)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the captions of all sources that have the split; None if none has it.

        Beside the columns of a source there is ``source`` (int64), its number in ``sources``.
        """
        found = {
            number: rows
            for number, source in enumerate(self.sources)
            if (rows := source.load_rows(split)) is not None
        }
        if split == "train":
            self._check_trained_on(found)
        return _joined(found, self.names) if found else None

    def _check_trained_on(self, found: Mapping[int, Rows]) -> None:
        for number, name in enumerate(self.names):
            if found.get(number):
                continue
            if self.weights is not None:
                raise InputError(
                    f"{name} has no training captions, so that no weight is possible: take it out"
                )
            if len(self.names) > 1:
                rank_zero_warn(f"{name} has no training captions")

    def what_is_there(self, split: Split) -> Iterator[str]:
        """Say what each source has."""
        source_of, images = self.column("source", split), self.column("image_number", split)
        for number, name in enumerate(self.names):
            own = source_of == number
            if count := int(own.sum()):
                found = images_with_captions(images[own])
                yield f"{name}, {found}{self._share(split, number, count)}"

    def _share(self, split: Split, number: int, count: int) -> str:
        total = len(self.column("source", split))
        if split != "train" or self.weights is None:
            return f" ({count / total:.1%})"
        share = self.weights[number]
        return (
            f" ({count / total:.1%}), drawn as {share:.1%} of an epoch, each"
            f" {share * total / count:.2f} times"
        )

    def epoch_sampler(self, dataset: Dataset) -> EpochSampler:
        """Return the sampler that orders training epochs."""
        if self.weights is None:
            return super().epoch_sampler(dataset)
        source_of = self.column("source", "train")
        if gone := [n for i, n in enumerate(self.names) if not np.any(source_of == i)]:
            raise InputError(
                f"no training captions of {listed(gone)} are left after val_size, val_file and"
                " subset, but they have a weight: take them out of sources"
            )
        options: dict[str, Any] = {"seed": self.run_seed(), "drop_last": self.drop_last}
        options["names"] = self.names
        return MixedEpochSampler(dataset, source_of, self.weights, *self.shard(), **options)


def _by_source(weights: Sequence[float] | Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Shares in the order of the sources, with the sum of 1."""
    if isinstance(weights, Mapping):
        if unknown := [name for name in weights if name not in names]:
            raise InputError(
                f"weights: there is no source {unknown[0]!r}, but {listed(names, 20)}."
                f"{did_you_mean(unknown[0], names, list_up_to=0)}"
            )
        if absent := [name for name in names if name not in weights]:
            raise InputError(f"weights: give {listed(absent, 20)} one too, or take it out")
        weights = [weights[name] for name in names]
    if len(weights) != len(names):
        raise InputError(
            f"weights needs a value for each of {len(names)} sources ({listed(names, 20)}), got"
            f" {len(weights)}"
        )
    if wrong := [weight for weight in weights if not 0 < weight < math.inf]:
        raise InputError(
            f"weights must be above 0, got {wrong[0]}: take a source out that is not wanted"
        )
    return [weight / math.fsum(weights) for weight in weights]


def _joined(found: Mapping[int, Rows], names: Sequence[str]) -> Rows:
    """Captions of several sources, one source after the other."""
    images: dict[str, Images] = {}
    image_of: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    texts: list[PackedStrings] = []
    for number, rows in found.items():
        captions = rows.source
        assert isinstance(captions, CaptionedImages)
        first = sum(map(len, images.values()))
        image_of.append(captions.image_of + first)
        own = rows.columns["image_number"]
        # Also where a source numbers its images by their files, up to beyond their count.
        taken = max((int(column.max(initial=-1)) for column in numbers), default=-1)
        numbers.append(own + taken + 1)
        images[names[number]] = captions.images
        packed = captions.texts
        texts.append(packed if isinstance(packed, PackedStrings) else PackedStrings(packed))
    all_images = next(iter(images.values())) if len(names) == 1 else JoinedImages(images)
    source = CaptionedImages(all_images, np.concatenate(image_of), PackedStrings.joined(texts))
    sizes = [len(column) for column in numbers]
    columns = {
        "label": np.full(sum(sizes), -1),
        "image_number": np.concatenate(numbers),
        "source": np.repeat(list(found), sizes),
    }
    return Rows(source, columns)
