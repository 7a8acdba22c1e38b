"""A comparison as text: for the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

from lit_ssl.cells import plain_cell
from lit_ssl.runs.comparison import ComparedRow, ComparedTable, Comparison, Score
from lit_ssl.runs.configs import shown
from lit_ssl.runs.reports import Column, plain

__all__ = ["as_csv", "as_latex", "as_markdown", "print_comparison", "row_name", "score_text"]

_MISSING = "–"
_LONGEST = 300  # characters of a cell of CSV
_BOLD = "\0"  # in front of a cell
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "~": "&#126;", "$": "&#36;"}
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "±": r"$\pm$",
    "−": "$-$", "τ": r"$\tau$", "…": r"\ldots{}",
}  # fmt: skip


def score_text(score: Score | None, column: Column, count: int) -> str:
    """A number with its spread: ``96.2 ± 1.1``.

    Args:
        score: None where there is none.
        column: what it is.
        count: runs of its row; where fewer have the number, it is said.
    """
    if score is None:
        return _MISSING
    if column.is_share:
        text = f"{100 * score.mean:.1f}"
        text += "" if score.sd is None else f" ± {100 * score.sd:.1f}"
    else:
        text = f"{score.mean:.4g}"
        text += "" if score.sd is None else f" ± {score.sd:.2g}"
    return text if len(score.values) == count else f"{text} (n {len(score.values)})"


def row_name(row: ComparedRow) -> str:
    """What a row is called in one text: ``lr 0.001, mask_ratio 0.25``.

    Args:
        row: of a table.
    """
    parts = [
        f"{plain(key)} {plain(shown(value))}"
        for key, value in row.setting.items()
        if value is not None or row.baseline is None
    ]
    return ", ".join([*([row.baseline] if row.baseline else []), *parts])


def _head(table: ComparedTable) -> list[str]:
    return [*map(plain, table.keys), "n", *(table.label(column) for column in table.columns)]


def _lines(table: ComparedTable, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """Cells of the rows; ``bold`` has a ``%s`` for what is put into it."""
    best = {column: table.best(column) for column in table.columns}
    lines = []
    for row in table.rows:
        cells = [plain(shown(value)) for value in row.setting.values()]
        if row.baseline is not None:
            own = [] if any(value is not None for value in row.setting.values()) else [""]
            cells = [*own, *cells[1:]] if own else cells
            cells[0] = f"{row.baseline} {cells[0]}".strip()
            cells[1:] = ["" if cell == "null" and own else cell for cell in cells[1:]]
        line = [escape(cell) for cell in [*cells, str(len(row.seeds))]]
        for column in table.columns:
            score = row.scores[column]
            text = escape(score_text(score, column, len(row.seeds)))
            is_best = score is not None and score.mean == best[column]
            line.append(bold.replace("%s", text) if is_best else text)
        lines.append(line)
    return lines


def as_markdown(comparison: Comparison) -> str:
    """The tables in Markdown, with their notes.

    Args:
        comparison: to show.
    """
    parts = []
    for table in comparison.tables:
        head = [_markdown_text(name) for name in _head(table)]
        rule = ["---"] * len(table.keys) + ["--:"] * (1 + len(table.columns))
        lines = [head, rule, *_lines(table, _markdown_text, "**%s**")]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n- {_markdown_text(note)}" for note in table.notes)
        parts.append(f"**{_markdown_text(table.title)}**\n\n{text}\n{notes}".rstrip())
    parts += [f"{_markdown_text(note)}" for note in comparison.notes]
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    text = re.sub(r"[&<>~$]", lambda found: _ENTITIES[found[0]], text)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)


def as_latex(comparison: Comparison) -> str:
    """The tables in LaTeX, for the package booktabs; titles and notes are comments.

    Args:
        comparison: to show.
    """
    parts = []
    for table in comparison.tables:
        sides = "l" * len(table.keys) + "r" * (1 + len(table.columns))
        lines = [f"% {table.title}", f"\\begin{{tabular}}{{{sides}}}", "\\toprule"]
        lines.append(" & ".join(map(_latex_text, _head(table))) + r" \\")
        lines.append("\\midrule")
        rows = _lines(table, _latex_text, r"\textbf{%s}")
        own = sum(row.baseline is None for row in table.rows)
        for number, row in enumerate(rows):
            if number == own:
                lines.append("\\midrule")
            lines.append(" & ".join(row) + r" \\")
        lines += ["\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in table.notes)]
        parts.append("\n".join(lines))
    notes = "".join(f"% {note}\n" for note in comparison.notes)
    return "\n\n".join(parts) + "\n" + notes


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def as_csv(comparison: Comparison) -> str:
    """All numbers as CSV, one a line, shares in [0, 1]; empty where there is none.

    Args:
        comparison: to show.
    """
    rows = comparison.rows
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writerow({name: plain_cell(name) for name in writer.fieldnames})
    for row in rows:
        writer.writerow({name: _csv_cell(value) for name, value in row.items()})
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return plain_cell(plain(value if isinstance(value, str) else shown(value), _LONGEST))


def print_comparison(comparison: Comparison) -> None:
    """Print the tables on the terminal.

    Args:
        comparison: to show.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for table in comparison.tables:
        lines = [_head(table), *_lines(table, str, f"{_BOLD}%s")]
        if _width(lines) > console.width and _width(_turned(lines)) < _width(lines):
            lines = _turned(lines)
        head, *rest = lines
        grid = Table(title=Text(table.title), title_justify="left")
        for number, name in enumerate(head):
            is_text = number == 0 or rest[0][number][:1].isalpha()
            grid.add_column(Text(name), justify="left" if is_text else "right", no_wrap=True)
        for line in rest:
            cells = [
                Text(cell.removeprefix(_BOLD), style="bold" if cell[:1] == _BOLD else "")
                for cell in line
            ]
            grid.add_row(*cells)
        wide = Console(highlight=False, width=max(console.width, _width(lines)))
        wide.print(grid)
        for note in table.notes:
            console.print(f"{note}.", markup=False, style="dim", soft_wrap=True)
        console.print()
    for note in comparison.notes:
        console.print(note, markup=False, style="dim", soft_wrap=True)


def _turned(lines: list[list[str]]) -> list[list[str]]:
    """Columns as rows, for narrow terminals."""
    return [list(line) for line in zip(*lines, strict=True)]


def _width(lines: list[list[str]]) -> int:
    """Of a table with frames, in letters."""
    return sum(3 + max(map(len, column)) for column in zip(*lines, strict=True)) + 1
