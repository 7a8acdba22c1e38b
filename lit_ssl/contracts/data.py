"""What is asked of a data module."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np

from lit_ssl.distributed import world_size
from lit_ssl.errors import InputAttributeError, InputError

__all__ = [
    "bank_loader",
    "bank_sample",
    "check_bank",
    "check_bank_sample",
    "clips_per_video",
    "data_source",
    "group_data",
    "is_unlabelled",
    "num_classes_of",
    "row_seed",
    "support_split",
    "validates_on_test",
]

_GROUPS = (
    "group_array", "soft_group_array", "set_groups", "set_sampling", "bank_dataloader",
    "num_attributes", "eval_group_names",
)  # fmt: skip


def data_source(trainer: pl.Trainer) -> Any:
    """The data module, or the LightningModule when the data hooks live there.

    Args:
        trainer: of the run.
    """
    return getattr(trainer, "datamodule", None) or trainer.lightning_module


def bank_loader(trainer: pl.Trainer) -> Iterable[Any]:
    """The loader of the training images with the evaluation transform.

    Args:
        trainer: of the run.

    Raises:
        AttributeError: If the data module has no ``bank_dataloader()``.
    """
    check_bank(trainer)
    return data_source(trainer).bank_dataloader()


def check_bank(trainer: pl.Trainer) -> None:
    """Make sure that the training images come with the evaluation transform, too.

    Args:
        trainer: of the run.

    Raises:
        AttributeError: If the data module has no ``bank_dataloader()``.
    """
    source = data_source(trainer)
    if not callable(getattr(source, "bank_dataloader", None)):
        kind = "module" if isinstance(source, pl.LightningModule) else "data module"
        raise InputAttributeError(
            f"{kind} {type(source).__name__} has no bank_dataloader(): expected a method "
            "that serves the training images with the evaluation transform, in order, each once, "
            "as (images, labels); add it or remove the callback"
        )


def bank_sample(trainer: pl.Trainer, most: int) -> Iterable[Any]:
    """A loader of training images with the evaluation transform, drawn at random and so mixed.

    Every process has equally many batches.

    Args:
        trainer: The running trainer.
        most: So many images over all processes, or as many as there are. Always the same ones.

    Raises:
        AttributeError: If the data module cannot serve some of its training images.
    """
    check_bank_sample(trainer)
    source = data_source(trainer)
    drawn = np.random.default_rng(0).permutation(len(source.labels("train")))[:most]
    return source.bank_dataloader(drawn[: len(drawn) // world_size() * world_size()])


def check_bank_sample(trainer: pl.Trainer) -> None:
    """Make sure that ``bank_sample`` is possible.

    Args:
        trainer: of the run.

    Raises:
        AttributeError: If the data module has no ``bank_dataloader(positions=None)`` or no
            ``labels(split)``.
    """
    check_bank(trainer)
    source = data_source(trainer)
    takes = "positions" in inspect.signature(source.bank_dataloader).parameters
    if not takes or not callable(getattr(source, "labels", None)):
        raise InputAttributeError(
            f"{type(source).__name__} cannot serve some of its training images, which "
            "recalibrate_bn needs: expected bank_dataloader(positions=None) and labels(split); add "
            "them or set recalibrate_bn: false"
        )


def support_split(trainer: pl.Trainer) -> Literal["support", "bank"]:
    """The split of the labelled images: ``support`` where the data module has it, else ``bank``.

    Args:
        trainer: of the run.

    Raises:
        AttributeError: If the data module has neither ``support_dataloader()`` nor
            ``bank_dataloader()``.
    """
    if callable(getattr(data_source(trainer), "support_dataloader", None)):
        return "support"
    check_bank(trainer)
    return "bank"


def num_classes_of(trainer: pl.Trainer, given: int | None) -> int:
    """The number of classes given to a callback, or else the data module's, >= 2.

    Args:
        trainer: of the run.
        given: the callback's own number; None: the data module's counts.

    Raises:
        AttributeError: If neither knows it.
        ValueError: If it is below 2.
    """
    source = data_source(trainer)
    count = given if given is not None else getattr(source, "num_classes", None)
    if not count:
        what = "no num_classes" if count is None else "num_classes = 0"
        raise InputAttributeError(
            f"{type(source).__name__} has {what}, so the data counts as unlabelled: "
            "expected an attribute with the number of classes; add it, give num_classes to the "
            "callback, or remove the callback"
        )
    if count < 2:
        raise InputError(f"needs at least two classes, got num_classes={count}")
    return count


def is_unlabelled(trainer: pl.Trainer, given: int | None) -> bool:
    """Whether the data say that they have no classes, and the callback was given no number.

    Args:
        trainer: of the run.
        given: the callback's number of classes; None where it has none.
    """
    return given is None and getattr(data_source(trainer), "num_classes", None) == 0


def clips_per_video(trainer: pl.Trainer) -> int:
    """So many samples in a row of an evaluation batch are clips of one video; 1 of other data.

    Args:
        trainer: of the run.
    """
    return int(getattr(data_source(trainer), "clips_per_video", 1))


def validates_on_test(datamodule: Any) -> bool:
    """Whether a data module, if there is one, is known to validate on its test images.

    It says so itself (``validates_on_test``), or serves the same images for both.

    Args:
        datamodule: the data module; None where the run has none.
    """
    if getattr(datamodule, "validates_on_test", False) is True:
        return True
    if getattr(datamodule, "val_size", None) != 0:
        return False
    loaders = datamodule.val_dataloader(), datamodule.test_dataloader()
    val, test = (getattr(getattr(part, "dataset", None), "reader", None) for part in loaders)
    return val is not None and val is test


def group_data(trainer: pl.Trainer) -> Any:
    """The data module with groups.

    Args:
        trainer: of the run.

    Raises:
        ValueError: If there is none.
    """
    data = getattr(trainer, "datamodule", None)
    if missing := [name for name in _GROUPS if not hasattr(data, name)]:
        found = "none was given" if data is None else f"{type(data).__name__} has no {missing[0]}"
        raise InputError(
            f"needs a data module whose rows have groups: {found}. Use WaterbirdsDataModule, "
            "CelebADataModule, GroupCSVDataModule (your own table) or another one with groups"
        )
    return data


def row_seed(data: Any) -> int:
    """Seed of the run, as the data module has it.

    Args:
        data: a data module; the seed of one without ``run_seed()`` is 0.

    Returns:
        An integer in [0, 2^32).
    """
    seed = data.run_seed() if callable(getattr(data, "run_seed", None)) else 0
    return int(np.uint32(seed))
