"""A run: where it leaves its files, and what kind of run it is.

All writers ask ``run_folder``. A run writes into the folder that a logger keeps for it alone
(TensorBoard, CSV), else into ``default_root_dir``; what has an ``output`` of its own, there. Where
one of the names is taken by a file that this run did not make, or where the logger is of another
kind and nobody chose a root, it takes a new folder ``lit_ssl_runs/version_N`` below that place: no
file of a person, and none of another run, is ever replaced. A run is one call of the Trainer (fit,
validate, …); what follows a fit of the same module, with the weights of its end, may complete the
fit's files. A run that goes on with a killed one in its folder is the same run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.errors import InputError
from lit_ssl.trainer.claims import in_the_way, new_version
from lit_ssl.trainer.made_with import made_with
from lit_ssl.trainer.private import loader_of_call

__all__ = [
    "check_output",
    "go_on_in",
    "is_fast_dev_run",
    "is_logged",
    "logging_interval",
    "new_folders",
    "origin_of",
    "refuse_closed",
    "root_is_chosen",
    "run_folder",
    "tensorboards",
]

_NEW = "lit_ssl_runs"
_USUAL_INTERVAL = 50  # steps between two looks of callbacks where nothing is logged
_OWN_FOLDER = (TensorBoardLogger, CSVLogger)


class _Call(NamedTuple):
    command: str | None
    checkpoint: str | None
    module: ref[pl.LightningModule]
    data: ref[Any] | None  # what is evaluated; None where it trains

    def completes(self, fit: _Call) -> bool:
        """Whether it is a fit, or goes on with the weights of its end."""
        same = fit.command == "fit" and fit.module == self.module
        return same and (self.command == "fit" or self.checkpoint is None)


@dataclass
class _Files:
    """What a trainer has left: the maker of each path, new folders by place, folders announced."""

    maker: dict[Path, _Call] = field(default_factory=dict)
    new: dict[Path, Path] = field(default_factory=dict)
    announced: set[Path] = field(default_factory=set)
    own: set[Path] = field(default_factory=set)  # of a run that this one goes on with

    def is_foreign(self, path: Path, call: _Call) -> bool:
        """Whether something is there that this run did not make."""
        place = path.parent.absolute()
        if place in self.own or place.parent in self.own:  # pictures lie in folders of a kind
            return False
        maker = self.maker.get(path)
        is_ours = maker is not None and (maker == call or call.completes(maker))
        return os.path.lexists(path) and not is_ours


_files: WeakKeyDictionary[pl.Trainer, _Files] = WeakKeyDictionary()


def run_folder(
    trainer: pl.Trainer, names: Sequence[str], output: str | Path | None = None
) -> Path | None:
    """The folder in which a run may write some files; rank zero decides for all processes.

    Call it on every process, just before writing. The first time that a folder is used, the run
    says so, unless it is its logger's.

    Args:
        trainer: The running trainer.
        names: Files or folders that are going to be written there, by any process.
        output: A folder that a person chose for them; None: the run's.

    Returns:
        The folder, which need not exist; None in a debugging run, which leaves no files.
    """
    if is_fast_dev_run(trainer):
        return None
    files = _files.setdefault(trainer, _Files())
    chosen = str(_choose(trainer, files, names, output)) if trainer.is_global_zero else ""
    folder = Path(trainer.strategy.broadcast(chosen))
    if folder not in files.announced:
        files.announced.add(folder)
        if not any(_own_folder(logger) == folder for logger in trainer.loggers):
            rank_zero_info(f"this run writes into {folder}")
    return folder


def _choose(
    trainer: pl.Trainer, files: _Files, names: Sequence[str], output: str | Path | None
) -> Path:
    data = loader_of_call(trainer)
    call = _Call(
        command=trainer.state.fn,
        checkpoint=_text(trainer.ckpt_path),
        module=ref(trainer.lightning_module),
        data=None if data is None else ref(data),
    )
    base = Path(output) if output else _usual_folder(trainer)
    place = base or _local(trainer.default_root_dir) or Path.cwd()
    folder = files.new.get(place, base)
    if folder is None or any(files.is_foreign(folder / name, call) for name in names):
        folder = files.new[place] = place / _NEW / f"version_{new_version(place / _NEW)}"
    files.maker |= {folder / name: call for name in names}
    return folder


def _usual_folder(trainer: pl.Trainer) -> Path | None:
    """The folder of the logger's that is this run's, or the root; None without either."""
    for logger in trainer.loggers:
        if isinstance(logger, _OWN_FOLDER):
            return _own_folder(logger)
    # other loggers' save_dir is shared by all their runs, and often the working folder
    is_root = not trainer.loggers or root_is_chosen(trainer)
    return _local(trainer.default_root_dir) if is_root else None


def _own_folder(logger: Logger) -> Path | None:
    """The folder that a logger keeps for this run alone; None if it has none, or a remote one."""
    return _local(logger.log_dir) if isinstance(logger, _OWN_FOLDER) else None


def _local(folder: str | Path) -> Path | None:
    return None if "://" in str(folder) else Path(folder)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def go_on_in(trainer: pl.Trainer, folder: Path) -> None:
    """Let a run that goes on with an earlier one write into its folder, over what that has left.

    Args:
        trainer: of the run.
        folder: of the earlier one.
    """
    _files.setdefault(trainer, _Files()).own.add(folder.absolute())


def check_output(trainer: pl.Trainer, output: str | Path | None) -> None:
    """Refuse an ``output`` into which nothing could be written, before the work is done.

    Args:
        trainer: The running trainer; only rank zero writes, and checks.
        output: The folder that a person chose, if any. It is not made yet.

    Raises:
        InputError: If it, or a folder above it, is a file or cannot be written.
    """
    if output is None or not trainer.is_global_zero or is_fast_dev_run(trainer):
        return
    refuse_closed(output, "output")


def refuse_closed(output: str | Path, option: str) -> None:
    """Refuse a folder into which nothing could be written. It is not made yet.

    Args:
        output: The folder.
        option: What it is called.

    Raises:
        InputError: If it, or a folder above it, is a file or cannot be written.
    """
    path = Path(output).absolute()
    if (what := in_the_way(path)) is not None:
        raise InputError(f"{option} {output}: {what} is no folder; give a folder, new or old")
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option} {output}: {there} cannot be written; give another folder")


def origin_of(trainer: pl.Trainer) -> dict[str, Any]:
    """Of which weights the results of a run are, for its reports.

    Args:
        trainer: of the run.

    Returns:
        ``command`` (fit, validate, test, predict); ``checkpoint``, the file of the weights: the
        run's ``ckpt_path``, or else what the module itself has read and holds unchanged;
        ``weights``, what the module was given to start from, as its training may have; ``steps``,
        made by this very trainer with this very module; ``made_with``, the code and the machine.
        ``checkpoint``, ``weights`` and ``steps`` may be None, the first and the last for weights of
        unknown origin.
    """
    module: Any = trainer.lightning_module
    own = {id(parameter) for parameter in module.parameters()}
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    is_its_own = any(id(parameter) in own for group in groups for parameter in group["params"])
    steps = trainer.global_step if is_its_own else 0  # else those of a module fitted before
    given = [getattr(module, name, None) for name in ("weights", "pretrained")]
    start = next((str(file) for file in given if file and isinstance(file, str | Path)), None)
    is_changed = steps or not getattr(module, "holds_start", True)
    return {
        "command": _text(trainer.state.fn and trainer.state.fn.value),
        "checkpoint": _text(trainer.ckpt_path) or (None if is_changed else start),
        "weights": start,
        "steps": steps or None,
        "made_with": made_with(trainer),
    }


def new_folders(trainer: pl.Trainer) -> list[Path]:
    """Folders that were made for this run alone, on rank zero.

    Args:
        trainer: of the run.
    """
    return list(_files[trainer].new.values()) if trainer in _files else []


def root_is_chosen(trainer: pl.Trainer) -> bool:
    """Whether ``default_root_dir`` is another folder than the working folder.

    Args:
        trainer: of the run.
    """
    return os.path.abspath(trainer.default_root_dir) != os.getcwd()


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Whether this is a debugging run, which leaves no files behind.

    Args:
        trainer: of the run.
    """
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether the loggers write this training step; in others, measuring for them costs time.

    Args:
        trainer: of the fit.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.global_step + 1) % every == 0


def logging_interval(trainer: pl.Trainer) -> int:
    """The trainer's ``log_every_n_steps``; 50 where logging is switched off by 0.

    Args:
        trainer: of the run.

    Returns:
        In steps, > 0.
    """
    return trainer.log_every_n_steps or _USUAL_INTERVAL  # type: ignore[attr-defined]


def tensorboards(trainer: pl.Trainer) -> list[Any]:
    """TensorBoard's writers of this process' loggers; none in a debugging run.

    Args:
        trainer: of the run.
    """
    return [one.experiment for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
