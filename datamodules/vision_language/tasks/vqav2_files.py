"""The files of VQAv2: questions, and what ten annotators answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.json_stream import json_items
from lit_ssl.datamodules.vision_language.json_entries import is_text
from lit_ssl.errors import InputError, listed, quoted
from lit_ssl.text.vqa_answers import normalize_answer

__all__ = [
    "ANNOTATORS",
    "IMAGE_IDS",
    "NAME",
    "Annotations",
    "Questions",
    "Spellings",
    "annotation_file",
    "question_file",
    "read_annotations",
    "read_questions",
]

NAME = "VQAv2"
ANNOTATORS = 10

IMAGE_IDS = range(10**12)  # the file of an image has its number in twelve digits
_QUESTIONS = range(2**63)
_MEND = "Take the official file"


class Questions(NamedTuple):
    """Questions of one file, a row each.

    Attributes:
        texts: N questions.
        question_ids: int64 ``[N]``, each once.
        image_ids: int64 ``[N]``: COCO's number of the image.
    """

    texts: list[str]
    question_ids: np.ndarray
    image_ids: np.ndarray


class Annotations(NamedTuple):
    """Answers of one file, a row for each question; answers are numbers of spellings.

    Attributes:
        question_ids: int64 ``[N]``, each once.
        image_ids: int64 ``[N]``.
        majority: int64 ``[N]``: the answer of most (``multiple_choice_answer``).
        answers: int32 ``[N, 10]``: what each annotator said.
    """

    question_ids: np.ndarray
    image_ids: np.ndarray
    majority: np.ndarray
    answers: np.ndarray

    def select(self, rows: np.ndarray) -> Annotations:
        """Return some rows, int64 ``[M]``, in that order.

        Args:
            rows: their numbers.
        """
        return Annotations(*(column[rows] for column in self))


class Spellings:
    """Numbers for answers, equal for answers that VQA's evaluation takes for one.

    Attributes:
        known: Spelling → its number, in the order in which they were first seen.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self._of_answer: dict[str, int] = {}  # as they stand in the files: of millions few differ

    def number(self, answer: str) -> int:
        """Return the number of an answer, a new one where its spelling is new.

        Args:
            answer: as an annotator wrote it; spellings that normalise to the same share a number.
        """
        found = self._of_answer.get(answer)
        if found is None:
            found = self.known.setdefault(normalize_answer(answer), len(self.known))
            self._of_answer[answer] = found
        return found


def question_file(root: Path, part: str) -> Path:
    """Return the file of questions of a part, such as ``val2014`` or ``test-dev2015``.

    Args:
        root: folder of the data set.
        part: as the file names have it.

    Raises:
        FileNotFoundError: It is not there.
    """
    return find_file(root, [f"v2_OpenEnded_mscoco_{part}_questions.json"], NAME)


def annotation_file(root: Path, part: str) -> Path:
    """Return the file of annotations of a part, ``train2014`` or ``val2014``.

    Args:
        root: folder of the data set.
        part: as the file names have it.

    Raises:
        FileNotFoundError: It is not there.
    """
    return find_file(root, [f"v2_mscoco_{part}_annotations.json"], NAME)


def read_questions(path: Path) -> Questions:
    """Read a file of questions.

    Args:
        path: of the file, JSON.

    Raises:
        InputError: It is none; the message says which entry is wrong.
    """
    texts: list[str] = []
    numbers: list[tuple[int, int]] = []
    for place, row in json_items(path, "questions"):
        text = row.get("question") if isinstance(row, dict) else None
        ids = _ids(row)
        if ids is None or not is_text(text):
            raise InputError(
                f"{path}: the question number {place + 1} is no object with a question, a"
                f" question_id and an image_id, but {quoted(row)}. {_MEND}"
            )
        texts.append(text)
        numbers.append(ids)
    question_ids, image_ids = _columns(numbers, path)
    _check_once(question_ids, path, "question")
    return Questions(texts, question_ids, image_ids)


def read_annotations(path: Path, spellings: Spellings) -> Annotations:
    """Read a file of annotations.

    Args:
        path: The file.
        spellings: Gives answers their numbers.

    Raises:
        InputError: It is none; the message says which annotation is wrong.
    """
    numbers: list[tuple[int, int]] = []
    majority: list[int] = []
    answers: list[list[int]] = []
    for place, row in json_items(path, "annotations"):
        ids = _ids(row)
        chosen = row.get("multiple_choice_answer") if isinstance(row, dict) else None
        if ids is None or not isinstance(chosen, str):
            raise InputError(
                f"{path}: the annotation number {place + 1} is no object with a question_id, an"
                f" image_id, a multiple_choice_answer and answers, but {quoted(row)}. {_MEND}"
            )
        texts = _texts(row.get("answers"))
        if len(texts) != ANNOTATORS:
            raise InputError(
                f"{path}: the question {ids[0]} has {len(texts)} answers in place of {ANNOTATORS},"
                f" each an object with a text `answer`, by which answers are scored. {_MEND}"
            )
        numbers.append(ids)
        majority.append(spellings.number(chosen))
        answers.append([spellings.number(text) for text in texts])
    question_ids, image_ids = _columns(numbers, path)
    _check_once(question_ids, path, "annotation")
    return Annotations(
        question_ids,
        image_ids,
        np.array(majority, dtype=np.int64),
        np.array(answers, dtype=np.int32),
    )


def _ids(row: Any) -> tuple[int, int] | None:
    """The numbers of the question and of the image of an entry; None where it has none."""
    if not isinstance(row, dict):
        return None
    question, image = row.get("question_id"), row.get("image_id")
    if type(question) is not int or type(image) is not int:  # nor True
        return None
    return (question, image) if question in _QUESTIONS and image in IMAGE_IDS else None


def _texts(answers: Any) -> list[str]:
    """The texts of a list of answers; none where one of them has none."""
    entries = answers if isinstance(answers, list) else []
    said = [entry.get("answer") for entry in entries if isinstance(entry, dict)]
    texts = [text for text in said if isinstance(text, str)]
    return texts if len(texts) == len(entries) else []


def _columns(numbers: Sequence[tuple[int, int]], path: Path) -> np.ndarray:
    """Numbers of questions and of images, int64 ``[2, N]``."""
    if not numbers:
        raise InputError(f"{path}: its list is empty. {_MEND}")
    return np.array(numbers, dtype=np.int64).T.copy()


def _check_once(question_ids: np.ndarray, path: Path, what: str) -> None:
    ids, counts = np.unique(question_ids, return_counts=True)
    if len(twice := ids[counts > 1]):
        raise InputError(
            f"{path} has more than one {what} with the question_id {listed(twice.tolist(), 3)}."
            f" {_MEND}"
        )
