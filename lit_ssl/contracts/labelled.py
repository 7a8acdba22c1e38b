"""Labelled batches, and which images a data module validates on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["labelled_batch", "validates_on_test"]


def labelled_batch(batch: Any, who: str) -> tuple[Tensor, Tensor]:
    """Images ``[B, C, H, W]`` and labels ``[B]`` of a batch.

    Args:
        batch: of a data module.
        who: name of the module that needs them, for the message.

    Raises:
        ValueError: if it is another kind of batch.
    """
    if isinstance(batch, list | tuple) and len(batch) in (2, 3):  # the third: groups, numbers
        images, labels = batch[:2]
        if isinstance(images, Tensor) and images.ndim == 4 and isinstance(labels, Tensor):
            return images, labels
    raise InputError(
        f"{who} trains on labelled batches (images [B, C, H, W], labels [B]): leave out the data "
        "module's train_transform or give it a SingleView"
    )


def validates_on_test(datamodule: Any) -> bool:
    """Whether a data module is known to serve its test images for validation.

    Args:
        datamodule: any, or None.
    """
    if getattr(datamodule, "val_size", None) != 0:
        return False
    loaders = datamodule.val_dataloader(), datamodule.test_dataloader()
    val, test = (getattr(getattr(part, "dataset", None), "reader", None) for part in loaders)
    return val is not None and val is test
