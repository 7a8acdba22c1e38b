"""``lit-ssl video-plan``: what a level of a cascade costs, before anything is trained."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

__all__ = ["run"]

_MODEL = "CascadedVideoGAN"
_USAGE = (
    "lit-ssl video-plan --config RECIPE [--model.OPTION VALUE ...] [--memory GiB] [--windows 2,4,8]"
)


class Plan(NamedTuple):
    """A recipe's model, and its batch.

    Attributes:
        options: Arguments of the module.
        batch: Videos that the generator makes in a step.
        note: Something to say about where they come from; may be empty.
    """

    options: dict[str, Any]
    batch: int
    note: str


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``video-plan`` on the command line.

    Raises:
        InputError: For wrong words, or values that make no level.
    """
    parser = LineParser(
        "lit-ssl video-plan",
        usage=_USAGE,
        allow_abbrev=False,
        description="What training a level costs: parameters, GFLOP, memory by window and batch. "
        "Nothing is computed and no data are needed. Other options are those of `lit-ssl fit`.",
    )
    parser.add_argument("--batch", type=int, help="videos that the generator makes in a step")
    parser.add_argument("--memory", type=float, default=80.0, help="GiB of the device (80)")
    parser.add_argument(
        "--windows", help="frames of the level below in a step, with commas between: 2,4,8"
    )
    args, rest = parser.parse_known_args(words)
    if not rest:
        raise InputError(f"say which level: --config video/ucf101_level2.yaml; usage: {_USAGE}")
    if not 0 < args.memory < float("inf"):
        raise InputError(f"--memory must be a number of GiB above 0, not {args.memory}")
    plan = read_plan(rest)
    if args.batch is not None:
        if args.batch < 1:
            raise InputError(f"--batch must be at least 1, not {args.batch}")
        plan = plan._replace(batch=args.batch)
    for line in table(plan, args):
        print(line)


def read_plan(words: Sequence[str]) -> Plan:
    """Read configs and options as ``lit-ssl fit`` does, without building anything.

    Args:
        words: As behind ``lit-ssl fit``.

    Raises:
        InputError: As there; or if the model is none of a cascade.
    """
    from lit_ssl.cli.training import LitSSLCLI

    class Parsed(LitSSLCLI):
        """Stops behind the parser."""

        def before_instantiate_classes(self) -> None:
            """Nothing."""

        def instantiate_classes(self) -> None:
            """Build nothing."""

        def _run_subcommand(self, subcommand: str) -> None:
            """Run nothing."""

    config = Parsed(args=["fit", *words]).config["fit"].as_dict()
    model, data = config["model"], config["data"]
    if model["class_path"].rpartition(".")[2] != _MODEL:
        raise InputError(
            f"video-plan counts {_MODEL}, and this config trains {model['class_path']}: give "
            "--config video/…"
        )
    options = dict(model["init_args"])
    for name in ("d_steps", "temporal_factor"):  # divided by, before the model checks them
        if options[name] < 1:
            raise InputError(f"{name} must be at least 1, not {options[name]}")
    batch = data["init_args"].get("batch_size") or 1
    note = ""
    if options["num_classes"] is None:
        options["num_classes"] = _classes_of(data)
        if options["num_classes"] is None:
            note = "counted for one class: give --model.num_classes NUMBER where there are more"
    return Plan(options, max(1, batch // options["d_steps"]), note)


def _classes_of(data: Mapping[str, Any]) -> int | None:
    """Classes of a data set that is always the same; None where its files tell."""
    from importlib import import_module

    module, _, name = data["class_path"].rpartition(".")
    known = getattr(getattr(import_module(module), name), "num_classes", None)
    if isinstance(known, int):
        return known
    # RowsModule and its kind read what they are about only where they are asked
    try:
        found = getattr(import_module(module), name)(**data["init_args"]).num_classes
    except (InputError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def table(plan: Plan, args: Namespace) -> list[str]:
    """The lines that are printed.

    Args:
        plan: What is counted.
        args: ``windows`` (text or None) and ``memory`` (GiB).
    """
    from lit_ssl.methods.video.costs import level_cost
    from lit_ssl.models.video.cost import GIB

    level, factor = plan.options["level"], plan.options["temporal_factor"]
    windows = _windows(plan.options, args.windows)
    costs = [level_cost({**plan.options, "window": window}) for window in windows]
    shown = costs[windows.index(plan.options["window"])] if level > 1 else costs[0]
    size = shown.resolution
    head = f"level {level}: {plan.options['num_frames']} frames of {size[0]} x {size[1]} pixels, "
    judges = ", ".join(f"{name} {_millions(c.parameters)}" for name, c in shown.judges.items())
    lines = [
        f"{head}{shown.generator.parameters / 1e6:,.1f} M parameters",
        f"discriminators: {judges}",
        f"weights, gradients, Adam and average: {shown.memory.weights / GIB:.2f} GiB"
        + (", without the levels below" if level > 1 else ""),
        *([plan.note] if plan.note else []),
        "",
    ]
    rows: list[tuple[str, ...]] = [
        (
            "window", "frames", "GFLOP/video", "MiB/video", f"batch {plan.batch}, fp32", "bf16",
            f"largest in {args.memory:g} GiB, fp32", "bf16",
        )
    ]  # fmt: skip
    for window, cost in zip(windows, costs, strict=True):
        memory = cost.memory
        own = {precision: memory.total(plan.batch, precision) for precision in ("fp32", "bf16")}
        most = [memory.largest_batch(args.memory * GIB, p) for p in ("fp32", "bf16")]
        rows.append(
            (
                "all" if window is None else str(window),
                str(plan.options["num_frames"] if window is None else window * factor),
                f"{cost.generator.flops / 1e9:,.1f}",
                f"{cost.generator.saved / 2**20:,.1f}",
                f"{own['fp32'] / GIB:.1f} GiB",
                f"{own['bf16'] / GIB:.1f} GiB",
                *(str(batch) if batch else "none" for batch in most),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return [
        *lines,
        "",
        "GFLOP and MiB of a video are of the generator's forward, in float32. A step's GiB are its",
        "weights and what its networks keep for the backward; workspace comes on top.",
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _windows(options: dict[str, Any], text: str | None) -> list[int | None]:
    """Windows of the table: the asked ones, else halves and doubles up to the whole length.

    The recipe's is always among them.
    """
    if options["level"] == 1:
        if text is not None:
            raise InputError(
                "level 1 is trained on whole videos and has no window: leave out --windows, or give"
                " --model.num_frames"
            )
        return [None]
    below = options["num_frames"] // options["temporal_factor"]
    options["window"] = own = below if options["window"] is None else options["window"]
    if text is None:
        most = max(1, below - 2 * options["window_halo"])
        sizes = {own, max(1, own // 2), min(2 * own, most), most}
    else:
        try:
            sizes = {own, *(int(part) for part in text.split(","))}
        except ValueError as error:
            raise InputError(
                f"--windows takes numbers with commas between, such as 2,4,8, not {text}"
            ) from error
    return sorted(sizes)
