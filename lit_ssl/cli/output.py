"""What a run of ``lit-ssl`` prints and leaves on the disk."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint, RichModelSummary
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_summary import get_human_readable_count
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich import get_console
from rich.table import Table

from lit_ssl.contracts.data import validates_on_test
from lit_ssl.datamodules import ImageDataModule, SemiSupervisedDataModule
from lit_ssl.errors import InputError
from lit_ssl.opening import writing
from lit_ssl.trainer.claims import NAME
from lit_ssl.trainer.private import quiet_hp_metric
from lit_ssl.trainer.run import is_fast_dev_run, new_folders, root_is_chosen, run_folder

__all__ = [
    "FirstBatch",
    "ParameterSummary",
    "SaveConfig",
    "best_checkpoint",
    "drop_placeholder",
    "quiet",
    "quiet_about",
    "refuse_nothing",
    "remove_unused_run",
    "short",
    "tell",
    "tell_results",
]

# What Lightning says in every run and nobody can act upon.
_OFFERS_AND_NOTES = (
    "Tip: For seamless cloud",
    "TPU available: False",
    "You are using a CUDA device",  # and should allow TF32: recipes do, by execution.float32_matmul
    "Loading `train_dataloader` to estimate",
)
_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # about Lightning's own code
    r"The dirpath has changed from",  # it always has: each run has a folder of its own
    r"Total length of `list` across ranks is zero",  # data without images for validation
    r"Found \d+ module\(s\) in eval mode",  # the summary above it says which, on purpose
    r"Precision \S+-mixed is not supported by the model summary",  # its parameters have 32 bits
)
_LEFT_BY_A_START = ("config.yaml", "hparams.yaml", NAME)


@rank_zero_only
def tell(line: str) -> None:
    """Print a line, on one process.

    Args:
        line: without an end of line.
    """
    print(line, flush=True)


def short(path: str | Path) -> str:
    """The path, relative to the working folder if it lies below it.

    Args:
        path: the path, or a URL, which stays as it is.
    """
    relative = os.path.relpath(path) if "://" not in str(path) else str(path)
    return str(path) if relative.startswith("..") else relative


def quiet() -> None:
    """Silence what Lightning says in every run and nobody can act upon."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(text in record.getMessage() for text in _OFFERS_AND_NOTES)
    )
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def quiet_about(datamodule: pl.LightningDataModule, command: str | None) -> None:
    """Silence advice that does not apply to the data module, or to the command.

    Args:
        datamodule: of the run.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    if command != "fit":  # there, the state of callbacks that only train is of no use
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
    # Reading files has workers by default: 0 is set on purpose, or the images lie in memory.
    kinds = (ImageDataModule, SemiSupervisedDataModule)
    if isinstance(datamodule, kinds) and datamodule.num_workers == 0:
        warnings.filterwarnings("ignore", message=".*does not have many workers")


def drop_placeholder(trainer: pl.Trainer) -> None:
    """Keep the curve ``hp_metric``, a placeholder of −1, out of TensorBoard.

    Args:
        trainer: of the run; its loggers are changed.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            quiet_hp_metric(logger)


class FirstBatch(pl.Callback):
    """Notes that a batch is done: errors from then on are not shortened to one line."""

    def __init__(self) -> None:
        self.seen = False
        self.started = time.time()

    def _on_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.seen = self.seen or not trainer.sanity_checking

    on_train_batch_end = on_validation_batch_end = _on_batch_end
    on_test_batch_end = on_predict_batch_end = _on_batch_end


class ParameterSummary(RichModelSummary):
    """Table of the module's parts and their parameters; FLOPs only where they were measured."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int = 0,
        **summarize_kwargs: Any,
    ) -> None:
        """Print it."""
        columns = [column for column in summary_data if total_flops or column[0] != "FLOPs"]
        table = Table(header_style=summarize_kwargs.get("header_style", "bold magenta"))
        for name, _ in columns:
            table.add_column(name, justify="right" if name in ("Params", "FLOPs") else "left")
        for row in zip(*(values for _, values in columns), strict=True):
            table.add_row(*row)
        total, trained = map(get_human_readable_count, (total_parameters, trainable_parameters))
        console = get_console()
        console.print(table)
        console.print(f"{trained} of {total} parameters are trained ({model_size:,.0f} MB)")


class SaveConfig(SaveConfigCallback):
    """Saves the configuration where the run logs.

    Without a logger only ``fit`` saves it, and only where a ``default_root_dir`` was chosen.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save it."""
        is_kept = trainer.loggers or (stage == "fit" and root_is_chosen(trainer))
        if self.already_saved or not is_kept:
            return
        self.already_saved = True
        folder = run_folder(trainer, [self.config_filename])
        if folder is not None and trainer.is_global_zero:
            options = {"skip_none": False, "overwrite": True, "multifile": self.multifile}
            with writing(folder / self.config_filename), warnings.catch_warnings():
                folder.mkdir(
                    parents=True, exist_ok=True
                )  # skip_none has another name since jsonargparse 4.49
                warnings.simplefilter("ignore", DeprecationWarning)
                self.parser.save(self.config, str(folder / self.config_filename), **options)


@rank_zero_only
def refuse_nothing(trainer: pl.Trainer, command: str) -> None:
    """Refuse an evaluation without any batch, which Lightning passes over in silence.

    Args:
        trainer: of the evaluation.
        command: ``validate``, ``test`` or ``predict``.

    Raises:
        InputError: always, with the reason.
    """
    kind = {"validate": "val", "test": "test", "predict": "predict"}[command]
    data = type(trainer.datamodule).__name__  # type: ignore[attr-defined]
    is_off = getattr(trainer, f"limit_{kind}_batches") == 0
    why = f"limit_{kind}_batches is 0" if is_off else f"{data} has no images for it"
    raise InputError(f"{command} did nothing: {why}")


@rank_zero_only
def remove_unused_run(trainer: pl.Trainer, started: float) -> None:
    """Delete the log folder of a run that stopped before its first batch.

    A folder that holds more than a start leaves there, or anything from before ``started`` (seconds
    since the epoch), is not touched: it may be of another run, or a person's.

    Args:
        trainer: of the run.
        started: when the run began.
    """
    logs = [Path(getattr(logger, "log_dir", None) or "") for logger in trainer.loggers]
    for folder in dict.fromkeys([*logs, *new_folders(trainer)]):
        if not folder.name or not folder.is_dir():
            continue
        entries = list(folder.iterdir())
        if any(entry.stat().st_mtime < started for entry in entries):
            continue
        names = [entry.name for entry in entries if entry.name not in _LEFT_BY_A_START]
        if len(names) <= 1 and all(name.startswith("events.out.tfevents.") for name in names):
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()


def tell_results(trainer: pl.Trainer) -> None:
    """Say how a training ended, and where its checkpoints and logs lie.

    The results are those of the last validation, or the training's own where there was none.

    Args:
        trainer: of the fit.
    """
    values = {n: v for n, v in trainer.callback_metrics.items() if not n.endswith("_std")}
    measured = {n: v for n, v in values.items() if n.startswith("val")} or values
    shown = [f"{name} {value:.4g}" for name, value in measured.items()]
    tell(f"results: {', '.join([*shown, f'step {trainer.global_step}'])}")
    if is_fast_dev_run(trainer):
        return
    folders = [str(getattr(c, "dirpath", None) or "") for c in trainer.checkpoint_callbacks]
    for folder in dict.fromkeys(folder for folder in folders if os.path.isdir(folder)):
        tell(f"checkpoints: {short(folder)}")
    for logger in trainer.loggers:
        if logs := getattr(logger, "log_dir", None) or logger.save_dir:
            tell(f"logs: {short(logs)}")


def best_checkpoint(trainer: pl.Trainer) -> str | None:
    """The file that a monitor has chosen in a fit, None where nothing was, or may be, chosen.

    A ``ModelCheckpoint`` that keeps all files has a best one too, perhaps by the test images.

    Args:
        trainer: of the fit.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            data = getattr(trainer, "datamodule", None)
            if not (callback.monitor.startswith("val") and validates_on_test(data)):
                return callback.best_model_path
    return None
