"""Tables of the terminal in a page, cell by cell as they were printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lit_ssl.pages.markup import Markup, element, table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["printed_table"]


def printed_table(printed: Table, heading: str = "") -> Markup:
    """A table of ``rich`` as HTML: the same texts, bold where they are bold.

    Args:
        printed: the table, with its title.
        heading: what stands above it already; a title that says the same is left out.
    """
    columns = [list(column.cells) for column in printed.columns]
    title = "" if printed.title is None else str(_text(printed.title))
    rows = [
        [_cell(cell, "bold" in str(row.style or "")) for cell in cells]
        for row, cells in zip(printed.rows, zip(*columns, strict=True), strict=True)
    ]
    return table(
        headers=[_cell(column.header) for column in printed.columns],
        rows=rows,
        caption=title if title != heading else None,
        numbers=[column.justify == "right" for column in printed.columns],
        ends=[n for n, row in enumerate(printed.rows[:-1]) if row.end_section],
    )


def _text(cell: Any) -> Any:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


def _cell(cell: Any, is_bold: bool = False) -> object:
    found = _text(cell)
    is_bold = is_bold or any("bold" in str(span.style) for span in found.spans)
    return element("strong", found.plain) if is_bold and found.plain else found.plain
