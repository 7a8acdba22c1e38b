"""``lit-ssl compare``: the results of several runs in one table and one plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

__all__ = ["run"]

_FILES = ("comparison.md", "comparison.tex", "comparison.csv")
_PLOT = "comparison.png"
_LINE = 600  # characters of a notice


def run(words: Sequence[str]) -> None:
    """Run ``lit-ssl compare``.

    Args:
        words: what follows the word.

    Raises:
        InputError: for runs that cannot be read, and files that are in the way.
    """
    args = _parser().parse_args(words)
    if args.output is not None:
        _check(args.output, plot=not args.no_plot)
    elif args.no_plot:
        raise InputError("--no-plot goes with --output DIR, which the plot is written into")
    from lit_ssl.runs.comparison import compare_runs
    from lit_ssl.runs.formats import as_csv, as_latex, as_markdown, print_comparison
    from lit_ssl.runs.reports import plain

    notices: list[str] = []
    comparison = compare_runs(args.runs, args.metric, args.ignore, notices.append)
    if args.format == "text":
        print_comparison(comparison)
    else:
        formats = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
        print(formats[args.format](comparison), end="")
    aside = sys.stdout if args.format == "text" else sys.stderr  # out of tables in a pipe
    for line in notices:
        print(plain(line, _LINE), file=aside)
    if args.output is None:
        return
    from lit_ssl.files import write_file

    figure = None
    if not args.no_plot:
        from lit_ssl.runs.plot import draw_comparison, left_out_of_plot

        figure = draw_comparison(comparison)
    texts = (as_markdown(comparison), as_latex(comparison), as_csv(comparison))
    for name, text in zip(_FILES, texts, strict=True):
        write_file(args.output / name, partial(_put, text))
    if figure is not None:
        save = partial(figure.savefig, format="png", dpi=130)
        write_file(args.output / _PLOT, save, binary=True)
        if left := left_out_of_plot(comparison):
            more = f"{left} more panels: choose with --metric, or name fewer runs"
            print(f"the plot has no room for {more}", file=aside)
    names = [*_FILES, *([] if args.no_plot else [_PLOT])]
    print(f"wrote {', '.join(names)} into {args.output}", file=aside)


def _put(text: str, file: TextIO) -> None:
    file.write(text)


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        "lit-ssl compare",
        description="One table of the results of several runs: a row for each setting, that is "
        "for what differs in their configs, with mean and standard deviation over its seeds.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run, a folder above several, or a report (report.json, "
        "group_report.json, factors.json, linear_sweep.json, module_drop.json, metrics.csv)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="show only this column, such as knn_acc1 or val/loss; may be given several times",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="KEY",
        help="a key of the configs that tells no settings apart, such as data.root, or the object "
        "of several, such as trainer; may be given several times",
    )
    parser.add_argument(
        "--format",
        choices=["text", "markdown", "latex", "csv"],
        default="text",
        help="of what is printed (default: text)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write {', '.join(_FILES)} and {_PLOT} there; nothing is written over",
    )
    parser.add_argument("--no-plot", action="store_true", help="with --output: tables only")
    return parser


def _check(folder: Path, plot: bool) -> None:
    """What would end it, before anything is read."""
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise InputError(f"--output {folder}: {file} is a file; give a folder, new or old")
    taken = [name for name in (*_FILES, _PLOT) if (folder / name).exists()]
    if taken:
        raise InputError(f"--output {folder}: {taken[0]} is there; give another folder")
    if plot:
        from lit_ssl.runs.plot import need_matplotlib

        need_matplotlib()
