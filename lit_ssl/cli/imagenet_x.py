"""``lit-ssl imagenetx``: score and compare files of predictions, without images."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

__all__ = ["run"]

_SHORT = {
    "score": "table of accuracy and error ratio by factor, one column per file",
    "compare": "the same, and what changes from the first file to each other, with p values",
}


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``imagenetx`` on the command line.

    Raises:
        InputError: For wrong words, files or values.
    """
    args = _parser().parse_args(words)
    if args.command == "compare" and len(args.predictions) + args.human < 2:
        raise InputError("compare needs at least two files of predictions")
    if args.human and args.errors != "real":
        raise InputError("--human needs --errors real: the labels themselves are always correct")
    _report(args)


def _parser() -> ArgumentParser:
    parser = LineParser(
        "lit-ssl imagenetx",
        description="Which kinds of image does a model fail on? From files of predictions.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _SHORT.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _add_options(sub)
    return parser


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS.csv",
        help="file_name,predicted_class[,predicted_probability]; the file's name is the model's",
    )
    parser.add_argument(
        "--annotations",
        default="auto",
        metavar="PATH",
        help="folder of ImageNet-X's files, or your own CSV: file_name,label and a column of 0 and "
        "1 per factor (default: the installed package imagenet-x)",
    )
    parser.add_argument("--factors", choices=("top", "multi"), default="top", help="default: top")
    parser.add_argument(
        "--errors",
        choices=("class", "metaclass", "real"),
        default="class",
        help="correct is the label (default), any class of its group, or any ReaL label",
    )
    parser.add_argument(
        "--real-empty",
        choices=("drop", "wrong"),
        default="drop",
        help="images without a ReaL label are left out (default, the ReaL protocol) or count as "
        "errors (ImageNet-X's official tables)",
    )
    parser.add_argument("--keep-prototypes", action="store_true", help="count prototypes too")
    parser.add_argument("--human", action="store_true", help="the labels as one more model (ReaL)")
    parser.add_argument("--partial", action="store_true", help="images may lack a prediction")
    parser.add_argument("--level", type=float, default=0.95, help="of intervals (default: 0.95)")
    parser.add_argument("--out", metavar="DIR", help="write tables (.csv .md .json) and plot there")
    parser.add_argument("--no-plot", action="store_true", help="with --out: tables only")


def _report(args: Namespace) -> None:
    from lit_ssl.imagenet_x.annotations import read_annotations
    from lit_ssl.imagenet_x.output import write_report
    from lit_ssl.imagenet_x.predictions import read_predictions
    from lit_ssl.imagenet_x.report import build_report
    from lit_ssl.imagenet_x.scores import FactorScores, check_error_type, human_predictions
    from lit_ssl.imagenet_x.text import print_report

    if not 0 < args.level < 1:
        raise InputError(f"--level must lie between 0 and 1, not {args.level}")
    if args.out and (taken := _file_in_the_way(Path(args.out))):
        raise InputError(f"--out {args.out}: {taken} is a file; give a folder, new or old")
    annotations = read_annotations(args.annotations, args.factors, args.keep_prototypes)
    check_error_type(args.errors, annotations)
    models = [read_predictions(path, annotations) for path in args.predictions]
    if args.human:
        models.append(human_predictions(annotations))
    scores = [
        FactorScores(model, annotations, args.errors, args.real_empty, args.partial)
        for model in models
    ]
    report = build_report(scores, args.real_empty, args.level)
    print_report(report, changes=args.command == "compare")
    for model in models:
        if model.extra:
            print(f"{model.name}: {model.extra:,} predictions of images without annotations")
    if args.out:
        for kind, path in write_report(report, Path(args.out), not args.no_plot).items():
            print(f"{kind + ':':<13}{path}")


def _file_in_the_way(folder: Path) -> Path | None:
    """The file, if any, that is where the folder or one above it should be."""
    return next((path for path in (folder, *folder.parents) if path.is_file()), None)
