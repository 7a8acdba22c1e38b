"""Schedules and parameter groups."""

from lit_ssl.optim.groups import decay_groups, is_bias_or_norm
from lit_ssl.optim.schedules import MultiStep, Schedule, linear, set_schedules

__all__ = ["MultiStep", "Schedule", "decay_groups", "is_bias_or_norm", "linear", "set_schedules"]
