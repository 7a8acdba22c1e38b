"""Batches of several views, taken apart."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["split_two_streams", "view_major"]


def view_major(views: Tensor) -> Tensor:
    """``[B, V, …]`` → ``[V * B, …]``."""
    return views.transpose(0, 1).flatten(0, 1)


def split_two_streams(batch: Any, who: str) -> tuple[list[Tensor], Tensor, Tensor]:
    """Take a batch of two streams apart.

    Args:
        batch: see :class:`lit_ssl.methods.PAWS`.
        who: name of the module, for the message.

    Returns:
        Unlabelled views, one ``[B, count, C, H, W]`` per size; support views ``[M, V, C, H, W]``;
        their labels ``[M]``.

    Raises:
        ValueError: if the batch is of another form.
    """
    problem = f"a batch of type {type(batch).__name__}"
    if isinstance(batch, dict) and {"unlabelled", "support"} <= set(batch):
        views, support = batch["unlabelled"], batch["support"]
        if isinstance(views, list | tuple) and views and isinstance(views[0], list | tuple):
            views = views[0]  # (views, labels)
        problem = "no two large crops first in the unlabelled views"
        if isinstance(views, list | tuple) and views[0].ndim == 5 and views[0].shape[1] == 2:
            images, labels = support
            images = images[0] if isinstance(images, list | tuple) else images
            return list(views), images if images.ndim == 5 else images.unsqueeze(1), labels
    raise InputError(
        f"{who} got {problem}: it trains on dictionaries with `unlabelled`: views [B, count, C, H, "
        "W], count 2 for the first crop size, and `support`: (views, labels). Use "
        "SemiSupervisedDataModule with a data set whose train_transform is a MultiCrop"
    )
