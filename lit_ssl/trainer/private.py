"""Every private name of Lightning, torch and jsonargparse that this library uses, and why.

A new release of theirs is checked in this one file. Each function stands for what there is no
public way to ask or to say. Hooks that a subclass overrides, such as LightningCLI's
``_run_subcommand``, stay where they are overridden.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint, RichModelSummary
from lightning.pytorch.loggers import TensorBoardLogger

__all__ = [
    "before_batch_transfer",
    "built_by_cli",
    "evaluation_loaders",
    "finds_unused_parameters",
    "is_up_to_date",
    "lightning_instantiator",
    "option_types",
    "quiet_hp_metric",
    "required_options",
    "steps_made",
    "subcommand_parsers",
    "summary_options",
]

# The loops


def before_batch_transfer(trainer: pl.Trainer, batch: Any) -> Any:
    """Call the hook of the data module or module, whichever has it; Lightning's loops do it so."""
    return trainer.lightning_module._on_before_batch_transfer(batch)


def evaluation_loaders(loop: Any) -> list[Any] | None:
    """The loaders of an evaluation loop, None before it has any.

    ``trainer.val_dataloaders`` keeps answering with those of an earlier fit.
    """
    combined = loop._combined_loader
    return None if combined is None else combined.flattened


def steps_made(trainer: pl.Trainer) -> int:
    """The step at which Lightning logs its own metrics: batches after which an optimiser stepped.

    ``global_step`` counts every optimiser.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def finds_unused_parameters(strategy: Any) -> bool:
    """Whether a DDP strategy was told to expect parameters without gradient."""
    return bool(strategy._ddp_kwargs.get("find_unused_parameters"))


# Callbacks and loggers


def is_up_to_date(callback: ModelCheckpoint, step: int) -> bool:
    """Whether the last file that a callback wrote is of this step."""
    return callback._last_global_step_saved == step


def summary_options(callback: RichModelSummary) -> dict[str, Any]:
    """The arguments that a model summary was made with; it keeps no public copy."""
    return {"max_depth": callback._max_depth, **callback._summarize_kwargs}


def quiet_hp_metric(logger: TensorBoardLogger) -> None:
    """Keep ``hp_metric`` out of a logger that is there already; else an argument of its class."""
    logger._default_hp_metric = False


# LightningCLI and jsonargparse


def built_by_cli() -> bool:
    """Whether a LightningCLI is building a module, and keeps its hyper-parameters itself."""
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

    return _given_hyperparameters.get() is not None


def lightning_instantiator(cli: Any, key: str) -> Callable[..., Any]:
    """What LightningCLI builds its model (``key`` "model") or data module ("data") with."""
    from lightning.pytorch.cli import _InstantiatorFn

    return _InstantiatorFn(cli=cli, key=key)


def subcommand_parsers(cli: Any) -> dict[str, ArgumentParser]:
    """The parsers of ``fit``, ``test`` …; none if the program has no such words."""
    return getattr(cli, "_subcommand_parsers", {})


def option_types(parser: ArgumentParser) -> dict[str, Any]:
    """Every option of a parser, e.g. ``trainer.max_epochs``, with its type.

    Types are None for options that jsonargparse does not check by type. The attributes are those of
    jsonargparse 4.40 to 4.53; without them all types would be None.
    """
    return {
        name.lstrip("-"): getattr(action, "_typehint", None)
        for action in parser._actions
        for name in action.option_strings
        if not name.endswith((".help", "+"))
    }


def required_options(parser: ArgumentParser) -> list[str]:
    """Options that must be given, in their order; jsonargparse once kept them in a set of names."""
    names = getattr(parser, "required_args", ())
    return [action.dest for action in parser._actions if action.required or action.dest in names]
