"""Scenes of real digits with captions, and with statements on two of them; no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.digit_scenes.statements import draw_statement
from lit_ssl.datamodules.vision_language.digit_scenes.text import (
    PIECES,
    draw_caption,
    draw_foil,
    is_content,
)
from lit_ssl.datamodules.vision_language.digit_scenes.world import (
    SPLITS,
    Dice,
    draw_scene,
    render_scenes,
    resize_strokes,
)
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages, ImageCaptionModule
from lit_ssl.datamodules.vision_language.image_pairs import ArrayPairs, ImagePairTextModule
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece

__all__ = ["DigitScenesDataModule", "DigitScenesNLVR2DataModule", "digit_strokes"]

_MEAN, _STD = 0.4 * 64 / 255, 64 / 255  # x / 64 - 0.4 for x from 0 to 255


def digit_strokes(split: str) -> dict[tuple[int, bool], Tensor]:
    """Return the digits that scenes of a split are made of; see ``resize_strokes``.

    Args:
        split: "test": the 1,000 test digits of MNIST-5k; else the 4,000 others.

    Returns:
        (Place in ``DIGITS``, whether small) → float32 ``[n, s, s]`` in [0, 1].
    """
    digits = MNIST5kDataModule().load_rows("test" if split == "test" else "train")
    assert digits is not None
    assert isinstance(digits.source, ArrayImages)
    return resize_strokes(digits.source.pixels, digits.labels)


def _by_split(sizes: Sequence[int], what: str) -> dict[str, int]:
    if len(sizes) != 3 or min(sizes) < 0 or sizes[0] < 1:
        raise InputError(
            f"sizes are the {what} of train (at least 1), val and test (at least 0), not"
            f" {list(sizes)}"
        )
    return dict(zip(SPLITS, sizes, strict=True))


class DigitScenesDataModule(ImageCaptionModule):
    """Scenes of one or two coloured digits with a caption each.

    Captions are such as "a small red three top left" or "two digits with a cyan digit". Images are
    32 x 32 RGB: real digits of MNIST-5k (0, 3, 4, 6 and 7) in six colours and two sizes, in the
    cells of a 2 x 2 grid, on black with noise. Six of the 30 combinations of colour and digit never
    occur in training, and are every second digit of the other splits. Test scenes are made of test
    digits; validation scenes, if there are any, of training digits. All is a pure function of
    (``scene_seed``, split, number of the scene), and drawn once, in ``setup``.

    A vocabulary of 73 pieces splits part of the words, so that masking pieces and masking words
    differ: a caption has 8.5 tokens and 6.8 words on average, and 35 % of the content words are
    split. ``candidates`` are the content words, unless there is a ``tagger``. Source: ours.

    Args:
        sizes: Scenes of train, val and test. Without val, validation is on the test scenes.
        scene_seed: Seed of scenes and captions, not of the run.
        tokenizer: None: the 73 pieces. Else a folder with a tokenizer, a ``vocab.txt`` or a
            ``CorpusWordPiece``.
        max_length: Longest caption in tokens, with [CLS] and [SEP].
        image_size: Height and width of evaluation images.
        mean: Mean of each channel; with ``std`` a pixel x from 0 to 255 becomes x / 64 − 0.4.
        std: Standard deviation of each channel.
        num_workers: Worker processes per loader; in-memory images need none.
        kwargs: Arguments of ``ImageCaptionModule``.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (8000, 0, 2000),
        scene_seed: int = 0,
        tokenizer: str | CorpusWordPiece | None = None,
        max_length: int = 24,
        image_size: int = 32,
        mean: Sequence[float] = (_MEAN,) * 3,
        std: Sequence[float] = (_STD,) * 3,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tokenizer=PIECES if tokenizer is None else tokenizer,
            max_length=max_length,
            image_size=image_size,
            mean=mean,
            std=std,
            num_workers=num_workers,
            **kwargs,
        )
        self.word_columns.setdefault("candidates", is_content)
        self.sizes = _by_split(sizes, "scenes")
        self.scene_seed = scene_seed

    def prepare_data(self) -> None:
        """Check that the digits can be loaded; train the vocabulary, if one is asked for."""
        MNIST5kDataModule().prepare_data()
        super().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Draw the scenes of a split, and what is said of them; None without any."""
        count = self.sizes[split]
        if not count:
            return None
        numbers = np.arange(count)
        scenes = [draw_scene(self._dice(Stream.SCENE, split, i), split) for i in range(count)]
        texts = [
            draw_caption(self._dice(Stream.SCENE_CAPTION, split, i), scene).text
            for i, scene in enumerate(scenes)
        ]
        keys = (self.scene_seed, Stream.SCENE_NOISE, SPLITS[split])
        images = ArrayImages(render_scenes(scenes, digit_strokes(split), keys, numbers))
        columns = {"label": np.full(count, -1), "image_number": numbers}
        return Rows(CaptionedImages(images, numbers, texts), columns)

    def foils(self, split: Split) -> list[str]:
        """Return the captions of a split as it is used, each with one wrong colour or digit.

        A model that looks at the image says that the caption fits it better than the foil.

        Args:
            split: which split.
        """
        # Where a split has no scenes of its own, rows are those of the next one.
        order: dict[Split, tuple[Split, ...]] = {
            "train": ("train",),
            "val": ("val", "test"),
            "test": ("test", "val"),
            "predict": ("test", "val", "train"),
        }
        own = next((one for one in order[split] if self.sizes[one]), split)
        foils = []
        for number in self.column("image_number", split).tolist():
            scene = draw_scene(self._dice(Stream.SCENE, own, number), own)
            caption = draw_caption(self._dice(Stream.SCENE_CAPTION, own, number), scene)
            foils.append(draw_foil(self._dice(Stream.SCENE_FOIL, own, number), scene, caption))
        return foils

    def _dice(self, stream: Stream, split: str, number: int) -> Dice:
        return Dice(self.scene_seed, stream, SPLITS[split], number)


class DigitScenesNLVR2DataModule(ImagePairTextModule):
    """Statements on two scenes of ``DigitScenesDataModule``: true or false, as NLVR2's?

    "a red digit in the left image", "two digits in total", … Each statement stands with four pairs,
    two of which it is true of; it nearly holds of the others. In training its colour and digit are
    seen together, in the other splits they are a held-out combination. The column ``statement``
    (int64, equal for rows with the same statement), which batches carry after the labels, serves
    the consistency metric. Source: ours.

    Args:
        sizes: Statements of train, val and test, four rows each. Without val, validation is on the
            test statements.
        scene_seed: Seed of statements and scenes, not of the run.
        tokenizer: See ``DigitScenesDataModule``.
        max_length: Longest statement in tokens, with [CLS] and [SEP].
        image_size: Height and width of evaluation images.
        mean: Mean of each channel; see there.
        std: Standard deviation of each channel.
        num_workers: Worker processes per loader; in-memory images need none.
        kwargs: Arguments of ``ImagePairTextModule``.
    """

    carried: ClassVar[tuple[str, ...]] = ("label", "statement")
    class_names = ("False", "True")

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (1000, 0, 300),
        scene_seed: int = 0,
        tokenizer: str | CorpusWordPiece | None = None,
        max_length: int = 24,
        image_size: int = 32,
        mean: Sequence[float] = (_MEAN,) * 3,
        std: Sequence[float] = (_STD,) * 3,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tokenizer=PIECES if tokenizer is None else tokenizer,
            max_length=max_length,
            image_size=image_size,
            mean=mean,
            std=std,
            num_workers=num_workers,
            **kwargs,
        )
        self.sizes = _by_split(sizes, "statements")
        self.scene_seed = scene_seed

    def prepare_data(self) -> None:
        """Check that the digits can be loaded; train the vocabulary, if one is asked for."""
        MNIST5kDataModule().prepare_data()
        super().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Draw the statements of a split and their scenes; None without any."""
        count = self.sizes[split]
        if not count:
            return None
        keys = (self.scene_seed, Stream.SCENE_STATEMENT, SPLITS[split])
        statements = [draw_statement(Dice(*keys, i), split) for i in range(count)]
        pairs = [pair for statement in statements for pair in statement.pairs]
        scenes = [scene for pair in pairs for scene in (pair.left, pair.right)]
        noise = (self.scene_seed, Stream.STATEMENT_NOISE, SPLITS[split])
        images = render_scenes(scenes, digit_strokes(split), noise, np.arange(len(scenes)))
        texts = [statement.text for statement in statements for _ in statement.pairs]
        columns = {
            "label": np.array([pair.is_true for pair in pairs], dtype=np.int64),
            "statement": np.repeat(np.arange(count), len(pairs) // count),
        }
        return Rows(ArrayPairs(images.unflatten(0, (-1, 2)), texts), columns)
