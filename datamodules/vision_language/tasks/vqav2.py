"""VQAv2 in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.tasks.image_questions import ImageQuestionModule
from lit_ssl.datamodules.vision_language.tasks.vqav2_answers import (
    AnswerVocabulary,
    frequent_answers,
    listed_answers,
)
from lit_ssl.datamodules.vision_language.tasks.vqav2_files import (
    ANNOTATORS,
    NAME,
    Annotations,
    Spellings,
    annotation_file,
    question_file,
    read_annotations,
    read_questions,
)
from lit_ssl.datamodules.vision_language.tasks.vqav2_rows import (
    AnsweredQuestions,
    answered_questions,
    held_out_images,
    matched,
)
from lit_ssl.errors import InputError, check_choice, listed
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece

__all__ = ["VQAv2DataModule"]

_TRAIN, _VAL = "train2014", "val2014"
_TEST_IMAGES = "test2015"
_TESTS = ("test-dev2015", "test2015")
_ALL = "all"


class VQAv2DataModule(ImageQuestionModule):
    """VQAv2: a question about a photograph, answered by ten people.

    Expected in ``root``: ``v2_OpenEnded_mscoco_{train2014,val2014,test-dev2015}_questions.json``
    and ``v2_mscoco_{train2014,val2014}_annotations.json``; the images of COCO below ``images/``,
    ``root`` itself or ``images_root``: ``train2014/COCO_train2014_000000000009.jpg``, ``val2014/``,
    ``test2015/``.

    A batch is ``(inputs, scores)`` once it is on its device: inputs as of ``ImageQuestionModule``,
    scores float32 ``[B, A]``: what each of the A answers is worth (0, 0.3, 0.6, 0.9 or 1), a row of
    0 where none of them was given. From the loader it comes as (inputs, answers), answers int64
    ``[B, 10]``: the class of what each of ten people said, −1 where it is none; answers are
    compared by the spelling of VQA's evaluation. Questions none of whose answers is a class are
    left out of the training, and score 0 in the validation; a line says how many.

    The test questions have no public answers: ``predict`` answers them, ``test`` is refused. The
    column ``question_id`` says which row is which.

    Args:
        root: Folder with the files.
        tokenizer: "bytes", a folder with a tokenizer, a ``vocab.txt``, or a ``CorpusWordPiece``;
            see ``ImageTextModule``.
        val_images: How many images of val2014, drawn once and for all, are held out to validate on,
            with all their questions; the others are trained on, after train2014. Or a file with
            their numbers (``image_id``), one a line. Or "all": training is on train2014 alone.
        min_answers: An answer is a class where it is the majority's answer to so many questions of
            train2014 and val2014 together; 9 makes 3129 classes. They are numbered in the order in
            which they first occur there, as those of ViLT and METER.
        answers: File with the answers, one a line, the first of which is class 0, in place of
            those: for a network that was trained with this list. The annotations are then read of
            what is trained or validated on only.
        test_split: Questions to predict answers of: "test-dev2015" or "test2015", which needs
            ``v2_OpenEnded_mscoco_test2015_questions.json``. None: those of validation, which then
            are what is tested on, too.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageQuestionModule`` and ``ImageTextModule``.

    Raises:
        InputError: ``min_answers`` is below 1.
    """

    data_set: ClassVar[str] = NAME
    inputs: ClassVar[str] = "questions"
    carried: ClassVar[tuple[str, ...]] = ("answers",)

    def __init__(
        self,
        *,
        root: str,
        tokenizer: str | CorpusWordPiece,
        val_images: int | str = 1000,
        min_answers: int = 9,
        answers: str | None = None,
        test_split: Literal["test-dev2015", "test2015"] | None = "test-dev2015",
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, tokenizer=tokenizer, num_workers=num_workers, **kwargs)
        check_choice("test_split", test_split, (*_TESTS, None))
        if min_answers < 1:
            raise InputError(f"min_answers must be at least 1, got {min_answers}")
        self.val_images = val_images
        self.min_answers = min_answers
        self.answers = None if answers is None else Path(answers).expanduser()
        self.test_split = test_split
        self._spellings = Spellings()
        self._annotations: dict[str, Annotations] = {}
        self._told: set[Split] = set()  # where a vocabulary is trained, rows are loaded twice

    @property
    def class_names(self) -> Sequence[str]:
        """The answers; to find them, the annotations are read."""
        return self.answer_vocabulary.names

    @cached_property
    def answer_vocabulary(self) -> AnswerVocabulary:
        """The answers and their classes."""
        if self.answers is not None:
            return listed_answers(self.answers)
        majority = [self._read_annotations(part).majority for part in (_TRAIN, _VAL)]
        return frequent_answers(majority, self._spellings.known, self.min_answers)

    @property
    def validates_on_test(self) -> bool:
        """Whether validation sees the rows that are tested on, as without a ``test_split``."""
        return self.test_split is None

    def setup(self, stage: str | None = None) -> None:
        """Find the rows of a stage, so that errors show before training starts.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        if stage == "test":
            self._refuse_test()
        super().setup(stage)

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of validation batches, without a ``test_split``; else it is refused."""
        self._refuse_test()
        return super().test_dataloader()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the questions of a split whose images are there."""
        if split == "test" and self.test_split is None:
            return None
        if split == "test":
            return self._rows(self._unanswered(str(self.test_split)), split)
        if self.val_images == _ALL:
            return self._rows(self._asked(_TRAIN if split == "train" else _VAL), split)
        val = self._asked(_VAL)
        held_out = held_out_images(val.image_ids, self.val_images, question_file(self.root, _VAL))
        if split == "val":
            return self._rows(val.select(np.flatnonzero(held_out)), split)
        return self._rows(self._asked(_TRAIN).and_(val.select(np.flatnonzero(~held_out))), split)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise images, and score the answers, on the device.

        Args:
            batch: (inputs, answers int64 ``[B, 10]``), or (inputs, scores), which stay.
            dataloader_idx: Index of the loader, unused.
        """
        inputs, targets = super().on_after_batch_transfer(batch, dataloader_idx)
        if not targets.is_floating_point():
            targets = self.answer_vocabulary.scores(targets)
        return inputs, targets

    def _asked(self, part: str) -> AnsweredQuestions:
        """The questions of a part with their answers."""
        path = question_file(self.root, part)
        questions = read_questions(path)
        annotations = matched(
            questions, self._read_annotations(part), path, annotation_file(self.root, part)
        )
        names = self.answer_vocabulary  # before the spellings are asked for, which it may add to
        classes = names.classes(self._spellings.known)
        return answered_questions(
            questions, part, classes[annotations.answers], classes[annotations.majority]
        )

    def _unanswered(self, part: str) -> AnsweredQuestions:
        """The questions of a part whose answers are not public."""
        questions = read_questions(question_file(self.root, part))
        unknown = np.full((len(questions.texts), ANNOTATORS), -1, dtype=np.int64)
        return answered_questions(questions, _TEST_IMAGES, unknown, unknown[:, 0])

    def _read_annotations(self, part: str) -> Annotations:
        if part not in self._annotations:
            path = annotation_file(self.root, part)
            self._annotations[part] = read_annotations(path, self._spellings)
        return self._annotations[part]

    def _rows(self, found: AnsweredQuestions, split: Split) -> Rows:
        if split != "test":
            found = self._with_known_answers(found, split)
        identifiers = [
            f"{image}#{number}"
            for image, number in zip(found.images, found.question_ids.tolist(), strict=True)
        ]
        named_by = f"the questions in {self.root}"
        source, kept = self.questioned_images(found.images, found.texts, identifiers, named_by)
        columns = {
            "label": found.majority[kept],
            "answers": found.answers[kept],
            "question_id": found.question_ids[kept],
        }
        return Rows(source, columns)

    def _with_known_answers(self, found: AnsweredQuestions, split: Split) -> AnsweredQuestions:
        """The questions of a split but those that nothing can be learnt from."""
        hopeless = np.all(found.answers < 0, axis=1)
        training = split == "train"
        if training and hopeless.all():
            raise InputError(
                f"{NAME}: none of the {len(hopeless):,} training questions has one of the"
                f" {len(self.answer_vocabulary):,} answers ({listed(self.class_names)}):"
                " check the list of answers"
            )
        if hopeless.any() and split not in self._told:
            rank_zero_info(
                f"{split}: {int(hopeless.sum()):,} of {len(hopeless):,} questions have none of the"
                f" {len(self.answer_vocabulary):,} answers, and"
                f" {'are left out of the training' if training else 'score 0'}"
            )
            self._told.add(split)
        return found.select(np.flatnonzero(~hopeless)) if training else found

    def _refuse_test(self) -> None:
        if self.test_split is not None:
            raise InputError(
                f"{NAME}: the answers to {self.test_split} are not public, so that there is nothing"
                " to test on. Use predict to answer them, and validate for a score on held-out"
                " questions; or set test_split to null to test on these"
            )
