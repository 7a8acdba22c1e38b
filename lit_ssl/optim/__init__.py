"""Schedules and parameter groups."""

from lit_ssl.optim.groups import decay_groups, is_bias_or_norm
from lit_ssl.optim.lars import InnerLrLars, make_lars
from lit_ssl.optim.schedules import MultiStep, Schedule, linear, set_schedules

__all__ = [
    "InnerLrLars",
    "MultiStep",
    "Schedule",
    "decay_groups",
    "is_bias_or_norm",
    "linear",
    "make_lars",
    "set_schedules",
]
