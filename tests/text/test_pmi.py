"""Collocations against a count by brute force, and how texts are split by them."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.text import PMIVocabulary, build_collocations, write_vocabulary

SHARES = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}


def corpus(sentences=300, seed=0):
    """Random words, some of them in fixed phrases; sentences of no word to nine."""
    random = np.random.default_rng(seed)
    phrases = ["red wine glass", "new york", "in front of the house", "tea cup", "as well as it"]
    made = []
    for _ in range(sentences):
        words = []
        for _ in range(random.integers(0, 4)):
            words += (
                random.choice(phrases).split()
                if random.random() < 0.5
                else [str(random.choice(["a", "the", "dog", "of", "wine", "in", "cup"]))]
            )
        made.append(words)
    return made


def cuts(words):
    """All ways to cut into two or more parts."""
    places = range(1, len(words))
    for count in range(1, len(words)):
        for chosen in itertools.combinations(places, count):
            ends = [0, *chosen, len(words)]
            yield [words[a:b] for a, b in itertools.pairwise(ends)]


def brute_force(sentences, min_count, exponent):
    counts = {n: Counter() for n in range(1, 6)}
    for words in sentences:
        for n in counts:
            counts[n].update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    totals = {n: sum(counts[n].values()) for n in counts}

    def p(gram):
        return counts[len(gram)][gram] / totals[len(gram)]

    scores = {}
    for n in SHARES:
        for gram, count in counts[n].items():
            if count >= min_count:
                scores[gram] = min(
                    math.log(p(gram) ** exponent / math.prod(p(part) for part in parts))
                    for parts in cuts(gram)
                )
    return scores, counts


def covered(sentences, entries):
    """Share of words within an entry."""
    inside = total = 0
    for words in sentences:
        marks = [False] * len(words)
        for n in SHARES:
            for i in range(len(words) - n + 1):
                if tuple(words[i : i + n]) in entries:
                    marks[i : i + n] = [True] * n
        inside, total = inside + sum(marks), total + len(words)
    return inside / total


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("min_count", [1, 4])
def test_scores_and_ranks_are_those_of_brute_force(exponent, min_count):
    sentences = corpus()
    scores, counts = brute_force(sentences, min_count, exponent)
    found = build_collocations(sentences, 10**9, min_count=min_count, exponent=exponent)
    assert {entry.words for entry in found.entries} == set(scores)
    assert found.words == sum(map(len, sentences))
    for words, score, occurrences in found.entries:
        assert score == pytest.approx(scores[words], abs=1e-9)
        assert occurrences == counts[len(words)][words]
    lengths = [len(entry.words) for entry in found.entries]
    assert lengths == sorted(lengths)
    for n in SHARES:
        ranked = [entry.score for entry in found.entries if len(entry.words) == n]
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(ranked))
    assert found.coverage == pytest.approx(covered(sentences, set(scores)))


@pytest.mark.parametrize("size", [2, 7, 24])
def test_a_list_has_its_shares_of_each_length(size):
    sentences = corpus()
    found = build_collocations(sentences, size, min_count=2)
    lengths = Counter(len(entry.words) for entry in found.entries)
    assert lengths == {n: int(s * size) for n, s in SHARES.items() if int(s * size)}
    assert found.coverage == pytest.approx(
        covered(sentences, {entry.words for entry in found.entries})
    )
    everything = build_collocations(sentences, 10**9, min_count=2).entries
    best = [e for n in SHARES for e in [e for e in everything if len(e.words) == n][: lengths[n]]]
    assert found.entries == best


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
def test_the_size_is_the_least_that_covers_the_share(share):
    sentences = corpus()
    found = build_collocations(sentences, coverage=share, min_count=1)
    assert found.coverage >= share
    less = build_collocations(sentences, found.size - 1, min_count=1)
    assert less.coverage < share
    assert build_collocations(sentences, found.size, min_count=1) == found


def test_nothing_to_find_and_wrong_values():
    with pytest.raises(InputError, match="no two neighbouring words occur 10 times among the 2 "):
        build_collocations([["a", "b"], []])
    with pytest.raises(InputError, match="among the 0 words"):
        build_collocations([])
    for options, message in (
        ({"min_count": 0}, "min_count must be at least 1"),
        ({"size": 1, "min_count": 1}, "size must be at least 2"),
        ({"coverage": 50}, "coverage must be .* for 50 % write 0.5"),
        ({"exponent": 0}, "exponent must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            build_collocations(corpus(), **options)


def units(words, *entries, seed=0):
    vocabulary = PMIVocabulary([entry.split() for entry in entries])
    return vocabulary.segment(words.split(), seed)


def test_a_longer_collocation_beats_those_within_it():
    entries = ("the united states", "air force", "the united states air force", "united states")
    assert units("the united states air force flew", *entries) == [0, 0, 0, 0, 0, 1]
    assert units("the united states flew an air force", *entries) == [0, 0, 0, 1, 2, 3, 3]
    assert units("a b", *entries) == [0, 1]
    assert units("", *entries) == []


def test_one_of_overlapping_collocations_is_chosen_at_random():
    found = Counter(
        tuple(units("by the way out", "by the way", "the way out", seed=seed))
        for seed in range(400)
    )
    assert set(found) == {(0, 0, 0, 1), (0, 1, 1, 1)}
    assert 140 < found[0, 0, 0, 1] < 260
    chain = {tuple(units("a b c d", "a b", "b c", "c d", seed=seed)) for seed in range(60)}
    assert chain == {(0, 0, 1, 1), (0, 1, 1, 2)}
    assert units("a a a", "a a", seed=3) in ([0, 0, 1], [0, 1, 1])


TEXT = "A red wine glass, in New York!\r\n" * 12 + "\n" + "Naïve dogs run.\n" * 3


def test_from_a_text_file_to_a_vocabulary(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "new" / "list.tsv"
    text.write_text(TEXT, encoding="utf-16")
    lines = write_vocabulary(text, out, size=16)
    kinds = "8 of 2 words, 4 of 3 words, 2 of 4 words, 2 of 5 words"
    assert lines[0] == f"wrote {out}: 16 collocations ({kinds})"
    assert lines[1].endswith(" of 120 words")
    vocabulary = PMIVocabulary.load(out)
    assert ["new", "york"] in vocabulary
    assert ["naive", "dogs"] not in vocabulary
    written = out.read_text().splitlines()
    assert len(written) == len(vocabulary)
    assert written[0].split("\t")[2] == "12"
    assert list(out.parent.iterdir()) == [out]
    rare = write_vocabulary(text, out, coverage=1.0)
    assert rare[-1].startswith("less than 100%: no more n-grams occur 10 times")
    write_vocabulary(text, out, min_count=3, coverage=1.0)
    assert ["naive", "dogs"] in PMIVocabulary.load(out)


def test_words_are_those_of_the_tokenizer(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "list.tsv"
    text.write_text("Red Wine\n" * 10)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Red", "Wine"]))
    write_vocabulary(text, out, str(vocab))
    assert out.read_text().startswith("Red Wine\t")


def test_wrong_files_give_one_line(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    with pytest.raises(InputError, match=r"no text file at .*nowhere.txt"):
        write_vocabulary(tmp_path / "nowhere.txt", tmp_path / "out")
    with pytest.raises(InputError, match="is a folder: give the file to write"):
        write_vocabulary(text, tmp_path)
    with pytest.raises(InputError, match="is the text itself"):
        write_vocabulary(text, text)
    lone = tmp_path / "lone.txt"
    lone.write_text("new york\n\nparis\n")
    with pytest.raises(InputError, match=r"line 3 of .*lone.txt is no collocation .* 'paris'"):
        PMIVocabulary.load(lone)
    lone.write_text("\n")
    with pytest.raises(InputError, match="holds no collocation"):
        PMIVocabulary.load(lone)


def test_published_lists_are_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("new york\r\nin front of\r\n")
    vocabulary = PMIVocabulary.load(path)
    assert len(vocabulary) == 2
    assert vocabulary.segment(["in", "front", "of", "new", "york"]) == [0, 0, 0, 1, 1]
