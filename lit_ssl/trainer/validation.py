"""When a fit validates: what of it will never run, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import val_batches
from lit_ssl.trainer.run import is_fast_dev_run

__all__ = ["tell_schedule", "why_not_validated"]

_told: WeakKeyDictionary[pl.Trainer, str] = WeakKeyDictionary()


def tell_schedule(trainer: pl.Trainer) -> None:
    """Say in one line which evaluations of a fit will never run, or only at its end, and why.

    Call it on every process when the training starts; several callbacks may, it is said once. An
    evaluator is a callback with ``every_n_epochs``, ``is_off``, ``family`` (how the names of its
    values begin) and ``runs_in_validation`` (true).

    Args:
        trainer: The running trainer, whose end is validated
            (``lit_ssl.trainer.private.validate_the_end``).

    Raises:
        InputError: If ``EarlyStopping`` waits for a validation that never comes, or a monitor for
            an evaluator that is off.
    """
    if is_fast_dev_run(trainer):
        return
    why = why_not_validated(trainer)
    if why is None:
        _refuse_off(trainer)
    line = "; ".join(_late(trainer)) if why is None else _never(trainer, why)
    if line and _told.get(trainer) != line:
        _told[trainer] = line
        rank_zero_warn(line)


def why_not_validated(trainer: pl.Trainer) -> str | None:
    """Why nothing is validated in this fit, if so; asked on every process once it trains.

    Args:
        trainer: of the fit.

    Returns:
        What there is none of, in a few words; None where something is validated.
    """
    module: Any = trainer.lightning_module
    data = getattr(trainer, "datamodule", None)
    if val_batches(trainer):
        return None
    if not is_overridden("validation_step", module):
        return f"{type(module).__name__} has no validation_step"
    if trainer.limit_val_batches == 0:
        return "limit_val_batches is 0"
    return "there are no validation data" + (f" in {type(data).__name__}" if data else "")


def _refuse_off(trainer: pl.Trainer) -> None:
    """Refuse to monitor values of an evaluator that is off: the run would end where it looks."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    measured = {evaluator.family for evaluator in _evaluators(trainer)}
    for evaluator in callbacks:
        family = getattr(evaluator, "family", "")
        if not family or not evaluator.is_off or family in measured:
            continue
        for callback in callbacks:
            monitor = getattr(callback, "monitor", None) or ""
            is_watching = isinstance(callback, EarlyStopping | ModelCheckpoint)
            if is_watching and monitor.startswith(f"val/{family}_"):
                raise InputError(
                    f"{type(callback).__name__}(monitor={monitor!r}) waits for "
                    f"{type(evaluator).__name__}, which is off, since the data have no classes: "
                    "remove it, or monitor something else"
                )


def _never(trainer: pl.Trainer, why: str) -> str:
    """The line about a fit without validation; empty where nobody asked for one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    waiting = [type(evaluator).__name__ for evaluator in _evaluators(trainer)]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or not monitor.startswith("val"):
            continue
        name = f"{type(callback).__name__}(monitor={monitor!r})"
        if isinstance(callback, EarlyStopping) and callback.strict:
            raise InputError(
                f"{name} waits for a validation, and nothing is validated in this fit: {why}; "
                "remove it, or monitor something that the training logs"
            )
        if isinstance(callback, EarlyStopping | ModelCheckpoint):
            waiting.append(name)
    on_purpose = trainer.limit_val_batches == 0 or not is_overridden(
        "validation_step", trainer.lightning_module
    )
    if not waiting:
        return "" if on_purpose else f"nothing is validated in this fit: {why}"
    return f"nothing is validated in this fit: {why}. Never runs: {', '.join(waiting)}"


def _late(trainer: pl.Trainer) -> Iterator[str]:
    """What runs at the end of a fit only, though its interval asks for more or for less."""
    every = trainer.check_val_every_n_epoch
    first, last = trainer.current_epoch + 1, _last_epoch(trainer)
    if every is None or last is None:
        return
    validated = [epoch for epoch in range(first, last + 1) if epoch % every == 0]
    if not validated:
        yield (
            f"this fit is validated only at its end: check_val_every_n_epoch is {every}, and it "
            f"ends in epoch {last}"
        )
        return
    for evaluator in _evaluators(trainer):
        own = evaluator.every_n_epochs
        if not any(epoch % own == 0 for epoch in validated):
            meet = math.lcm(own, every)
            yield (
                f"{type(evaluator).__name__} runs only at the end of this fit: its every_n_epochs "
                f"({own}) and check_val_every_n_epoch ({every}) first meet in epoch {meet}, and "
                f"it ends in epoch {last}"
            )


def _evaluators(trainer: pl.Trainer) -> list[Any]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [c for c in callbacks if getattr(c, "runs_in_validation", False) and not c.is_off]


def _last_epoch(trainer: pl.Trainer) -> int | None:
    """Number of the last epoch, counted from 1, if the fit's length is known."""
    ends = [trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    steps = trainer.num_training_batches / trainer.accumulate_grad_batches
    if trainer.max_steps != -1 and math.isfinite(steps):
        ends.append(math.ceil(trainer.max_steps / math.ceil(steps)))
    return min(ends, default=None)
