"""Collocations of a corpus, ranked by pointwise mutual information of two to five words."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.text.shares import check_rate

__all__ = ["Collocation", "Collocations", "build_collocations"]

_SHARES = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}  # of the list, by number of words
_LONGEST = max(_SHARES)
_NEVER = np.iinfo(np.int64).max


class Collocation(NamedTuple):
    """A run of words: the words, its score and how often it occurs.

    Attributes:
        words: in their order.
        score: the higher, the more the words belong together.
        occurrences: how often they follow each other in the corpus.
    """

    words: tuple[str, ...]
    score: float
    occurrences: int


class Collocations(NamedTuple):
    """What was found in a corpus.

    Attributes:
        entries: Bigrams first, best first; then trigrams, and so on.
        size: The size that was asked for or chosen; lengths of which there are too few have fewer.
        coverage: Share of the corpus's words that lie in a listed collocation.
        words: Number of words of the corpus.
    """

    entries: list[Collocation]
    size: int
    coverage: float
    words: int


def build_collocations(
    sentences: Iterable[Sequence[str]],
    size: int | None = None,
    coverage: float = 0.5,
    min_count: int = 10,
    exponent: float = 1.0,
) -> Collocations:
    """Find the collocations of a corpus.

        p(w1..wn) = occurrences / number of n-grams in the corpus
        score     = min over all ways to cut w1..wn into two or more parts of
                    log( p(w1..wn)^exponent / Π p(part) )

    The list is 1/2 bigrams, 1/4 trigrams, 1/8 4-grams and 1/8 5-grams, each the best by score. No
    collocation runs from one sentence into the next. Memory: about 150 bytes a word of the corpus.

    Args:
        sentences: Words of each sentence, split and normalised as the tokenizer does.
        size: How many collocations, >= 2; None: as few as cover ``coverage`` of the words.
        coverage: Share of the corpus's words that should lie in a listed collocation, in [0, 1];
            the paper's list has about half.
        min_count: Rarer n-grams are left out, >= 1.
        exponent: 1 is the paper's score; 2, of the published lists, favours frequent ones.

    Raises:
        InputError: A value is out of range, or no n-gram is that frequent.

    Source: PMI-Masking (arXiv 2010.01825, section 3) and the notes of its published lists.
    """
    check_rate("coverage", coverage)
    if min_count < 1:
        raise InputError(f"min_count must be at least 1, not {min_count}")
    if size is not None and size < 2:
        raise InputError(f"size must be at least 2, which makes one bigram, not {size}")
    if not exponent > 0:
        raise InputError(f"exponent must be above 0, not {exponent}")
    names, tokens, room = _read(sentences)
    counted = _count(tokens, room, len(names), min_count)
    found = {n: _scores(counted, n, exponent) for n in _SHARES}
    if not any(map(len, found.values())):
        raise InputError(
            f"no two neighbouring words occur {min_count} times among the {len(tokens):,} words of"
            " the text: take a larger text or a lower min_count"
        )
    order = {n: np.lexsort((-counted[n].counts, -scores)) for n, scores in found.items()}
    needed = _size_that_covers(counted, order, len(tokens))
    if size is None:
        reachable = np.sort(needed[needed < _NEVER])
        target = max(1, int(np.ceil(coverage * len(tokens))))
        size = int(reachable[min(target, len(reachable)) - 1])
    entries = []
    for n, share in _SHARES.items():
        for index in order[n][: int(share * size)]:
            begin = counted[n].first[index]
            words = tuple(names[word] for word in tokens[begin : begin + n])
            entries.append(
                Collocation(words, float(found[n][index]), int(counted[n].counts[index]))
            )
    return Collocations(entries, size, float((needed <= size).mean()), len(tokens))


class _Counted(NamedTuple):
    """The n-grams of one length that are frequent enough.

    Attributes:
        ids: int64 ``[T]``: which begins at a word of the corpus, −1 for none.
        counts: int64 ``[K]``.
        first: int64 ``[K]``: where each occurs first.
        log_p: float64 ``[K]``.
    """

    ids: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    log_p: np.ndarray


def _read(sentences: Iterable[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Different words; the corpus as their numbers; words from each to the end of its sentence."""
    numbers: dict[str, int] = {}
    tokens, lengths = array("q"), array("q")
    for sentence in sentences:
        tokens.extend([numbers.setdefault(word, len(numbers)) for word in sentence])
        lengths.append(len(sentence))
    sizes = np.array(lengths, dtype=np.int64)
    ends = np.repeat(sizes.cumsum(), sizes)
    return list(numbers), np.array(tokens, dtype=np.int64), ends - np.arange(len(ends))


def _count(
    tokens: np.ndarray, room: np.ndarray, vocabulary: int, min_count: int
) -> dict[int, _Counted]:
    """Count n-grams of one to five words.

    All parts of a frequent n-gram are as frequent, so only what begins and ends with frequent
    (n-1)-grams is looked at.
    """
    counted: dict[int, _Counted] = {}
    for n in range(1, _LONGEST + 1):
        fits = room >= n
        if n == 1:
            places, keys = np.arange(len(tokens)), tokens
        else:
            shorter = counted[n - 1].ids
            fits[:-1] &= (shorter[:-1] >= 0) & (shorter[1:] >= 0)
            places = np.flatnonzero(fits)
            keys = shorter[places] * vocabulary + tokens[places + n - 1]
        _, first, inverse, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        kept = counts >= min_count
        renumbered = np.where(kept, kept.cumsum() - 1, -1)
        ids = np.full(len(tokens), -1, dtype=np.int64)
        ids[places] = renumbered[inverse.reshape(-1)]
        total = max(1, int((room >= n).sum()))
        counts = counts[kept]
        counted[n] = _Counted(ids, counts, places[first[kept]], np.log(counts / total))
    return counted


def _scores(counted: dict[int, _Counted], n: int, exponent: float) -> np.ndarray:
    """Scores ``[K]`` of the n-grams of a length: the best cut by dynamic programming."""
    begin = counted[n].first
    best = [np.zeros(len(begin))]  # log-probability of the best cut of the first words
    for end in range(1, n + 1):
        cuts = []
        for start in range(end):
            if end - start < n:  # a cut has two parts or more
                part = counted[end - start]
                cuts.append(best[start] + part.log_p[part.ids[begin + start]])
        best.append(np.max(cuts, axis=0))
    return exponent * counted[n].log_p - best[n]


def _size_that_covers(
    counted: dict[int, _Counted], order: dict[int, np.ndarray], length: int
) -> np.ndarray:
    """The size from which on each word of the corpus lies in a listed collocation."""
    needed = np.full(length, _NEVER)
    for n, share in _SHARES.items():
        sizes = np.empty(len(order[n]), dtype=np.int64)
        sizes[order[n]] = np.ceil((np.arange(len(sizes)) + 1) / share)
        places = np.flatnonzero(counted[n].ids >= 0)
        from_size = sizes[counted[n].ids[places]]
        for shift in range(n):
            needed[places + shift] = np.minimum(needed[places + shift], from_size)
    return needed
