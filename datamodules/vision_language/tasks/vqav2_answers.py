"""The answers that are classes, and what they are worth as answers to a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputFileNotFoundError, listed, quoted
from lit_ssl.files import read_text
from lit_ssl.text.vqa_answers import normalize_answer, soft_score

__all__ = ["AnswerVocabulary", "frequent_answers", "listed_answers"]


class AnswerVocabulary:
    """The answers that a network chooses from.

    Args:
        names: A answers, each once. Two may be one by VQA's spelling ("t-shirt", "t shirt"), in a
            list that others made: then both are worth the same.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._place: dict[str, int] = {}
        spelled = [normalize_answer(name) for name in self.names]
        for place, spelling in enumerate(spelled):
            self._place.setdefault(spelling, place)
        same = [self._place[spelling] for spelling in spelled]
        self._same = torch.tensor(same) if same != list(range(len(same))) else None

    def __len__(self) -> int:
        return len(self.names)

    def classes(self, spellings: Mapping[str, int]) -> np.ndarray:
        """Return the class of each spelling.

        Args:
            spellings: S spellings, as ``normalize_answer`` returns them → numbers from 0.

        Returns:
            int64 ``[S]``, by number: the first class with that spelling; −1 where it is none.
        """
        found = np.full(len(spellings), -1, dtype=np.int64)
        for spelling, number in spellings.items():
            found[number] = self._place.get(spelling, -1)
        return found

    def scores(self, answers: Tensor) -> Tensor:
        """Return what each class is worth as an answer: float32 ``[B, A]``, in [0, 1].

        0, 0.3, 0.6, 0.9 and 1 where 0, 1, 2, 3 and more of ten annotators gave it.

        Args:
            answers: int64 ``[B, P]``: the class of what each of P annotators said, −1 where it is
                none.
        """
        count, annotators = answers.shape
        agreeing = (answers[:, :, None] == answers[:, None, :]).sum(dim=2)
        worth = [soft_score(number, annotators) for number in range(annotators + 1)]
        # What is no class goes to a column behind the last. Those who agree write the same.
        places = answers.where(answers >= 0, len(self))
        scores = torch.zeros(count, len(self) + 1, device=answers.device)
        scores.scatter_(1, places, torch.tensor(worth, device=answers.device)[agreeing])
        scores = scores[:, : len(self)]
        if self._same is None:
            return scores.contiguous()
        return scores[:, self._same.to(answers.device)]


def frequent_answers(
    majority: Sequence[np.ndarray], spellings: Mapping[str, int], min_answers: int
) -> AnswerVocabulary:
    """Return the answers that are the majority's of enough questions.

    In the order in which they first occur, as the released code of ViLT and METER numbers them
    (dandelin/ViLT at 762fd39), so that the heads that were published fit.

    Args:
        majority: Numbers of the majority answers of each file, training questions first.
        spellings: Spelling → its number.
        min_answers: How many questions are enough.

    Raises:
        InputError: No answer has so many.
    """
    everything = np.concatenate(majority)
    numbers, first, counts = np.unique(everything, return_index=True, return_counts=True)
    enough = counts >= min_answers
    if not enough.any():
        raise InputError(
            f"no answer is the majority answer of {min_answers:,} questions (at most of"
            f" {counts.max():,}): lower min_answers"
        )
    names = {number: spelling for spelling, number in spellings.items()}
    chosen = numbers[enough][np.argsort(first[enough])]
    return AnswerVocabulary([names[number] for number in chosen.tolist()])


def listed_answers(path: Path) -> AnswerVocabulary:
    """Return the answers of a file, one a line: the first line is class 0.

    Args:
        path: A text file. An empty line is an empty answer, which the spelling of "a" and "the" is.

    Raises:
        InputError: There is none, or an answer comes twice.
    """
    if not path.is_file():
        raise InputFileNotFoundError(
            f"answers: there is no file {path}: give the path of a list of answers, one a line"
        )
    names = [line.strip() for line in read_text(path).split("\n")]
    if names[-1] == "":  # what follows the last end of a line
        names.pop()
    if not any(names):
        raise InputError(f"answers: {path} is empty: expected an answer in each line")
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number:
            raise InputError(
                f"answers: {path} has {quoted(name)} in line {first[name]} and in line {number}: an"
                " answer has one class"
            )
    if len(names) < 2:
        raise InputError(f"answers: {path} has one answer, {listed(names)}: nothing to choose from")
    return AnswerVocabulary(names)
