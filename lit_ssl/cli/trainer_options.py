"""What is said about options that do not go together, or do other things than they seem to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import Strategy, StrategyRegistry

from lit_ssl.cli.composing import Entry, kept_options, read_entries
from lit_ssl.cli.mistakes.types import class_called
from lit_ssl.cli.output import tell
from lit_ssl.errors import InputError, did_you_mean, listed

__all__ = [
    "check_strategy",
    "say_kept_options",
    "say_which_of_a_list",
    "tell_if_nothing",
    "without_checkpoints",
]

# Callbacks from here look at the training, or at the run; they measure nothing.
_NO_EVALUATION = (
    "lightning.", "lit_ssl.callbacks.monitors", "lit_ssl.callbacks.pictures",
    "lit_ssl.callbacks.seed", "lit_ssl.callbacks.last_checkpoint",
    "lit_ssl.callbacks.last_validation", "lit_ssl.callbacks.exact_resume", "lit_ssl.cli",
    "lit_ssl.trainer",
)  # fmt: skip
_STRATEGY = "trainer.strategy"
_HOOKS = ("_batch_end", "_epoch_end", "_end")


def with_strategy_classes(words: Sequence[str]) -> list[str]:
    """The words, with the class of a strategy where it stands by its name.

    jsonargparse takes any text for the short name of a strategy, so that it would look for no
    class; the Trainer knows short names only.

    Args:
        words: the words after ``lit-ssl``.
    """
    result = list(words)
    inserted = 0
    for entry in read_entries(words):
        named = [value for name, value in entry.leaves() if name == _STRATEGY]
        found = _strategy_class(named[-1]) if named else None
        if found is None:
            continue
        option = f"--{_STRATEGY}={json.dumps({'class_path': found})}"
        place = entry.position + inserted
        length = 1 if "=" in words[entry.position] else 2
        if entry.name == _STRATEGY:
            result[place : place + length] = [option]
            inserted += 1 - length
        else:  # of a config
            result.insert(place + length, option)
            inserted += 1
    return result


def _strategy_class(name: object) -> str | None:
    """The path of the class that a name means; None for a short name, or an unknown one."""
    if not isinstance(name, str) or name in ("auto", *StrategyRegistry.available_strategies()):
        return None
    try:
        found = class_called(name, [Strategy])
    except InputError:
        return None
    return None if found is None else f"{found.__module__}.{found.__qualname__}"


def check_strategy(name: object) -> None:
    """Compare the name of a strategy with those that are registered.

    Args:
        name: what ``--trainer.strategy`` was set to; objects pass.

    Raises:
        InputError: if there is none of this name, with the nearest.
    """
    known = ["auto", *StrategyRegistry.available_strategies()]
    if not isinstance(name, str) or name in known:
        return
    try:
        class_called(name, [Strategy])
    except InputError as error:
        hint = did_you_mean(name, known, list_up_to=0) or str(error).partition(".")[2]
        raise InputError(f"trainer.strategy: no strategy {name!r}.{hint}") from error


def without_checkpoints(callbacks: Sequence[Any], given: Mapping[str, Any]) -> list[Any]:
    """The callbacks, without those that save checkpoints where none are wanted; this is said.

    Args:
        callbacks: callbacks of the run.
        given: arguments of the Trainer.
    """
    left = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
    if given.get("fast_dev_run"):  # save_last would write a file all the same
        return left
    if given.get("enable_checkpointing") is not False:
        return list(callbacks)
    dropped = [type(callback).__name__ for callback in callbacks if callback not in left]
    if dropped:
        tell(f"enable_checkpointing false: without the recipe's {' and '.join(dropped)}")
    return left


def say_kept_options(entries: Sequence[Entry], config: Mapping[str, Any]) -> None:
    """Say which options of a recipe's object go on to another class that was named after it.

    Args:
        entries: the options of the command line.
        config: what they come to, classes as ``{class_path, init_args}``.
    """
    for path, (now, before, names) in kept_options(entries).items():
        part: Any = config
        for key in path.split("."):
            part = part.get("init_args", part) if isinstance(part, Mapping) else {}
            part = part.get(key)
        taken = part.get("init_args") if isinstance(part, Mapping) else None
        kept = [name for name in names if name in (taken or {})]
        if kept:
            tell(f"{path}: {now} keeps {listed(kept, 20)} of the {before} before it")


def say_which_of_a_list(entries: Sequence[Entry], config: Mapping[str, Any]) -> None:
    """Say which callback or logger of a config a typed option has reached: the last of them.

    Args:
        entries: the options of the command line.
        config: see ``say_kept_options``.
    """
    trainer: Mapping[str, Any] = config.get("trainer") or {}
    typed: set[str] = set()
    for entry in entries:
        for name in ("callbacks", "logger"):
            there = trainer.get(name)
            if entry.name.removesuffix("+") == f"trainer.{name}":
                typed.add(name)  # what follows is meant for it
            is_inside = entry.name.startswith(f"trainer.{name}.")
            if is_inside and isinstance(there, list) and len(there) > 1 and name not in typed:
                last = there[-1]["class_path"].rpartition(".")[2]
                tell(f"--{entry.name}: for {last}, the last of {len(there)} {name}")


def tell_if_nothing(trainer: pl.Trainer, command: str) -> None:
    """Say so where a validation or test has measured nothing.

    Args:
        trainer: after the command.
        command: ``validate`` or ``test``.
    """
    stage = {"validate": "validation"}.get(command, command)
    hooks = [f"on_{stage}{end}" for end in _HOOKS]
    measures = [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if not type(callback).__module__.startswith(_NO_EVALUATION)
        and any(getattr(type(callback), hook) is not getattr(pl.Callback, hook) for hook in hooks)
    ]
    if not trainer.callback_metrics and not measures:
        name = type(trainer.lightning_module).__name__
        tell(
            f"{command} has measured nothing: {name} logs no metric by itself, and no callback "
            "evaluates it; add one, as --trainer.callbacks+=KNNEvaluator, or a preset, as --config "
            "eval/mnist5k.yaml"
        )
