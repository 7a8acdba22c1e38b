"""Collocations: the runs of words that PMI masking takes as units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from lit_ssl.errors import InputError, InputFileNotFoundError
from lit_ssl.files import read_text
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["PMIVocabulary"]


class PMIVocabulary:
    """A set of collocations, and where they stand in a text.

    Args:
        entries: Collocations, each of two or more words as the tokenizer has them.

    Raises:
        InputError: There are none, or one has fewer words.
    """

    def __init__(self, entries: Iterable[Sequence[str]]) -> None:
        self._entries = frozenset(map(tuple, entries))
        sizes = {len(entry) for entry in self._entries}
        if not sizes or min(sizes) < 2:
            raise InputError("a vocabulary of collocations needs entries of two words or more")
        self._sizes = sorted(sizes, reverse=True)

    def __len__(self) -> int:
        """Number of collocations."""
        return len(self._entries)

    def __contains__(self, words: Sequence[str]) -> bool:
        """Whether words are a collocation."""
        return tuple(words) in self._entries

    @classmethod
    def load(cls, path: str | Path) -> PMIVocabulary:
        """Read a file with a collocation a line, its words between blanks; after a tab: anything.

        ``lit-ssl pmi-vocabulary`` writes such files; the published lists are too.

        Args:
            path: The file.

        Raises:
            InputError: It is not there, or is no such file.
        """
        if not Path(path).is_file():
            raise InputFileNotFoundError(
                f"no vocabulary of collocations at {path}: write one with `lit-ssl pmi-vocabulary"
                " TEXT.txt OUT`"
            )
        entries = []
        for number, line in enumerate(read_text(path).split("\n"), 1):
            words = line.partition("\t")[0].split()
            if len(words) > 1:
                entries.append(words)
            elif line.strip():
                raise InputError(
                    f"line {number} of {path} is no collocation of two words or more:"
                    f" {line[:60]!r}. Expected what `lit-ssl pmi-vocabulary` writes"
                )
        if not entries:
            raise InputError(f"{path} holds no collocation: write it again")
        return cls(entries)

    def segment(self, words: Sequence[str], seed: int = 0) -> list[int]:
        """Split a text into collocations and single words.

        A collocation beats those that it contains. Of overlapping ones one is chosen at random, and
        the words of the others that remain stand alone.

        Args:
            words: W words.
            seed: The choice is a pure function of it and the words.

        Returns:
            The unit of each word, from 0, never falling.
        """
        found = self._longest(words)
        order: Iterable[int] = range(len(found))
        if any(later[0] < earlier[1] for earlier, later in pairwise(found)):
            order = keyed_permutation(len(found), seed, Stream.OVERLAPPING_COLLOCATIONS).tolist()
        head = list(range(len(words)))  # the first word of the unit of each
        free = [True] * len(words)
        for index in order:
            begin, end = found[index]
            if all(free[begin:end]):
                free[begin:end] = [False] * (end - begin)
                head[begin:end] = [begin] * (end - begin)
        units, last = [], -1
        for place, first in enumerate(head):
            last += first == place
            units.append(last)
        return units

    def _longest(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """First word and end of the collocations that no other contains, from left to right."""
        found = []
        furthest = 0
        for begin in range(len(words) - 1):
            for size in self._sizes:
                end = begin + size
                if end <= furthest or end > len(words):
                    continue  # within one that begins earlier, or too long
                if tuple(words[begin:end]) in self._entries:
                    found.append((begin, end))
                    furthest = end
                    break
        return found
