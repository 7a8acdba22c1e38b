"""Who sets the learning rate of a step: the method's schedule, unless the user set another.

A method schedules the groups of parameters that it made, which
[`decay_groups`][lit_ssl.optim.decay_groups] marks by their key ``decay``. A subclass may give an
optimizer of its own in ``configure_optimizers``: one on such groups follows the method's schedules,
any other keeps its values. Where the Trainer has a learning-rate scheduler (a subclass's, or the
one by which ``Tuner.lr_find`` tries rates), the rates are the scheduler's.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer

from lit_ssl.optim.schedules import set_group
from lit_ssl.trainer.private import is_finding_lr

__all__ = ["current_lr", "mark_scheduled", "set_rates"]

_told: WeakSet[Any] = WeakSet()  # trainers


def mark_scheduled(optimizer: Optimizer) -> Optimizer:
    """Mark all groups of an optimizer as the method's, also where a factory made new ones.

    Args:
        optimizer: it is changed.

    Returns:
        The same optimizer.
    """
    for group in optimizer.param_groups:
        group.setdefault("decay", True)
    return optimizer


def set_rates(trainer: Any, optimizer: Any, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate and weight decay in the groups that the method schedules.

    Args:
        trainer: the running Trainer; with a scheduler of learning rates, these are left alone, but
            for the scales of groups, which the finder of a rate does not know.
        optimizer: its groups are changed.
        lr: learning rate, which a group may scale by ``lr_scale``.
        weight_decay: of the groups that decay.
    """
    rate: float | None = lr
    if is_finding_lr(trainer):
        rate = trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0]
    elif trainer.lr_scheduler_configs:
        rate = None
    scheduled = [group for group in optimizer.param_groups if "decay" in group]
    for group in scheduled:
        set_group(group, rate, weight_decay)
    if not scheduled and not trainer.lr_scheduler_configs and trainer not in _told:
        _told.add(trainer)
        rank_zero_info(
            f"{type(trainer.lightning_module).__name__}: the optimizer of configure_optimizers has "
            "groups of its own and keeps its learning rate and weight decay; groups of "
            "lit_ssl.optim.decay_groups would follow the method's schedules"
        )


def current_lr(trainer: Any) -> float:
    """The learning rate that the optimizer has, the largest of its groups, for loggers.

    Args:
        trainer: of the fit; its first optimizer counts.
    """
    return max(group["lr"] for group in trainer.optimizers[0].param_groups)
