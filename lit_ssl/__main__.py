"""The ``lit-ssl`` program.

Words that need no training framework are answered here, before anything heavy is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from lit_ssl.errors import InputError, did_you_mean

__all__ = ["main"]

HELP = """usage: lit-ssl COMMAND ...

Train and evaluate:
  fit        train a method:   lit-ssl fit --config msn/mnist5k.yaml --model.lr 1e-3
  validate   run the evaluation of a checkpoint on the validation data
  test       the same on the test data
  predict    run a checkpoint over the prediction data and write predictions.pt
             Options of these: lit-ssl fit --help; of a class: lit-ssl fit --model.help MSN

Look around:
  configs    list the packaged recipes; configs show NAME; configs copy NAME [DEST]
  methods    list the methods

Use the result:
  export     write the encoder of a checkpoint for timm: lit-ssl export CKPT OUT.safetensors
  imagenetx  score files of predictions by kind of image: lit-ssl imagenetx score A.csv [B.csv]

  --version  print the version
  --help     print this text

LIT_SSL_DEBUG=1 shows errors with their traceback.
"""
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main() -> None:
    """Run ``lit-ssl`` with the words of ``sys.argv``.

    Mistakes of the user end it with one line on the error stream and exit status 2.
    """
    # The console script does not see modules of the working folder; appended, not inserted, so that
    # a file of the user never hides an installed package. It is how a user's own classes are found.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    words = sys.argv[1:]
    try:
        _dispatch(words)
    except InputError as error:
        from lit_ssl.cli.mistakes.one_line import debugging

        if debugging():
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _dispatch(words: Sequence[str]) -> None:
    first = words[0] if words else ""
    if not words or first in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if words else sys.stderr)
        if not words:
            sys.exit(2)
    elif first == "--version":
        from lit_ssl.version import __version__

        print(f"lit-ssl {__version__}")
    elif first in _LIGHT:
        _LIGHT[first](words[1:])
    elif first in TRAINER_COMMANDS or first.startswith("-"):
        from lit_ssl.cli.training import run

        run()
    else:
        commands = [*TRAINER_COMMANDS, *_LIGHT]
        raise InputError(f"no command {first!r}.{did_you_mean(first, commands)}")


def _configs(words: Sequence[str]) -> None:
    from lit_ssl.cli import recipes as configs

    usage = "usage: lit-ssl configs [list | show NAME | copy NAME [DEST]]"
    match list(words):
        case ["-h" | "--help"]:
            print(usage)
        case [] | ["list"]:
            names = configs.list_configs()
            width = max(map(len, names), default=0)
            for name in names:
                print(f"{name:<{width}}  {configs.describe_config(name)}".rstrip())
        case ["show", name]:
            print(configs.packaged_config(name).read_text(encoding="utf-8"), end="")
        case ["copy", name, *rest] if len(rest) <= 1:
            print(configs.copy_config(name, *rest))
        case [word, *_] if word in ("list", "show", "copy"):
            raise InputError(usage)
        case [word, *_]:
            hint = did_you_mean(word, ["list", "show", "copy"])
            raise InputError(f"configs has no command {word!r}.{hint}")


def _methods(words: Sequence[str]) -> None:
    if words:
        raise InputError(f"`lit-ssl methods` takes no words, found {' '.join(words)}.")
    from lit_ssl.cli.catalog import list_methods

    methods = list_methods()
    width = max((len(method.name) for method in methods), default=0)
    for name, summary, recipes in methods:
        print(f"{name:<{width}}  {summary}")
        if recipes:
            print(f"{'':<{width}}  recipes: {', '.join(recipes)}")


def _export(words: Sequence[str]) -> None:
    from argparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise InputError(f"{message}; {' '.join(self.format_usage().split())}")

    parser = Parser(
        "lit-ssl export", description="Write the encoder of a checkpoint as timm-named safetensors."
    )
    parser.add_argument("checkpoint", help="checkpoint of a run")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument("--model-name", help="timm name, if the checkpoint does not tell it")
    parser.add_argument("--class", dest="class_path", help="class path of a module made in Python")
    args = parser.parse_args(words)
    from lit_ssl.checkpoints.export import export_checkpoint

    how = export_checkpoint(args.checkpoint, args.out, args.model_name, args.class_path)
    print(f"wrote {args.out}; load it with\n  {how}")


def _imagenetx(words: Sequence[str]) -> None:
    from lit_ssl.cli.imagenet_x import run

    run(words)


_LIGHT: dict[str, Callable[[Sequence[str]], None]] = {
    "configs": _configs,
    "methods": _methods,
    "export": _export,
    "imagenetx": _imagenetx,
}

if __name__ == "__main__":
    main()
