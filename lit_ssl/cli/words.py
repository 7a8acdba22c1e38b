"""The words of ``lit-ssl``, in one table: what each does, and the function that does it.

The functions import what they need themselves, so that a word that needs no training framework
starts without one.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError, did_you_mean

__all__ = ["WORDS", "help_text", "run_word"]


class Word(NamedTuple):
    """A word of the command line.

    Attributes:
        help: its line in the help.
        run: its function, which gets the words after it.
    """

    help: str
    run: Callable[[Sequence[str]], None]


def run_word(words: Sequence[str]) -> None:
    """Run the command line.

    Args:
        words: what follows ``lit-ssl``.

    Raises:
        InputError: for a word that does not exist, or what its function refuses.
    """
    first = words[0] if words else ""
    known = {name: word for section in WORDS.values() for name, word in section.items()}
    if not words or first in ("-h", "--help", "help"):
        print(help_text(), end="", file=sys.stdout if words else sys.stderr)
        if not words:
            sys.exit(2)
    elif first == "--version":
        from lit_ssl.version import __version__

        print(f"lit-ssl {__version__}")
    elif first in known:
        known[first].run(words[1:])
    elif first.startswith("-"):
        raise InputError("options come after the command: lit-ssl fit --config ... --model.lr ...")
    else:
        raise InputError(f"no command {first!r}.{did_you_mean(first, known)}")


def help_text() -> str:
    """What ``lit-ssl --help`` prints."""
    lines = ["usage: lit-ssl COMMAND ..."]
    for title, section in WORDS.items():
        lines += ["", f"{title}:"]
        for name, word in section.items():
            lines.append(f"  {name:<10} " + word.help.replace("\n", f"\n{'':<13}"))
    lines += ["", "  --version  print the version", "  --help     print this text", ""]
    return "\n".join([*lines, "LIT_SSL_DEBUG=1 shows errors with their traceback.", ""])


def _train(words: Sequence[str]) -> None:
    from lit_ssl.cli.training import run

    run()


def _configs(words: Sequence[str]) -> None:
    from lit_ssl.cli import recipes

    usage = "usage: lit-ssl configs [list | show NAME | copy NAME [DEST]]"
    match list(words):
        case ["-h" | "--help"]:
            print(usage)
        case [] | ["list"]:
            names = recipes.list_configs()
            width = max(map(len, names), default=0)
            for name in names:
                print(f"{name:<{width}}  {recipes.describe_config(name)}".rstrip())
        case ["show", name]:
            print(recipes.packaged_config(name).read_text(encoding="utf-8"), end="")
        case ["copy", name, *rest] if len(rest) <= 1:
            print(recipes.copy_config(name, *rest))
        case [word, *_] if word in ("list", "show", "copy"):
            raise InputError(usage)
        case [word, *_]:
            hint = did_you_mean(word, ["list", "show", "copy"])
            raise InputError(f"configs has no command {word!r}.{hint}")


def _methods(words: Sequence[str]) -> None:
    from lit_ssl.cli.recipes import list_methods

    if list(words) in (["-h"], ["--help"]):
        print("usage: lit-ssl methods")
        return
    if words:
        raise InputError(f"`lit-ssl methods` takes no words, found {' '.join(words)}")
    methods = list_methods()
    width = max((len(method.name) for method in methods), default=0)
    for name, summary, configs in methods:
        print(f"{name:<{width}}  {summary}")
        if configs:
            print(f"{'':<{width}}  recipes: {', '.join(configs)}")


def _export(words: Sequence[str]) -> None:
    from lit_ssl.cli.export import run

    run(words)


def _nac_prune(words: Sequence[str]) -> None:
    parser = LineParser(
        "lit-ssl nac-prune", description="Write a checkpoint of NAC with fewer modules."
    )
    parser.add_argument("checkpoint", help="checkpoint of a run of NAC or NACFewShot")
    parser.add_argument("out", help="checkpoint to write")
    parser.add_argument("--keep", type=int, help="how many modules: the best by --method")
    parser.add_argument("--modules", help="or which: their numbers, such as 0,3,4")
    parser.add_argument("--outputs", help="numbers of the output modules to keep; all by default")
    parser.add_argument(
        "--method",
        help="nested, eigenvector, in_strength, out_strength, reverse or random; by default nested"
        " after a training with nested or sandwich module dropout, else eigenvector",
    )
    args = parser.parse_args(words)
    if (args.keep is None) == (args.modules is None):
        raise InputError("say which modules to keep, by --keep NUMBER or --modules 0,3,4")
    keep = args.keep if args.modules is None else _numbers("--modules", args.modules)
    outputs = None if args.outputs is None else _numbers("--outputs", args.outputs)
    from lit_ssl.methods.nac.pruned_checkpoint import prune_checkpoint

    done = prune_checkpoint(args.checkpoint, args.out, keep, outputs, args.method)
    how = "" if done.method is None else f", the best by {done.method}"
    before, after = done.sizes
    print(f"wrote {args.out}: modules {', '.join(map(str, done.modules))}{how}")
    print(f"{after:,} of {before:,} parameters; evaluate it with its data, without its old config:")
    print(f"  lit-ssl test --ckpt_path {shlex.quote(args.out)} --data ...")


def _pmi_vocabulary(words: Sequence[str]) -> None:
    parser = LineParser(
        "lit-ssl pmi-vocabulary",
        description="Write the collocations of a text, for masking them as units (PMIMasker).",
    )
    parser.add_argument("text", help="file with a sentence or caption a line")
    parser.add_argument("out", help="file to write: a collocation a line, its score, its count")
    parser.add_argument(
        "--tokenizer", help="folder or vocab.txt; its words count (default: those of uncased BERT)"
    )
    parser.add_argument("--size", type=int, help="how many; by default as --coverage says")
    parser.add_argument(
        "--coverage",
        type=float,
        default=0.5,
        help="share of the words that should lie in a collocation (default: 0.5)",
    )
    parser.add_argument(
        "--min-count", type=int, default=10, help="rarer ones are left out (default: 10)"
    )
    parser.add_argument(
        "--exponent",
        type=float,
        default=1.0,
        help="of the probability in the score: 1, or 2 as in the published lists (default: 1)",
    )
    args = parser.parse_args(words)
    from lit_ssl.text.pmi_files import write_vocabulary

    for line in write_vocabulary(
        args.text,
        args.out,
        args.tokenizer,
        size=args.size,
        coverage=args.coverage,
        min_count=args.min_count,
        exponent=args.exponent,
    ):
        print(line)


def _pictures(words: Sequence[str]) -> None:
    from lit_ssl.cli.pictures import run

    run(words)


def _video_plan(words: Sequence[str]) -> None:
    from lit_ssl.cli.video.plan import run

    run(words)


def _video_sample(words: Sequence[str]) -> None:
    from lit_ssl.cli.video.sample import run

    run(words)


def _video_score(words: Sequence[str]) -> None:
    from lit_ssl.cli.video.score import run

    run(words)


def _shard(words: Sequence[str]) -> None:
    from lit_ssl.cli.shard import run

    run(words)


def _look(words: Sequence[str]) -> None:
    from lit_ssl.cli.look import run

    run(words)


def _neighbours(words: Sequence[str]) -> None:
    from lit_ssl.cli.neighbours import run

    run(words)


def _numbers(option: str, text: str) -> list[int]:
    """Numbers with commas between."""
    try:
        return [int(part) for part in text.strip("[] ").split(",")] if text.strip("[] ") else []
    except ValueError as error:
        raise InputError(
            f"{option} takes numbers with commas, such as 0,3,4, not {text}"
        ) from error


def _imagenetx(words: Sequence[str]) -> None:
    from lit_ssl.cli.imagenet_x import run

    run(words)


def _compare(words: Sequence[str]) -> None:
    from lit_ssl.cli.compare import run

    run(words)


def _video_cache(words: Sequence[str]) -> None:
    from lit_ssl.cli.video.cache import run

    run(words)


def _completion(words: Sequence[str]) -> None:
    from lit_ssl.cli.completion import run

    run(words, {name: word for section in WORDS.values() for name, word in section.items()})


# section of the help → its words
WORDS: dict[str, dict[str, Word]] = {
    "Train and evaluate": {
        "fit": Word(
            "train a method:   lit-ssl fit --config msn/mnist5k.yaml --model.lr 1e-3", _train
        ),
        "validate": Word("run the evaluation of a checkpoint on the validation data", _train),
        "test": Word("the same on the test data", _train),
        "predict": Word(
            "write features or predictions of the test (else all) data, with file names\n"
            "Options of these: lit-ssl fit --help; of a class: lit-ssl fit --model.help MSN",
            _train,
        ),
    },
    "Look around": {
        "configs": Word(
            "list the packaged recipes; configs show NAME; configs copy NAME [DEST]", _configs
        ),
        "methods": Word("list the methods", _methods),
        "completion": Word(
            "a script for your shell: lit-ssl completion bash > FILE; --help says where it goes",
            _completion,
        ),
    },
    "Images": {
        "look": Word(
            "what is in a folder of images, and what to run next: lit-ssl look my_images", _look
        ),
        "neighbours": Word(
            "images that are alike, from features: lit-ssl neighbours predictions.safetensors",
            _neighbours,
        ),
        "shard": Word(
            "write images as shards for streaming: lit-ssl shard --data MNIST5kDataModule --output"
            " OUT",
            _shard,
        ),
    },
    "Videos": {
        "video-plan": Word(
            "what a level of a cascade costs: lit-ssl video-plan --config video/ucf101_level2.yaml",
            _video_plan,
        ),
        "video-sample": Word(
            "make videos with a cascade: lit-ssl video-sample CKPT OUT.mp4 --num 16", _video_sample
        ),
        "video-cache": Word(
            "decode videos once, at the size of training: lit-ssl video-cache VIDEOS OUT --shorter"
            " 64",
            _video_cache,
        ),
        "video-score": Word(
            "FVD, Inception Score, motion of two folders: lit-ssl video-score REAL_DIR FAKE_DIR",
            _video_score,
        ),
    },
    "Use the result": {
        "compare": Word(
            "one table and plot of several runs: lit-ssl compare RUN [RUN …] [--output DIR]",
            _compare,
        ),
        "pictures": Word(
            "draw maps, neighbours, attention, prototypes: lit-ssl pictures CKPT --output DIR",
            _pictures,
        ),
        "export": Word(
            "write the encoder of a checkpoint for timm, transformers, ONNX or the hub:\n"
            "lit-ssl export CKPT OUT.safetensors (or OUT.onnx, or a folder with a model card)",
            _export,
        ),
        "nac-prune": Word(
            "write a smaller checkpoint of NAC: lit-ssl nac-prune CKPT OUT.ckpt --keep 8",
            _nac_prune,
        ),
        "pmi-vocabulary": Word(
            "write the collocations of a text, for PMIMasker: lit-ssl pmi-vocabulary TEXT.txt OUT",
            _pmi_vocabulary,
        ),
        "imagenetx": Word(
            "score files of predictions by kind of image: lit-ssl imagenetx score A.csv [B.csv]",
            _imagenetx,
        ),
    },
}
