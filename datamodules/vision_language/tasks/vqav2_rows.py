"""Questions of VQAv2 with their answers, and which of them are held out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.datamodules.selection.lists import read_lines
from lit_ssl.datamodules.vision_language.tasks.vqav2_files import IMAGE_IDS, Annotations, Questions
from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.numerals import whole_number
from lit_ssl.seeding import keyed_permutation

__all__ = ["AnsweredQuestions", "answered_questions", "held_out_images", "matched"]

_HOLD_OUT_SEED = 0  # that of a run must not matter, else runs cannot be compared


class AnsweredQuestions(NamedTuple):
    """Questions with what was answered.

    Attributes:
        images: N paths of images below their folder.
        texts: N questions.
        question_ids: int64 ``[N]``.
        image_ids: int64 ``[N]``.
        answers: int64 ``[N, 10]``: classes, −1 where an answer is none or not known.
        majority: int64 ``[N]``: the class of the majority's answer, −1 where it is none.
    """

    images: list[str]
    texts: list[str]
    question_ids: np.ndarray
    image_ids: np.ndarray
    answers: np.ndarray
    majority: np.ndarray

    def select(self, rows: np.ndarray) -> AnsweredQuestions:
        """Return some rows, int64 ``[M]``, in that order.

        Args:
            rows: their numbers.
        """
        images, texts = ([part[row] for row in rows] for part in (self.images, self.texts))
        return AnsweredQuestions(images, texts, *(column[rows] for column in self[2:]))

    def and_(self, other: AnsweredQuestions) -> AnsweredQuestions:
        """Return these rows and others after them.

        Args:
            other: the others, with columns of the same shapes.
        """
        columns = map(np.concatenate, zip(self[2:], other[2:], strict=True))
        return AnsweredQuestions(self.images + other.images, self.texts + other.texts, *columns)


def matched(
    questions: Questions, annotations: Annotations, question_path: Path, annotation_path: Path
) -> Annotations:
    """Return the annotations in the order of the questions.

    Args:
        questions: in the order that is wanted.
        annotations: in any order.
        question_path: their file, for messages.
        annotation_path: their file, for messages.

    Raises:
        InputError: A question has no annotation, or the other way round, or they are not about one
            image.
    """
    theirs, ours = annotations.question_ids, questions.question_ids
    if len(alone := np.setdiff1d(theirs, ours)):
        raise InputError(
            f"{annotation_path} has {len(alone):,} annotations without their questions"
            f" ({listed(alone.tolist(), 3)}) in {question_path}. Take both files of one release"
        )
    if len(alone := np.setdiff1d(ours, theirs)):
        raise InputError(
            f"{question_path} has {len(alone):,} questions without their annotations"
            f" ({listed(alone.tolist(), 3)}) in {annotation_path}. Take both files of one release"
        )
    order = np.argsort(theirs)
    found = annotations.select(order[np.searchsorted(theirs, ours, sorter=order)])
    wrong = np.flatnonzero(found.image_ids != questions.image_ids)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{annotation_path}: the question {ours[row]} is about the image"
            f" {found.image_ids[row]}, but about {questions.image_ids[row]} in {question_path}"
            f" ({len(wrong):,} such questions). Take both files of one release"
        )
    return found


def answered_questions(
    questions: Questions, folder: str, answers: np.ndarray, majority: np.ndarray
) -> AnsweredQuestions:
    """Return questions with answers and the paths of their images.

    Args:
        questions: N questions.
        folder: Folder of their images, such as ``train2014``, after which the files are named.
        answers: int64 ``[N, 10]``.
        majority: int64 ``[N]``.
    """
    images = [
        f"{folder}/COCO_{folder}_{number:012d}.jpg" for number in questions.image_ids.tolist()
    ]
    return AnsweredQuestions(
        images, questions.texts, questions.question_ids, questions.image_ids, answers, majority
    )


def held_out_images(image_ids: np.ndarray, which: int | str, path: Path) -> np.ndarray:
    """Return which questions are about images that are held out: bool ``[N]``.

    Args:
        image_ids: int64 ``[N]``.
        which: How many images; the same ones for the same set of images, in any order. Or a file
            with their numbers, one a line.
        path: The file of the questions, for messages.

    Raises:
        InputError: None or all would be held out, or the list names others.
    """
    images = np.unique(image_ids)
    if isinstance(which, int):
        chosen = images[keyed_permutation(len(images), _HOLD_OUT_SEED)[: max(which, 0)]]
    else:
        chosen = _listed_images(which, images, path)
    if not 0 < len(chosen) < len(images):
        raise InputError(
            f"val_images: {which} holds out {len(chosen):,} of the {len(images):,} images of"
            f" {path}: hold out from 1 to {len(images) - 1:,}, or set it to all to train on"
            " train2014 alone"
        )
    return np.isin(image_ids, chosen)


def _listed_images(which: str, images: np.ndarray, path: Path) -> np.ndarray:
    if not Path(which).expanduser().is_file():
        raise InputFileNotFoundError(
            f"val_images: there is no file {which}: give a number of images, a file with theirs, or"
            " all"
        )
    lines = read_lines(which)
    numbers = [whole_number(line) for line in lines]
    if wrong := [
        line for line, n in zip(lines, numbers, strict=True) if n is None or n not in IMAGE_IDS
    ]:
        raise InputError(
            f"val_images: {which} has lines that are no numbers of images: {listed(wrong, 3)}."
            " Give the image_id of each, one a line"
        )
    chosen = np.unique(np.array(numbers, dtype=np.int64))
    if len(absent := np.setdiff1d(chosen, images)):
        raise InputError(
            f"val_images: {len(absent):,} of the {len(chosen):,} images in {which} are not in"
            f" {path}: {listed(absent.tolist(), 3)}"
        )
    return chosen
