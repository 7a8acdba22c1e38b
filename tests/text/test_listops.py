"""ListOps against the benchmark's rules, written down a second time."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.text.listops import (
    SYMBOLS,
    ListOpsRules,
    distinct_expressions,
    draw_expressions,
    evaluate,
    parse,
    spell,
)
from lit_ssl.text.listops_files import read_expressions, write_expressions

SMALL = ListOpsRules(min_length=10, max_length=60, max_depth=3, max_args=5)


def drawn(rules, count, *keys):
    return [next(draw_expressions(rules, *keys, index)) for index in range(count)]


def tree(symbols):
    """Pairs as the benchmark's generator makes them: an operator takes one argument at a time."""
    words = iter([SYMBOLS[symbol] for symbol in symbols])

    def node(word):
        if word[0] != "[":
            return int(word)
        pair = word
        for word in words:
            if word == "]":
                return pair, "]"
            pair = pair, node(word)
        raise AssertionError("not closed")

    return node(next(words))


def value(pair):
    if isinstance(pair, int):
        return pair
    arguments, pair = [], pair[0]
    while isinstance(pair, tuple):
        arguments.insert(0, value(pair[1]))
        pair = pair[0]
    operators = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda values: int(np.median(values)),
        "[SM": lambda values: int(np.sum(values) % 10),
    }
    return operators[pair](arguments)


def text(pair):
    return f"( {text(pair[0])} {text(pair[1])} )" if isinstance(pair, tuple) else str(pair)


def law_of_lengths(rules):
    """Probability of each length of a tree, by convolution from the deepest level up."""
    law = np.zeros(rules.max_length)
    law[1] = 1.0
    for _ in range(rules.max_depth - 1):
        sums, arguments = law, np.zeros_like(law)
        for _ in range(2, rules.max_args + 1):
            sums = np.convolve(sums, law)[: rules.max_length]
            arguments += sums / (rules.max_args - 1)
        law = 0.25 * np.concatenate([[0, 0], arguments[:-2]])
        law[1] += 0.75
    law[: rules.min_length + 1] = 0
    return law / law.sum()


@pytest.mark.parametrize(
    "rules",
    [
        ListOpsRules(),
        SMALL,
        ListOpsRules(min_length=0, max_length=30, max_depth=4, max_args=2),
    ],
)
def test_lengths_have_the_law_of_rejection(rules):
    lengths = np.array([len(found) for found in drawn(rules, 1000, 3)])
    assert lengths.min() > rules.min_length
    assert lengths.max() < rules.max_length
    found = np.bincount(lengths, minlength=rules.max_length).cumsum() / len(lengths)
    distance = np.abs(found - law_of_lengths(rules).cumsum()).max()
    assert distance < 1.63 / len(lengths) ** 0.5  # Kolmogorov and Smirnov, 1 %


def test_all_small_expressions_are_as_likely_as_they_should_be():
    rules = ListOpsRules(min_length=1, max_length=5, max_depth=2, max_args=3)
    found, counts = np.unique(drawn(rules, 8000, 0), return_counts=True)
    assert len(found) == 4 * 10 * 10  # an operator, two digits; three make five symbols
    statistic = ((counts - 20) ** 2 / 20).sum()
    assert 399 - 4 * 798**0.5 < statistic < 399 + 4 * 798**0.5


def test_depth_and_arguments_stay_in_range():
    rules = ListOpsRules(min_length=20, max_length=100, max_depth=4, max_args=7)
    numbers = set()
    deepest = 0
    for symbols in drawn(rules, 300, 1):
        open_arguments = []
        for symbol in symbols:
            word = SYMBOLS[symbol]
            if word == "]":
                numbers.add(open_arguments.pop())
                continue
            if open_arguments:
                open_arguments[-1] += 1
            deepest = max(deepest, len(open_arguments) + 1)
            if word[0] == "[":
                open_arguments.append(0)
    assert numbers == set(range(2, 8))
    assert deepest == 4


def test_values_and_texts_are_those_of_the_benchmark():
    for symbols in drawn(SMALL, 300, 2) + drawn(ListOpsRules(), 20, 2):
        pair = tree(symbols)
        assert evaluate(symbols) == value(pair)
        assert spell(symbols) == text(pair)
        assert parse(spell(symbols)) == symbols


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("7", 7),
        ("[MED 9 4 ]", 6),  # 6.5 without its fraction
        ("[MED 9 1 4 ]", 4),
        ("[SM 9 9 9 ]", 7),
        ("( ( ( ( [MAX 2 ) ( ( ( [SM 9 ) 4 ) ] ) ) ( ( ( [MED 1 ) 8 ) ] ) ) ] )", 4),
        ("[MIN [MAX 3 8 ] [MIN 9 5 ] 6 ]", 5),
    ],
)
def test_known_values(written, expected):
    assert evaluate(parse(written)) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[FIRST 1 2 ]", "unknown symbol '\\[FIRST'"),
        ("[MAX 12 3 ]", "unknown symbol '12'"),
        ("[MAX 1 2", "not closed"),
        ("[MAX 1 2 ] ]", "']' cannot stand at place 4"),
        ("[MAX ]", "']' cannot stand at place 1"),
        ("1 2", "2 values side by side"),
        ("", "0 values side by side"),
    ],
)
def test_what_is_no_expression(written, message):
    with pytest.raises(InputError, match=message):
        evaluate(parse(written))


def test_padding_is_no_symbol():
    with pytest.raises(InputError, match="cannot stand at place 1"):
        evaluate(bytes([3, 0]))
    with pytest.raises(InputError, match="99 cannot stand at place 0"):
        evaluate(bytes([99]))


def test_expressions_never_change():
    sizes = {"train": 40, "val": 3, "test": 5}
    joined = b"".join(
        b"|".join(distinct_expressions(SMALL, split, sizes, 7))
        for split in ("train", "val", "test")
    )
    assert hashlib.sha1(joined).hexdigest()[:12] == "3eebb56d6f32"


def test_none_comes_twice_in_any_split():
    rules = ListOpsRules(min_length=1, max_length=5, max_depth=2, max_args=2)
    sizes = {"train": 300, "val": 20, "test": 30}
    splits = {name: list(distinct_expressions(rules, name, sizes, 0)) for name in sizes}
    assert {name: len(found) for name, found in splits.items()} == sizes
    assert len(set(itertools.chain(*splits.values()))) == 350
    smaller = {"train": 100, "val": 20, "test": 30}
    for name, size in smaller.items():
        assert list(distinct_expressions(rules, name, smaller, 0)) == splits[name][:size]
    assert list(distinct_expressions(rules, "test", sizes, 1)) != splits["test"]


def test_more_than_there_are_is_an_error():
    rules = ListOpsRules(min_length=0, max_length=2, max_depth=3, max_args=2)
    with pytest.raises(InputError, match="after 10 different ones of 12"):
        list(distinct_expressions(rules, "train", {"train": 12, "val": 0, "test": 0}, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_args": 1}, "max_args >= 2"),
        ({"max_depth": 0}, "max_depth >= 1"),
        ({"min_length": 500, "max_length": 501}, "no length between"),
        ({"max_depth": 3}, "has more than 122 symbols: lower min_length, now 500"),
    ],
)
def test_rules_that_cannot_be_kept(options, message):
    with pytest.raises(InputError, match=message):
        ListOpsRules(**options)


def test_rules_that_nothing_keeps(monkeypatch):
    monkeypatch.setattr("lit_ssl.text.listops._MOST_DRAWS", 50)
    rules = ListOpsRules(min_length=120, max_length=125, max_depth=3)
    with pytest.raises(InputError, match="None of 50 random ListOps expressions"):
        next(draw_expressions(rules, 0))


# Files


def test_files_go_and_come_back(tmp_path):
    expressions = drawn(SMALL, 20, 5)
    path = write_expressions(tmp_path / "new" / "basic_val.tsv", iter(expressions))
    assert path.read_bytes().splitlines(keepends=True)[0] == b"Source\tTarget\r\n"
    found, values = read_expressions(path)
    assert found == expressions
    assert values == [value(tree(symbols)) for symbols in expressions]
    assert [file.name for file in path.parent.iterdir()] == ["basic_val.tsv"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_others(tmp_path, encoding):
    path = tmp_path / "basic_train.tsv"
    content = "index\tTarget\tSource\n0\t8\t( ( ( [MAX 2 ) 8 ) ] )\n\n1\t3\t3\n"
    path.write_text(content, encoding=encoding)
    assert read_expressions(path) == ([parse("[MAX 2 8 ]"), parse("3")], [8, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Source\tTarget\n[MAX 2 8 ]\t7\n", "line 2 of .* gives '7' for .* whose value is 8"),
        ("Source\tTarget\n3\t3\n[MAX 2 8\t8\n", "line 3 of .* holds no ListOps .* not closed"),
        ("Source\tTarget\n[MAX 2 8 ]\n", "line 2 of .* has 1 of 2 columns"),
        ("Source,Target\n3,3\n", "no column 'Source' between tabs"),
        ("source\tTarget\n3\t3\n", "no column 'Source' .* Did you mean source?"),
        ("Source\tTarget\n", "no rows"),
        ("", "columns are missing"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "basic_train.tsv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_expressions(path)
