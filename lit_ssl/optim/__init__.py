"""Schedules and parameter groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.optim.lars import InnerLrLars as InnerLrLars
    from lit_ssl.optim.lars import make_lars as make_lars
    from lit_ssl.optim.param_groups import decay_groups as decay_groups
    from lit_ssl.optim.param_groups import is_bias_or_norm as is_bias_or_norm
    from lit_ssl.optim.param_groups import layer_decay_groups as layer_decay_groups
    from lit_ssl.optim.schedules import LinearDecay as LinearDecay
    from lit_ssl.optim.schedules import LossWeight as LossWeight
    from lit_ssl.optim.schedules import MultiStep as MultiStep
    from lit_ssl.optim.schedules import Schedule as Schedule
    from lit_ssl.optim.schedules import linear as linear
    from lit_ssl.optim.schedules import set_schedules as set_schedules
    from lit_ssl.optim.stacked_sgd import StackedSGD as StackedSGD

__all__, __getattr__, __dir__ = lazy_names(__name__)
