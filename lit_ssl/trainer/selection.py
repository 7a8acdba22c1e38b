"""Nothing is chosen on the images that are reported: the one guard for all that choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import Subset

from lit_ssl.contracts.data import validates_on_test
from lit_ssl.errors import InputError

__all__ = ["check_monitors", "check_selection", "check_tested", "data_sets"]


def check_selection(data: Any, what: str, otherwise: str) -> None:
    """Refuse a choice on validation images that are the test images.

    Args:
        data: The data module, if there is one.
        what: Would be chosen.
        otherwise: What to do, in place of holding out training images.

    Raises:
        InputError: If the data module is known to validate on its test images.
    """
    if validates_on_test(data):
        raise InputError(
            f"{what} would be chosen on the test images, which are the validation images here: "
            f"hold out training images with data.val_size, or {otherwise}"
        )


def check_monitors(trainer: pl.Trainer, data: Any) -> None:
    """Refuse callbacks of a fit that would choose an epoch on images that are reported.

    One that keeps all checkpoints is warned of: in it, too, one of them is the best.

    Args:
        trainer: The running trainer.
        data: The data module, which says so (``validates_on_test``; ``reported_sets``, the names of
            its evaluation sets that are reported whatever the others are).

    Raises:
        InputError: If ``ModelCheckpoint`` keeps the best of them, or ``EarlyStopping`` stops there.
    """
    if trainer.limit_val_batches == 0:
        return
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping):
            continue
        keeps_none = isinstance(callback, ModelCheckpoint) and callback.save_top_k == 0
        monitor = callback.monitor or ""
        if not monitor.startswith("val") or keeps_none:
            continue
        if not (data.validates_on_test or _is_of_reported_set(monitor, data)):
            continue
        name = f"{type(callback).__name__}(monitor={monitor!r})"
        if isinstance(callback, ModelCheckpoint) and callback.save_top_k == -1:
            rank_zero_warn(
                f"{name} keeps all checkpoints, and calls best the one that does best on images "
                "that are reported, as the validation images are here: do not report that one"
            )
        elif data.validates_on_test:
            check_selection(data, f"the epoch of {name}", "take the last epoch: no monitor")
        else:
            raise InputError(
                f"the epoch of {name} would be chosen on images that are reported: monitor a metric"
                " of the held-out training images (data.val_size), or take the last epoch"
            )


def _is_of_reported_set(monitor: str, data: Any) -> bool:
    sets = getattr(data, "reported_sets", ())
    return monitor.startswith(tuple(f"val/{name}_" for name in sets))


def data_sets(loaders: Any) -> list[Any]:
    """The data sets behind the loaders of a Trainer, as far as these tell.

    Args:
        loaders: one, or a list of them.
    """
    several = loaders if isinstance(loaders, list | tuple) else [loaders]
    found = [getattr(loader, "dataset", None) for loader in several]
    return [data for data in found if data is not None]


def check_tested(trainer: pl.Trainer, chosen_on: Sequence[Any], what: str) -> None:
    """Refuse to test a choice on rows of the data set on which it was made, as Python allows.

    Args:
        trainer: The running trainer, which tests.
        chosen_on: The data sets of the choice (``data_sets``).
        what: Was chosen.

    Raises:
        InputError: If rows of one of them are tested.
    """
    tested = data_sets(trainer.test_dataloaders)
    if any(_share_rows(one, other) for one in tested for other in chosen_on):
        raise InputError(f"{what} was chosen on the images that are tested here: test it on others")


def _share_rows(one: Any, other: Any) -> bool:
    """Whether two data sets are, or are parts (``Subset``) of, the same one with rows in common."""
    (here, some), (there, others) = _part(one), _part(other)
    return here is there and (some is None or others is None or not some.isdisjoint(others))


def _part(data: Any) -> tuple[Any, set[int] | None]:
    """The data set of a ``Subset``, of another one too, and which of its rows; None: all."""
    rows: list[int] | None = None
    while isinstance(data, Subset):
        indices = [int(i) for i in data.indices]
        rows = indices if rows is None else [indices[row] for row in rows]
        data = data.dataset
    return data, None if rows is None else set(rows)
