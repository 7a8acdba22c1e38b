"""What callbacks expect of modules, data and batches, and what they say when it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lit_ssl.errors import InputAttributeError, InputError, InputTypeError

FeatureFunction = Callable[[Tensor], Tensor]


def split_batch(batch: Any) -> tuple[Tensor | list[Tensor], Tensor | None]:
    """Take a batch apart into images or views, and labels.

    Args:
        batch: ``(images, labels)``, ``(views, labels)``, ``images`` or ``views``; ``images`` is
            ``[B, C, H, W]``, ``views`` a list of ``[B, count, C, H, W]``, ``labels`` int64 ``[B]``.
            A third part (groups, image numbers) is left aside. Or a dictionary whose entry
            ``unlabelled`` is one of these.

    Returns:
        The images or the list of views, and the labels or None.

    Raises:
        TypeError: If the batch has another form.
    """
    if isinstance(batch, dict) and "unlabelled" in batch:
        return split_batch(batch["unlabelled"])
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, list | tuple) and len(batch) > 0:
        if len(batch) in (2, 3) and isinstance(batch[1], Tensor) and batch[1].ndim == 1:
            inputs, labels = batch[:2]
            if isinstance(inputs, Tensor):
                return inputs, labels
            if isinstance(inputs, list | tuple):
                return list(inputs), labels
        if all(isinstance(view, Tensor) for view in batch):
            return list(batch), None
    raise InputTypeError(
        f"cannot read a batch of type {describe(batch)}: expected (images, labels) with images "
        "[B, C, H, W] and labels [B], or (views, labels) with a list of [B, count, C, H, W]; see "
        "docs/design.md, 'Batches'"
    )


def first_view(inputs: Tensor | list[Tensor]) -> Tensor:
    """The images, or the first view of each sample, ``[B, C, H, W]``."""
    first = inputs if isinstance(inputs, Tensor) else inputs[0]
    return first[:, 0] if first.ndim == 5 else first


def describe(value: Any) -> str:
    """Short description of a value's type and shape for error messages."""
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)}"
    if isinstance(value, list | tuple):
        inner = ", ".join(describe(item) for item in value[:4]) + (", …" if len(value) > 4 else "")
        return f"{type(value).__name__}({inner})"
    return type(value).__name__


def data_source(trainer: pl.Trainer) -> Any:
    """The data module, or the LightningModule when the data hooks live there."""
    return getattr(trainer, "datamodule", None) or trainer.lightning_module


def bank_loader(trainer: pl.Trainer, who: str) -> Iterable[Any]:
    """The loader of the training images with the evaluation transform.

    Args:
        trainer: A trainer that is running.
        who: Name of the callback, for the message.

    Returns:
        What ``bank_dataloader()`` of the data module returns.

    Raises:
        AttributeError: If the data module has no such method.
    """
    check_bank(trainer, who)
    return data_source(trainer).bank_dataloader()


def check_bank(trainer: pl.Trainer, who: str) -> None:
    """Raise AttributeError with a clear message if there is no ``bank_dataloader()``."""
    source = data_source(trainer)
    if not callable(getattr(source, "bank_dataloader", None)):
        kind = "module" if isinstance(source, pl.LightningModule) else "data module"
        raise InputAttributeError(
            f"{who}: {kind} {type(source).__name__} has no bank_dataloader(): expected a method "
            "that serves the training images with the evaluation transform, in order, each once, "
            "as (images, labels); add it or remove the callback"
        )


def has_supports(trainer: pl.Trainer) -> bool:
    """Whether the data module tells labelled images apart, with ``support_dataloader()``."""
    return callable(getattr(data_source(trainer), "support_dataloader", None))


def num_classes_of(trainer: pl.Trainer, given: int | None, who: str) -> int:
    """The number of classes given to the callback, or else the data module's.

    Args:
        trainer: A trainer that is running.
        given: Argument of the callback.
        who: Name of the callback, for the message.

    Returns:
        The number of classes, >= 2.

    Raises:
        AttributeError: If neither knows it.
        ValueError: If it is below 2.
    """
    source = data_source(trainer)
    count = given if given is not None else getattr(source, "num_classes", None)
    if not count:
        what = "no num_classes" if count is None else "num_classes = 0"
        raise InputAttributeError(
            f"{who}: {type(source).__name__} has {what}, so the data counts as unlabelled: "
            "expected an attribute with the number of classes; add it, give num_classes to the "
            "callback, or remove the callback"
        )
    if count < 2:
        raise InputError(f"{who} needs at least two classes, got num_classes={count}")
    return count


def is_unlabelled(trainer: pl.Trainer, given: int | None) -> bool:
    """Whether the data say that they have no classes, and the callback was given no number."""
    return given is None and getattr(data_source(trainer), "num_classes", None) == 0


def feature_function(pl_module: pl.LightningModule, name: str, who: str) -> FeatureFunction:
    """The method of a module that maps images to features.

    Args:
        pl_module: The module.
        name: Name of the method; ``forward`` means calling the module itself.
        who: Name of the callback, for the message.

    Returns:
        A function from ``[B, C, H, W]`` to ``[B, D]``.

    Raises:
        AttributeError: If the module has no such method.
    """
    if name == "forward":
        return pl_module
    method = getattr(pl_module, name, None)
    if not callable(method):
        raise InputAttributeError(
            f"{who}: module {type(pl_module).__name__} has no method {name!r}: feature_method must "
            "name a method that maps images [B, C, H, W] to features [B, D]; use 'forward'?"
        )
    return method


def embedding_method(pl_module: pl.LightningModule, otherwise: str = "forward") -> str:
    """Method that gives what soft nearest neighbours compare: ``embed``, or else another."""
    return "embed" if callable(getattr(pl_module, "embed", None)) else otherwise


def embed_dim_of(pl_module: pl.LightningModule, who: str) -> int:
    """``embed_dim`` of a module; AttributeError with a clear message if it has none."""
    width = getattr(pl_module, "embed_dim", None)
    if width is None:
        raise InputAttributeError(
            f"{who}: module {type(pl_module).__name__} has no embed_dim: expected an attribute "
            "with the width D of the features that forward(images) returns; add it"
        )
    return int(width)
