"""Schedules and parameter groups."""

from lit_ssl.optim.groups import decay_groups, is_bias_or_norm
from lit_ssl.optim.lars import InnerLrLars, make_lars
from lit_ssl.optim.layer_decay import layer_decay_groups
from lit_ssl.optim.schedules import MultiStep, Schedule, linear, set_schedules
from lit_ssl.optim.stacked_sgd import StackedSGD

__all__ = [
    "InnerLrLars",
    "MultiStep",
    "Schedule",
    "StackedSGD",
    "decay_groups",
    "is_bias_or_norm",
    "layer_decay_groups",
    "linear",
    "make_lars",
    "set_schedules",
]
