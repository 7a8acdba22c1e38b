"""YAML of others: read without running anything, and measured before it is built.

An alias costs a word and stands for as much as was ever written, so that nine lines can stand for
a billion values. jsonargparse copies what it gets, so the sum counts, not the file.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["YAMLError", "load_yaml"]

_MOST = 100_000  # values, where aliases repeat some of them
_BITS = 14_000  # of a whole number: Python prints at most 4,300 digits


class YAMLError(Exception):
    """What is wrong with a text of YAML, where no other parser should be asked about it."""


def load_yaml(text: str) -> Any:
    """Return the value of a text of YAML.

    Args:
        text: of one document.

    Raises:
        yaml.YAMLError: It is no YAML, or asks for objects of Python.
        YAMLError: A key stands twice in one mapping; aliases stand for too much, or for themselves;
            it is nested too deeply; or a value is none of the kind that it claims to be.
    """
    loader = _OnceLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if loader.has_aliases:
            _check_size(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise YAMLError("it is nested too deeply") from error
    except (yaml.YAMLError, YAMLError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # a day such as 2024-99-99, !!int of a word, a number of thousands of digits
        raise YAMLError(f"it holds a value that cannot be read ({_few(error)})") from error
    finally:
        loader.dispose()


def _few(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:100]}"


def _check_size(node: yaml.Node) -> None:
    """Refuse aliases that stand for too much; each node that is written is visited once."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise YAMLError(f"an alias in line {node.start_mark.line + 1} stands for itself")
        if key not in sizes:
            open_nodes.add(key)
            sizes[key] = 1 + sum(map(size, _children(node)))
            open_nodes.discard(key)
        return sizes[key]

    if size(node) > _MOST:
        raise YAMLError(f"its aliases stand for more than {_MOST:,} values: write them out")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


class _OnceLoader(yaml.SafeLoader):
    """Refuses a mapping in which a key stands twice; those that come with ``<<`` do not count."""

    has_aliases = False

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Read a number as Python would print it: hexadecimal ones may be too long for that."""
        value = self.construct_yaml_int(node)
        if value.bit_length() > _BITS:
            raise ValueError("a number of thousands of digits")
        return value

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read a node, and note whether it is an alias."""
        if self.check_event(yaml.AliasEvent):
            self.has_aliases = True
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Read a mapping as it is written."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            name = (key.tag, key.value)
            if name in lines:
                where = f"line {line}" if lines[name] == line else f"lines {lines[name]} and {line}"
                raise YAMLError(
                    f"{key.value!r} stands twice in one place, in {where}, and only the last would "
                    "count: keep one of them"
                )
            lines[name] = line
        return node


_OnceLoader.add_constructor("tag:yaml.org,2002:int", _OnceLoader.construct_whole_number)
