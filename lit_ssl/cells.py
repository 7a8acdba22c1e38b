"""Names as cells of a CSV file that nobody's spreadsheet takes for a formula.

A file may be called ``=HYPERLINK("http://…")``. A cell that begins with one of ``=``, ``+``, ``-``,
``@``, a tab or an end of line gets an apostrophe in front, and so does one that begins with
apostrophes before such a sign; ``name_of_cell`` takes it away again, so that every name comes
back as it was. Numbers stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

from lit_ssl.numerals import finite_number

__all__ = ["name_of_cell", "plain_cell"]

_SIGNS = "[=+\\-@\t\r\n＝＋－＠]"  # the last four are the wide forms, which some programs take too
_FORMULA = re.compile(f"'*{_SIGNS}")
_GUARDED = re.compile(f"'+{_SIGNS}")


def plain_cell(value: Any) -> Any:
    """Return what to write for a value: a text that is no formula; other values as they are.

    Args:
        value: What stands in the cell, of any type.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or finite_number(value) is not None:
        return value
    return f"'{value}"


def name_of_cell(cell: str) -> str:
    """Return the text that ``plain_cell`` was given.

    Args:
        cell: The text of a cell, as it was read.
    """
    return cell[1:] if _GUARDED.match(cell) else cell
