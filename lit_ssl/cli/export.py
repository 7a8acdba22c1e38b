"""``lit-ssl export``: the encoder of a checkpoint for timm, transformers, ONNX or the hub."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

__all__ = ["run"]

_SUFFIXES = {"timm": ".safetensors", "onnx": ".onnx"}
_FOLDERS = ("folder", "transformers")
# option → what it is for
_OF_FOLDERS = {
    "report": "the card",
    "license": "the card",
    "push": "a folder",
}


def run(words: Sequence[str]) -> None:
    """Run ``lit-ssl export``.

    Args:
        words: what follows the word.

    Raises:
        InputError: for options that do not go together, and whatever cannot be exported.
    """
    args = _parser().parse_args(words)
    out = Path(args.out)
    kind = _kind(args, out)
    options = _model_args(args.model_args)
    _check(args, kind, out)
    from lit_ssl.checkpoints.encoder_to_export import find_exportable

    said = _check_push(args)
    report = _report_early(args)
    encoder = find_exportable(
        args.checkpoint, args.model_name, args.class_path, args.prefix, options
    )
    if kind == "timm":
        from lit_ssl.checkpoints.export import write_safetensors

        how = write_safetensors(encoder, args.out)
        print(f"wrote {args.out}; load it with\n  {how}")
    elif kind == "onnx":
        from lit_ssl.checkpoints.export_onnx import OPSET, write_onnx

        distance = write_onnx(encoder, out)
        channels, height, width = encoder.size
        print(f"wrote {args.out}; load it with\n  onnxruntime.InferenceSession({str(out)!r})")
        how = "normalised (mean and std are in its metadata)"
        if not encoder.mean:
            how = "normalised as in its training (mean and std are not known)"
        print(
            f"opset {OPSET}, float32; images [batch, {channels}, {height}, {width}], {how} -> "
            f"features [batch, {encoder.features.shape[-1]}]"
        )
        print(
            f"onnxruntime gives the features of the network up to {distance:.1g}, for batches of 1,"
            " 2 and 5 images"
        )
    else:
        _write_folder(args, encoder, kind, out, report, said)


def _parser() -> LineParser:
    parser = LineParser(
        "lit-ssl export",
        description="Write the encoder of a checkpoint for other programs. What is written is"
        " loaded again and compared with the encoder first.",
    )
    parser.add_argument(
        "checkpoint",
        help="checkpoint of a run, another file or folder of weights, or hf-hub:USER/NAME",
    )
    parser.add_argument(
        "out",
        help="FILE.safetensors for timm, FILE.onnx, or a folder; nothing is written over",
    )
    parser.add_argument(
        "--format",
        choices=["timm", "onnx", "folder", "transformers"],
        help="by default by the name of OUT: timm for .safetensors, onnx for .onnx, else folder"
        " (for timm and the hub, with a card)",
    )
    parser.add_argument("--model-name", help="timm name, if the checkpoint does not tell it")
    parser.add_argument("--class", dest="class_path", help="class path of a module made in Python")
    parser.add_argument("--prefix", help="of the encoder's names in a file of another library")
    parser.add_argument("--model-args", help="JSON, if the checkpoint does not tell them")
    parser.add_argument(
        "--report", help="report.json of an evaluation, or its folder: results for the card"
    )
    parser.add_argument("--license", help="of the weights, for the card, such as apache-2.0")
    parser.add_argument(
        "--push", metavar="USER/NAME", help="push the folder to the hub (needs `hf auth login`)"
    )
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument(
        "--update", action="store_true", help="the repository may have files; none is deleted"
    )
    return parser


def _kind(args: argparse.Namespace, out: Path) -> str:
    by_name = {suffix: kind for kind, suffix in _SUFFIXES.items()}
    if args.format is None and out.suffix and out.suffix not in by_name and not out.is_dir():
        raise InputError(
            f"{args.out}: the name must end in .safetensors (for timm) or .onnx; for a folder "
            "whose name has a dot say --format folder or --format transformers"
        )
    kind = args.format or by_name.get(out.suffix, "folder")
    wanted = _SUFFIXES.get(kind, "")
    if wanted and out.suffix != wanted:
        raise InputError(f"{args.out}: with --format {kind} the name must end in {wanted}")
    if not wanted and out.suffix in by_name:
        raise InputError(
            f"{args.out}: --format {kind} writes a folder, whose name must not end in {out.suffix}"
        )
    return kind


def _check(args: argparse.Namespace, kind: str, out: Path) -> None:
    """What would end the export, before anything is read."""
    if args.out.startswith("hf-hub:"):
        raise InputError(f"{args.out}: OUT is a folder here, which --push USER/NAME pushes")
    if kind not in _FOLDERS:
        for option, what in _OF_FOLDERS.items():
            if getattr(args, option) is not None:
                raise InputError(f"--{option} is for {what}: say --format folder")
    for option in ("private", "update"):
        if getattr(args, option) and args.push is None:
            raise InputError(f"--{option} goes with --push USER/NAME")
    if kind == "onnx":
        from lit_ssl.checkpoints.export_onnx import check_onnx

        check_onnx(out)
    elif kind == "timm":
        from lit_ssl.checkpoints.whole_folder import check_new_file

        check_new_file(out)
    else:
        from lit_ssl.checkpoints.whole_folder import check_new_folder

        check_new_folder(out)
    if kind == "transformers":
        from lit_ssl.checkpoints.export_transformers import check_transformers

        check_transformers()


def _check_push(args: argparse.Namespace) -> str | None:
    if args.push is None:
        return None
    from lit_ssl.checkpoints.hub import check_push

    return check_push(args.push, args.private, args.update)


def _report_early(args: argparse.Namespace) -> Any:
    """The report that was asked for, before the long export."""
    if args.report is None:
        return None
    from lit_ssl.checkpoints.run_files import read_report

    return read_report(Path(args.report))


def _write_folder(
    args: argparse.Namespace, encoder: Any, kind: Any, out: Path, report: Any, said: str | None
) -> None:
    from lit_ssl.checkpoints.run_files import run_folder_of
    from lit_ssl.checkpoints.shared_folder import write_shared_folder

    checkpoint = Path(args.checkpoint)
    run_folder = run_folder_of(checkpoint) if checkpoint.is_file() else None
    step = encoder.recipe.get("global_step")
    report, note = _report_for(report, checkpoint, run_folder, step)
    loading = write_shared_folder(encoder, out, kind, run_folder, args.license, report, args.push)
    print(f"wrote {args.out}; load it with")
    for number, (_, code) in enumerate(loading):
        lines = [line for line in code.splitlines() if line]
        print("  or\n" * bool(number) + "\n".join(f"  {line}" for line in lines))
    print(f"its card is {out / 'README.md'}: places on this machine are cut to their last part")
    if note:
        print(note)
    if args.license is None:
        print("no licence is named in the card: --license apache-2.0, say, names one")
    if args.push is not None:
        from lit_ssl.checkpoints.hub import push_folder

        print(said, flush=True)
        print(f"pushed to {push_folder(out, args.push, args.private)}")
    else:
        print(f"upload it with\n  hf upload USER/NAME {out}")


def _report_for(report: Any, checkpoint: Path, run: Path | None, step: object) -> tuple[Any, str]:
    """The report for the card, else that of the run if it is of these weights; what to say of it.

    Args:
        report: the one that was asked for, if any.
        checkpoint: what is exported.
        run: folder of the run that wrote it, if known.
        step: how many steps its training had made.
    """
    from lit_ssl.checkpoints.run_files import is_report_of, read_report

    if report is not None:
        is_known = is_report_of(report, checkpoint, step)
        note = f"{report.file} does not say that it is of {checkpoint.name}; it is in the card"
        return report, "" if is_known else note
    if run is None or not (run / "report.json").is_file():
        return None, "no results are in the card: --report takes the report.json of an evaluation"
    found = read_report(run)
    if is_report_of(found, checkpoint, step):
        return found, f"the results in the card are those of {found.file}"
    return None, f"{found.file} is of other weights, and not in the card: --report takes another"


def _model_args(text: str | None) -> dict[str, Any] | None:
    try:
        return None if text is None else dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f'--model-args is no JSON such as {{"img_size": 28}}: {text}') from error
