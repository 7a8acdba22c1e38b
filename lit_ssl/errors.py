"""A person's mistakes: the error that one line explains, and the nearest valid name."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import wraps
from typing import Any, TypeVar

__all__ = [
    "InputAttributeError",
    "InputError",
    "InputFileNotFoundError",
    "InputImportError",
    "InputRuntimeError",
    "InputTypeError",
    "NonFiniteError",
    "OutputError",
    "by_name",
    "check_choice",
    "check_numbers",
    "did_you_mean",
    "listed",
    "nearest",
    "quoted",
    "shortened",
]

_LONGEST = 200  # characters of a name in a message
_COMPARED = 200  # characters of a name that is compared with others, which takes their square


class InputError(ValueError):
    """A mistake that a person can mend; its message says how.

    ``lit-ssl`` prints it in one line, without a traceback. The classes below are the same for code
    that expects one of Python's other errors.
    """


class InputFileNotFoundError(InputError, FileNotFoundError):
    """A file or folder that should be there is not."""


class InputImportError(InputError, ImportError):
    """A package that has to be installed first."""


class OutputError(InputError, OSError):
    """A file that cannot be written: the disk is full or read-only, or the folder is closed."""


class InputRuntimeError(InputError, RuntimeError):
    """Something that shows only when the parts of a run meet, such as unequal data."""


class InputTypeError(InputError, TypeError):
    """An object of another kind than expected."""


class InputAttributeError(InputError, AttributeError):
    """An object without what is asked of it by contract."""


class NonFiniteError(InputError, FloatingPointError):
    """A loss, a weight or an output that is NaN or infinite."""


Method = TypeVar("Method", bound=Callable[..., Any])


def by_name(method: Method) -> Method:
    """Let an ``InputError`` out of a method begin with the class of its object.

    A message that begins with a verb goes on from the name: ``KNNEvaluator needs labels``; any
    other follows a colon. So the functions in between need not be told who calls them.

    Args:
        method: A method whose ``self`` gives the name.
    """

    @wraps(method)
    def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except InputError as error:
            who, text = type(self).__name__, str(error)
            if text.startswith(who):
                raise
            link = " " if re.match(r"(needs|trains|got|cannot) ", text) else ": "
            same = type(error)(f"{who}{link}{text}")
            raise same.with_traceback(error.__traceback__) from error.__cause__

    return named  # type: ignore[return-value]


def check_choice(name: str, value: object, valid: Sequence[object]) -> None:
    """Raise ``InputError`` unless an option has one of its two or more valid values.

    Args:
        name: What the option is called.
        value: What it was set to.
        valid: All values that it may have.

    Raises:
        InputError: It has another one.
    """
    if value not in valid:
        *first, last = map(repr, valid)
        raise InputError(f"{name} must be {', '.join(first)} or {last}, not {value!r}")


# by parts of their names: start_lr, learning_rates, weight_decay, slow_momentum
_RATES = re.compile(
    r"(^|_)(lr|learning_rates?|weight_decays?|momentum|temperature|gradient_clip_val)(_|$)"
)


def check_numbers(options: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse NaN in any option, and rates that are infinite or negative.

    Rates are told by their names: learning rates, weight decays, momenta, temperatures, the norm
    that gradients are clipped to.

    Args:
        options: names and values, also of objects within; what is no number is passed over.
        prefix: goes before each name in the message, as ``model.``.

    Raises:
        InputError: with the name of the option.
    """
    for name, value in options.items():
        for number in _numbers(value):
            is_rate = bool(_RATES.search(str(name)))
            if _is_nan(number) or (is_rate and not 0 <= number < math.inf):
                least = "> 0" if "temperature" in str(name) else ">= 0"  # 0: the class itself says
                what = f"a finite number {least}" if is_rate else "a number"
                raise InputError(f"{prefix}{name} must be {what}, not {quoted(value)}")
        for part in [value] if isinstance(value, Mapping) else _mappings(value):
            check_numbers(part, f"{prefix}{name}.")


def _numbers(value: Any) -> list[float]:
    """A number, or those in a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [n for n in values if isinstance(n, int | float) and not isinstance(n, bool)]


def _is_nan(number: float) -> bool:
    return isinstance(number, float) and math.isnan(number)  # whole numbers may be no float at all


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list | tuple) else []
    return [part for part in values if isinstance(part, Mapping)]


def nearest(name: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The valid names closest to ``name``, best first, upper and lower case alike.

    Args:
        name: what was typed.
        valid: names to choose from.
        count: return at most so many; those clearly farther away than the best are left out.
    """
    name = name[:_COMPARED].lower()
    scores = {
        v: SequenceMatcher(None, name, v.lower()).ratio() for v in set(valid) if len(v) <= _COMPARED
    }
    best = max(scores.values(), default=0.0)
    close = [v for v, score in scores.items() if score >= max(0.6, best - 0.05)]
    return sorted(close, key=lambda v: (-scores[v], v))[:count]


def did_you_mean(name: str, valid: Iterable[str], list_up_to: int = 12) -> str:
    """The end of an error message: `` Did you mean x?``, or all valid names if they are few.

    Args:
        name: what was typed.
        valid: names to choose from.
        list_up_to: without a near name, list the valid ones if there are at most so many.

    Returns:
        A sentence that begins with a space, or an empty string.
    """
    valid = sorted(set(valid))
    matches = nearest(name, valid)
    valid = [shortened(one) for one in valid[: list_up_to + 1]]
    if matches:
        return f" Did you mean {' or '.join(matches)}?"
    if 0 < len(valid) <= list_up_to:
        return f" Valid: {', '.join(valid)}."
    return ""


def listed(items: Sequence[object], count: int = 5) -> str:
    """The first items in one line, and whether there are more: ``a, b, c, …``.

    Args:
        items: what to list.
        count: show at most so many.
    """
    return ", ".join(map(shortened, items[:count])) + (", …" if len(items) > count else "")


def shortened(text: object, longest: int = _LONGEST) -> str:
    """A text for a message: its beginning and its end where it is long.

    Args:
        text: a name, a path, or what is printed as such.
        longest: characters to keep.
    """
    whole = str(text)
    if len(whole) <= longest:
        return whole
    end = longest // 3
    return f"{whole[: longest - end]}…{whole[-end:]}"


def quoted(value: object, longest: int = 60) -> str:
    """A value out of a file for a message, as Python writes it, in one line and cut.

    Neither long nor deep values cost anything.

    Args:
        value: a line of a text, or what a file of JSON holds.
        longest: characters to show.
    """
    if isinstance(value, str | bytes):
        cut = "…" if len(value) > longest else ""
        return f"{value[:longest]!r}{cut}"
    form = reprlib.Repr()
    form.maxstring = form.maxother = form.maxlong = longest
    try:
        text = form.repr(value)
    except ValueError:  # a number of more digits than Python prints
        text = f"a large {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}…"
