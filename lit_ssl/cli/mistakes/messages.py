"""Read the nested error messages of jsonargparse.

A wrong entry makes jsonargparse print a tree, with one branch for each type that it tried.
:func:`read_problem` finds the branch that says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Block", "Problem", "read_problem"]

# kind → pattern, most telling first; the patterns cover the wordings of jsonargparse 4.40 to 4.53.
_KINDS = {
    "unaccepted": r"Subcommand '\w+' does not accept (?:option|nested key) '(?P<name>[^']+)'",
    "group": r"Group '(?P<group>[^']+)' does not accept (?:option|nested key) '(?P<name>[^']+)'",
    "before": r"Option '(?P<name>[^']+)' is not accepted before subcommand",
    "option": r"(?:Option|Key) '(?P<name>[^']+)' is not (?:accepted|expected)",
    "unrecognized": r"[Uu]nrecognized arguments: (?P<name>.+)",
    "required": r'(?:arguments are required: (?P<name>.+)|Key "(?P<key>[^"]+)" is required)',
    "choice": r"invalid choice: '(?P<name>[^']*)' \(choose from (?P<valid>.+)\)",
    "ambiguous": r"Multiple subclasses with name (?P<name>\w+)\. .*: (?P<paths>[\w., ]+)",
    "module": r"No module named '(?P<name>[^']+)'",
    "attribute": r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'",
    "subclass": r"Import path does not correspond to a subclass of (?P<base>\w+)",
    "class": r"Expected a dot import path string: (?P<name>.+)",
    "file": r"File does not exist: '?(?P<name>.+?)'?$",
    "syntax": r"Problems parsing config: (?P<name>.+)",
    "type": r"Expected a (?P<type>.+?)(?:\. Got value: (?P<value>.*))?$",
    "other": r"(?P<name>.+)",
}
_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a (?:config )?path but"
    r"|Not a valid subclass of|Subclass types expect|a class path \(str\)|a dict "
)
_BASES = {"LightningModule", "LightningDataModule", "Callback", "Logger", "Strategy", "Profiler"}


@dataclass
class Block:
    """One ``Parser key`` or ``Problem with given class_path`` block of a message."""

    indent: int
    key: str = ""
    class_path: str = ""
    subtypes: str = ""  # the types that were tried, as jsonargparse prints them
    given: str | None = None


@dataclass
class Problem:
    """What is wrong.

    Attributes:
        kind: one of the kinds of this module: ``option``, ``type``, ``class`` …
        found: the named parts of the message, by the kind.
        path: dotted key, e.g. ``model.optimizer``; may be empty.
        class_path: class whose options are concerned; may be empty.
        block: innermost block: types that were tried and the value given.
        expected: for ``type``: every type that the value could have had.
    """

    kind: str
    found: dict[str, str]
    path: str = ""
    class_path: str = ""
    block: Block = field(default_factory=lambda: Block(0))
    expected: list[str] = field(default_factory=list)

    @property
    def base_only(self) -> bool:
        """Whether the class is only the base class: then no class was given at all."""
        return self.class_path.rpartition(".")[2] in _BASES


def read_problem(message: str) -> Problem:
    """Find the most telling problem in a message of jsonargparse.

    Args:
        message: the text that ``ArgumentParser.error`` gets.
    """
    problems = list(_leaves(message))
    if not problems:
        return Problem("other", {"name": " ".join(message.split())})
    best = min(problems, key=_rank)
    if best.kind == "type":
        same = [p for p in problems if p.kind == "type" and p.block is best.block]
        best.expected = [p.found["type"] for p in same]
    return best


def _rank(problem: Problem) -> tuple[int, int, int]:
    """Sort key, most telling first: "null would do as well" tells least, then a class left out.

    Among equals the innermost: an option of a class tells more than "a string would do as well".
    """
    is_null = "NoneType" in problem.found.get("type", "")
    least = 2 if is_null else int(problem.base_only)
    return least, list(_KINDS).index(problem.kind), -problem.path.count(".")


def _leaves(message: str) -> Iterator[Problem]:
    """Every line that tells a problem, with the blocks that it stands in."""
    stack = [Block(-1)]
    lines = message.splitlines()
    if len(lines) > 1 and lines[0].startswith("Problems parsing config"):
        lines = [" ".join(message.split())]
    for line in lines:
        text = line.strip().removeprefix("- ")
        indent = len(line) - len(line.lstrip()) + (2 if line.lstrip().startswith("- ") else 0)
        # a value given over several lines, or the text of a library, may fall back to the margin
        while len(stack) > 1 and text and stack[-1].indent >= indent:
            stack.pop()
        if match := re.match(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)', text):
            stack.append(Block(indent, key=match["key"]))
            text = match["rest"]
        elif match := re.match(
            r"Problem with given class_path '(?P<cls>[^']+)':\s*(?P<rest>.*)", text
        ):
            stack.append(Block(indent, class_path=match["cls"]))
            text = match["rest"]
        elif text.startswith("Subtypes: "):
            stack[-1].subtypes = text
        elif text.startswith("Given value: "):
            nested = re.match(r"Given value: NestedArg\(key='[^']*', val=(['\"])(.*)\1\)", text)
            stack[-1].given = nested[2] if nested else text.removeprefix("Given value: ")
        if text and not _NOISE.match(text):
            yield _leaf(text, stack)


def _leaf(text: str, stack: list[Block]) -> Problem:
    matches = ((kind, re.search(pattern, text)) for kind, pattern in _KINDS.items())
    kind, match = next((kind, match) for kind, match in matches if match)
    inline = re.search(r"class_path='([^']+)'", text)
    keys = [block.key for block in stack if block.key]
    classes = [block.class_path for block in stack if block.class_path]
    innermost = next((block for block in reversed(stack) if block.key), stack[-1])
    return Problem(
        kind=kind,
        found={name: value for name, value in match.groupdict().items() if value is not None},
        path=".".join(keys),
        class_path=inline[1] if inline else (classes[-1] if classes else ""),
        block=innermost,
    )
