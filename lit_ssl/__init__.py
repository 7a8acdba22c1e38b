"""lit_ssl: PyTorch Lightning modules for self-supervised, robust and distributed learning.

The public names below resolve on first use, so that ``import lit_ssl`` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_LAZY = {
    "AttributePredictor": "lit_ssl.methods",
    "BARACK": "lit_ssl.methods",
    "DiLoCoStrategy": "lit_ssl.strategies",
    "FineTuning": "lit_ssl.methods",
    "FrozenEncoder": "lit_ssl.methods",
    "GroupDROLoss": "lit_ssl.losses",
    "GroupRobustClassifier": "lit_ssl.methods",
    "ImageClassifier": "lit_ssl.methods",
    "JTT": "lit_ssl.methods",
    "LinearEvaluation": "lit_ssl.methods",
    "LocalSGDStrategy": "lit_ssl.strategies",
    "MSN": "lit_ssl.methods",
    "MSNLoss": "lit_ssl.losses",
    "PAWS": "lit_ssl.methods",
    "PAWSLoss": "lit_ssl.losses",
    "PMSN": "lit_ssl.methods",
    "PMSNLoss": "lit_ssl.losses",
    "RoPAWS": "lit_ssl.methods",
    "SlowMomentumStrategy": "lit_ssl.strategies",
    "SuNCEt": "lit_ssl.methods",
}

__all__ = [
    "BARACK",
    "JTT",
    "MSN",
    "PAWS",
    "PMSN",
    "AttributePredictor",
    "DiLoCoStrategy",
    "FineTuning",
    "FrozenEncoder",
    "GroupDROLoss",
    "GroupRobustClassifier",
    "ImageClassifier",
    "LinearEvaluation",
    "LocalSGDStrategy",
    "MSNLoss",
    "PAWSLoss",
    "PMSNLoss",
    "RoPAWS",
    "SlowMomentumStrategy",
    "SuNCEt",
    "__version__",
]

if TYPE_CHECKING:
    from lit_ssl.losses import GroupDROLoss, MSNLoss, PAWSLoss, PMSNLoss
    from lit_ssl.methods import (
        BARACK,
        JTT,
        MSN,
        PAWS,
        PMSN,
        AttributePredictor,
        FineTuning,
        FrozenEncoder,
        GroupRobustClassifier,
        ImageClassifier,
        LinearEvaluation,
        RoPAWS,
        SuNCEt,
    )
    from lit_ssl.strategies import DiLoCoStrategy, LocalSGDStrategy, SlowMomentumStrategy


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
