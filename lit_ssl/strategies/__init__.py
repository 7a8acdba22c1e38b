"""Trainer strategies that communicate less than DDP: local SGD, slow momentum, DiLoCo.

Importing this package registers the short names ``local_sgd``, ``post_local_sgd`` (DDP for the
first half of the run), ``slowmo``, ``slowmo_bmuf`` and ``diloco`` for ``Trainer(strategy=...)``.
"""

from __future__ import annotations

from lightning.pytorch.strategies import StrategyRegistry

from lit_ssl.strategies.diloco import DiLoCoStrategy
from lit_ssl.strategies.local_sgd import LocalSGDStrategy
from lit_ssl.strategies.options import QuadraticSyncRule
from lit_ssl.strategies.slow_momentum import SlowMomentumStrategy

__all__ = ["DiLoCoStrategy", "LocalSGDStrategy", "QuadraticSyncRule", "SlowMomentumStrategy"]

for _name, _class, _description, _arguments in (
    ("local_sgd", LocalSGDStrategy, "local SGD, averaged every 8 steps", {}),
    ("post_local_sgd", LocalSGDStrategy, "half of the run in DDP, then so", {"warmup_steps": 0.5}),
    ("slowmo", SlowMomentumStrategy, "local SGD with slow momentum 0.5", {}),
    (
        "slowmo_bmuf",
        SlowMomentumStrategy,
        "block momentum (BMUF)",
        {"lr_reference": "none"},
    ),
    ("diloco", DiLoCoStrategy, "500 local steps, then an outer Nesterov step", {}),
):
    if _name not in StrategyRegistry:  # a second import must not fail
        StrategyRegistry.register(_name, _class, description=_description, **_arguments)
