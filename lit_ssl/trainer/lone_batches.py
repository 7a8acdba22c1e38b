"""Training batches of one image, which BatchNorm cannot normalise: told before they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import trainer_of

__all__ = ["explains_lone_images", "minds_lone_batches"]

Method = Callable[..., Any]
_MEND = "leave that batch out (drop_last), or choose another batch size"


def minds_lone_batches(head: str) -> Callable[[Method], Method]:
    """Let a ``training_step`` find out in the first batch whether an epoch's last is one image.

    With BatchNorm in the head it is refused. With BatchNorm elsewhere, which fails only where a
    feature map has one pixel, there is a warning. Where one fails, the error says what to do.

    Args:
        head: name of the submodule that takes one row of features for each image.
    """

    def decorate(training_step: Method) -> Method:
        @wraps(training_step)
        def minding(self: Any, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 0 and _ends_with_one(trainer_of(self)):
                _mind(self, head)
            with explains_lone_images("a training batch of one image"):
                return training_step(self, batch, batch_idx)

        return minding

    return decorate


@contextmanager
def explains_lone_images(what: str) -> Iterator[None]:
    """Say what to do where BatchNorm fails on one image.

    Args:
        what: what holds only one, for the message.

    Raises:
        InputError: in place of torch's error.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(f"got {what}, which BatchNorm cannot normalise: {_MEND}") from error


def _mind(module: nn.Module, head: str) -> None:
    if _has_batchnorm(module.get_submodule(head)):
        raise InputError(
            "cannot train on the last batch of an epoch: it has one image, which BatchNorm cannot "
            "normalise; " + _MEND
        )
    if _has_batchnorm(module):
        rank_zero_warn(
            f"{type(module).__name__}: the last batch of an epoch has one image. BatchNorm takes "
            "its mean and variance, and fails where a feature map has one pixel; " + _MEND
        )


def _has_batchnorm(module: nn.Module) -> bool:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(norm.training and not isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def _ends_with_one(trainer: Any) -> bool:
    """Whether an epoch's last batch, of several, is known to have one row."""
    loader = None if trainer is None else trainer.train_dataloader
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    if loader.batch_size in (None, 1) or loader.drop_last:
        return False
    is_reached = trainer.num_training_batches >= len(loader) > 1
    return is_reached and len(loader.sampler) % loader.batch_size == 1  # type: ignore[arg-type]
