"""ListOps: nested operations on lists of digits, drawn and worked out by the benchmark's rules."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lit_ssl.errors import InputError, quoted
from lit_ssl.seeding import Stream, sample_seeds

__all__ = [
    "SYMBOLS",
    "ListOpsRules",
    "distinct_expressions",
    "draw_expressions",
    "evaluate",
    "parse",
    "spell",
]

# A symbol's place is its id; 0 is padding.
SYMBOLS = ("", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
_IDS = {symbol: number for number, symbol in enumerate(SYMBOLS) if symbol}
_MIN, _MAX, _MED, _SUM_MOD, _END = (_IDS[symbol] for symbol in SYMBOLS[11:])
_ZERO = _IDS["0"]
_OPERATOR_SHARE = 0.25
_MOST_DRAWS = 200_000  # for one expression
_SPLITS = {"test": 0, "val": 1, "train": 2}  # in the order in which they are drawn


@dataclass(frozen=True)
class ListOpsRules:
    """What expressions are drawn; the defaults are those of Long Range Arena.

    Args:
        min_length: An expression has more symbols than this, >= 0; brackets count.
        max_length: An expression has fewer symbols than this.
        max_depth: Deepest level, from 1 (the whole expression); nodes there are digits.
        max_args: Most arguments of an operator, >= 2.
    """

    min_length: int = 500
    max_length: int = 2000
    max_depth: int = 10
    max_args: int = 10

    def __post_init__(self) -> None:
        if self.max_args < 2 or self.max_depth < 1 or self.min_length < 0:
            raise InputError(
                "ListOps needs max_args >= 2, max_depth >= 1 and min_length >= 0, got"
                f" {self.max_args}, {self.max_depth} and {self.min_length}"
            )
        if self.max_length - self.min_length < 2:
            raise InputError(
                "ListOps expressions are longer than min_length and shorter than max_length: from"
                f" {self.min_length} to {self.max_length} there is no length between them"
            )
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = min(2 + self.max_args * longest, self.max_length)
        if longest <= self.min_length:
            raise InputError(
                f"No ListOps expression of max_depth {self.max_depth} and max_args {self.max_args}"
                f" has more than {longest} symbols: lower min_length, now {self.min_length}"
            )


def draw_expressions(rules: ListOpsRules, *keys: int) -> Iterator[bytes]:
    """Yield random expressions without end, a pure function of the rules and the keys.

    A tree grows from its root: a node above the deepest level is an operator with probability 1/4,
    any of the four, with 2 to ``max_args`` arguments, equally likely; other nodes are digits. Trees
    of another length are thrown away, as in the benchmark's generator.

    Args:
        rules: What to draw.
        keys: Integers, such as (seed, index).

    Yields:
        The ids of an expression's symbols.

    Raises:
        InputError: So many trees in a row have another length that it is of no use to go on.
    """
    # Of this class only seeding and random() are promised to stay the same in all Pythons.
    uniform = random.Random(int(sample_seeds(*keys)[0])).random
    while True:
        for _ in range(_MOST_DRAWS):
            found = _grow(rules, uniform)
            if rules.min_length < len(found) < rules.max_length:
                yield bytes(found)
                break
        else:
            raise InputError(
                f"None of {_MOST_DRAWS:,} random ListOps expressions has more than"
                f" {rules.min_length} and fewer than {rules.max_length} symbols: widen this range,"
                f" or change max_depth ({rules.max_depth}) or max_args ({rules.max_args})"
            )


def _grow(rules: ListOpsRules, uniform: Callable[[], float]) -> bytearray:
    """Symbols of one tree, from left to right; of one that gets too long only the beginning."""
    symbols = bytearray()
    missing = [1]  # nodes that are still to come at each level down to the current one
    depth, max_depth, max_length = 1, rules.max_depth, rules.max_length
    while len(symbols) < max_length:
        if not missing[-1]:
            missing.pop()
            depth -= 1
            if not depth:
                break
            symbols.append(_END)
            continue
        missing[-1] -= 1
        if depth < max_depth and uniform() <= _OPERATOR_SHARE:
            symbols.append(_MIN + int(uniform() * 4))
            missing.append(2 + int(uniform() * (rules.max_args - 1)))
            depth += 1
        else:
            symbols.append(_ZERO + int(uniform() * 10))
    return symbols


def distinct_expressions(
    rules: ListOpsRules, split: str, sizes: Mapping[str, int], seed: int
) -> Iterator[bytes]:
    """Yield the expressions of a split; none comes twice, within a split or in two of them.

    Expression ``i`` is the first of its own stream, keyed by (seed, split, i), that came neither
    before in its split nor in an earlier one, in the order test, val, train. So the test set does
    not hang on the size of the training set, and a larger set begins with a smaller one.

    Args:
        rules: What to draw.
        split: "train", "val" or "test".
        sizes: Expressions of each split.
        seed: Seed of all three.

    Raises:
        InputError: There are not so many different expressions, as far as drawing finds them.
    """
    seen: set[bytes] = set()
    for name, number in _SPLITS.items():
        for index in range(sizes[name]):
            for attempt, found in enumerate(
                draw_expressions(rules, seed, Stream.LISTOPS, number, index)
            ):
                digest = hashlib.blake2b(found, digest_size=16).digest()
                if digest not in seen:
                    break
                if attempt == 1000:
                    raise InputError(
                        f"1,000 ListOps expressions in a row were drawn before, after {len(seen):,}"
                        f" different ones of {sum(sizes.values()):,}: ask for fewer, or widen"
                        " min_length to max_length, max_depth or max_args"
                    )
            seen.add(digest)
            if name == split:
                yield found
        if name == split:
            return


def evaluate(symbols: bytes) -> int:
    """Work out an expression.

    MED is the median, of an even number of arguments the mean of the middle two without its
    fraction; SM is the sum modulo 10.

    Args:
        symbols: Ids of an expression.

    Returns:
        A digit.

    Raises:
        InputError: It is no expression.

    Examples:
        >>> evaluate(parse("[MAX 2 [SM 9 4 ] [MED 1 8 ] ]"))
        4
    """
    values: list[int] = []
    above: list[tuple[int, list[int]]] = []  # operators around, and their arguments so far
    operator = 0
    for place, symbol in enumerate(symbols):
        if _ZERO <= symbol < _MIN:
            values.append(symbol - _ZERO)
        elif _MIN <= symbol < _END:
            above.append((operator, values))
            operator, values = symbol, []
        elif symbol == _END and operator and values:
            if operator == _MIN:
                result = min(values)
            elif operator == _MAX:
                result = max(values)
            elif operator == _SUM_MOD:
                result = sum(values) % 10
            else:
                values.sort()
                half = len(values) // 2
                result = values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2
            operator, values = above.pop()
            values.append(result)
        else:
            name = SYMBOLS[symbol] if symbol < len(SYMBOLS) else symbol
            raise InputError(f"no ListOps expression: {quoted(name)} cannot stand at place {place}")
    if above or len(values) != 1:
        what = "an operator is not closed" if above else f"{len(values)} values side by side"
        raise InputError(f"no ListOps expression: {what}")
    return values[0]


def parse(text: str) -> bytes:
    """Return the ids of the symbols of a text, separated by blanks; parentheses are dropped.

    Args:
        text: such as ``( ( ( [MAX 2 ) 9 ) ] )`` or ``[MAX 2 9 ]``.

    Raises:
        InputError: It holds another symbol.
    """
    try:
        return bytes([_IDS[word] for word in text.replace("(", "").replace(")", "").split()])
    except KeyError as error:
        raise InputError(
            f"no ListOps expression: unknown symbol {error.args[0][:20]!r}, expected"
            f" {' '.join(SYMBOLS[1:])}, separated by blanks"
        ) from None


def spell(symbols: bytes) -> str:
    """Return the text of an expression as the benchmark writes it, with its parentheses.

    Each operator takes its arguments one by one, as in ``( ( ( [MAX 2 ) 9 ) ] )``.

    Args:
        symbols: Ids of an expression.
    """
    text, above = "", []  # what is read of the innermost operator, and of those around it
    for symbol in symbols:
        word = SYMBOLS[symbol]
        if _MIN <= symbol < _END:
            above.append(text)
            text = word
            continue
        if symbol == _END:
            word = f"( {text} {word} )"
            text = above.pop()
        text = f"( {text} {word} )" if text else word
    return text
