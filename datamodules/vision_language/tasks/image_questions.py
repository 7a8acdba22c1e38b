"""One image with a text and something to predict: questions, hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.images import FileImages, PackedStrings
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.image_batches import stack_images
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages
from lit_ssl.datamodules.vision_language.image_text import ImageTextModule
from lit_ssl.datamodules.vision_language.tasks.nlvr2_files import images_there
from lit_ssl.errors import InputFileNotFoundError, check_choice, listed, shortened
from lit_ssl.files import layout_error

__all__ = ["ImageQuestionModule", "QuestionedImages"]


@dataclass(frozen=True)
class QuestionedImages(CaptionedImages):
    """Texts about images, a row each, which have names of their own: a source of rows.

    Args:
        identifiers: N names, one for each text: several may be about one image.
    """

    identifiers: PackedStrings = field(kw_only=True)

    @property
    def folder(self) -> str | None:
        """The folder of the images; None where they are in memory."""
        return getattr(self.images, "folder", None)

    def name(self, row: int) -> str:
        """Return the name of a row."""
        return self.identifiers[row]

    def select(self, rows: np.ndarray) -> QuestionedImages:
        """Return the texts at ``rows`` (int64 ``[N]``), in that order; images stay."""
        chosen = super().select(rows)
        names = self.identifiers.select(rows)
        return QuestionedImages(chosen.images, chosen.image_of, chosen.texts, identifiers=names)

    def read(self, row: int) -> Tensor:
        """Return the image of a row, uint8 ``[3, H, W]``, opened by what is in it.

        Raises:
            CorruptImageError: It cannot be read.
        """
        try:
            return super().read(row)
        except CorruptImageError as error:
            why = error.__cause__ or error
            name = self.images.name(int(self.image_of[row]))
            raise CorruptImageError(
                f"Cannot read the image {self.folder}/{name} ({type(why).__name__}: {why}). Fetch"
                " the file again; or delete it and set missing_images: skip to leave out its rows"
            ) from error


class _QuestionSet(Served):
    """Images with texts and a transform.

    Args:
        questions: With tokens.
        transform: Maps (uint8 ``[3, H, W]``, seed) to uint8 ``[3, h, w]``.
        width: Tokens per text; None: as many as the longest of a batch has.
    """

    def __init__(
        self,
        questions: QuestionedImages,
        transform: Callable[[Tensor, int], Tensor],
        width: int | None,
    ) -> None:
        super().__init__(questions)
        self.transform = transform
        self.width = width

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        rows, seeds = split_keys(keys)
        images = [
            self.transform(self.reader.read(int(row)), int(seed))
            for row, seed in zip(rows, seeds, strict=True)
        ]
        text = self.reader.tokens.batch(rows, self.width)
        return {**stack_images(images), **text}, torch.from_numpy(rows)


class ImageQuestionModule(ImageTextModule):
    """Image files with a text each, and something to predict of both.

    A data set gives ``load_rows``, whose source is a ``QuestionedImages`` (``questioned_images``
    makes one), and ``class_names``. A batch is ``({"images", "input_ids", "attention_mask"},
    targets)``: images ``[B, C, H, W]``, uint8 from the workers and normalised on the device, ids
    and mask int64 ``[B, L]``, mask 1 where a token is; targets are the columns that the data set
    names in ``carried``. Where images differ in size, they are padded at the right and at the
    bottom, with 0 once they are normalised, and ``pixel_mask`` (bool ``[B, H, W]``) is True where
    one is.

    Args:
        root: Folder with the files of the data set.
        images_root: Folder with the folders of images; None: ``images/`` in ``root``, or ``root``.
        missing_images: "error" stops where images are not there; "skip" leaves out the rows of
            theirs, and a warning says how many.
        kwargs: Arguments of ``ImageTextModule``.
    """

    data_set: ClassVar[str]  # its name, for messages

    def __init__(
        self,
        *,
        root: str,
        images_root: str | None = None,
        missing_images: Literal["error", "skip"] = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("missing_images", missing_images, ("error", "skip"))
        self.root = Path(root).expanduser()
        self.images_root = None if images_root is None else Path(images_root).expanduser()
        self.missing_images = missing_images

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images and tokens, rows)."""
        source = self._require(split).source
        assert isinstance(source, QuestionedImages)
        return _QuestionSet(source, self.view(training), self.width)

    def identifiers(self, split: Split) -> list[str]:
        """Return the names of the rows of a split as it is used.

        Args:
            split: which split; there are none without it.
        """
        rows = self.rows(split)
        return [str(rows.name(row)) for row in range(len(rows))] if rows else []

    def questioned_images(
        self, images: Sequence[str], texts: Sequence[str], identifiers: Sequence[str], named_by: str
    ) -> tuple[QuestionedImages, np.ndarray]:
        """Return the rows whose image is there.

        Args:
            images: N paths of images below their folder, with ``/``, such as
                ``train2014/COCO_train2014_000000000009.jpg``.
            texts: N texts.
            identifiers: N names of rows.
            named_by: The file, or files, that name the images, for messages.

        Returns:
            The rows, and which of the N they are: int64, ascending.

        Raises:
            InputFileNotFoundError: No image is there; or some are not, and they may not be skipped.
        """
        # A dictionary, not a set: its order is that of the rows.
        names = list(dict.fromkeys(images))
        folder = self._folder(names)
        place = {name: index for index, name in enumerate(names)}
        image_of = np.array([place[name] for name in images], dtype=np.int64)
        there = images_there(folder, names)
        kept = np.flatnonzero(there[image_of])
        if not there.all():
            missing = [names[index] for index in np.flatnonzero(~there)]
            self._say_missing(missing, len(images), len(images) - len(kept), folder, named_by)
            names = [name for name, found in zip(names, there, strict=True) if found]
            image_of = (np.cumsum(there) - 1)[image_of]
        source = QuestionedImages(
            FileImages(folder, names),
            image_of[kept],
            [texts[row] for row in kept.tolist()],
            identifiers=PackedStrings(identifiers[row] for row in kept.tolist()),
        )
        return source, kept

    def _folder(self, names: Sequence[str]) -> Path:
        """The folder that holds those of the images."""
        inside = sorted({name.partition("/")[0] for name in names})
        places = [self.root / "images", self.root]
        if self.images_root is not None:
            places = [self.images_root]
        for folder in places:
            if all((folder / name).is_dir() for name in inside):
                return folder
        wanted = " and ".join(f"{name}/" for name in inside)
        where = " or ".join(map(str, places))
        raise layout_error(
            self.data_set,
            places[-1],
            f"the images, such as {names[0]}, in {wanted} in {where} (images_root names another"
            " folder)",
        )

    def _say_missing(
        self, missing: Sequence[str], rows: int, lost: int, folder: Path, named_by: str
    ) -> None:
        if lost == rows:
            expected = f"the images that {named_by} names, such as {shortened(missing[0])}"
            raise layout_error(self.data_set, folder, expected)
        what = (
            f"{self.data_set}: {len(missing):,} images that {named_by} names are not in {folder}"
            f" ({listed(missing, 3)})"
        )
        if self.missing_images == "error":
            raise InputFileNotFoundError(
                f"{what}. Fetch them, or set missing_images: skip to leave out their {lost:,} of"
                f" {rows:,} {self.inputs}"
            )
        rank_zero_warn(
            f"{what}; their {lost:,} of {rows:,} {self.inputs} are left out, so that results are"
            " not quite those of the whole set"
        )
