"""Callbacks that evaluate, watch and draw, for any representation method."""

from __future__ import annotations

from lit_ssl.callbacks.collapse import CollapseMonitor
from lit_ssl.callbacks.evaluator import RepresentationEvaluator
from lit_ssl.callbacks.factor_report import FactorReport
from lit_ssl.callbacks.features import Features, extract_features
from lit_ssl.callbacks.group_report import GroupReport
from lit_ssl.callbacks.knn import KNNEvaluator
from lit_ssl.callbacks.label_sets import LabelledSet
from lit_ssl.callbacks.last_layer import LastLayerRefit
from lit_ssl.callbacks.linear_probe import LinearProbeEvaluator
from lit_ssl.callbacks.low_shot import LowShotEvaluator
from lit_ssl.callbacks.report import RepresentationReport
from lit_ssl.callbacks.seed import StepSeeder
from lit_ssl.callbacks.soft_nn import SoftNNEvaluator
from lit_ssl.callbacks.speed import SpeedMonitor
from lit_ssl.callbacks.sync import SyncMonitor
from lit_ssl.callbacks.views import ViewLogger

__all__ = [
    "CollapseMonitor",
    "FactorReport",
    "Features",
    "GroupReport",
    "KNNEvaluator",
    "LabelledSet",
    "LastLayerRefit",
    "LinearProbeEvaluator",
    "LowShotEvaluator",
    "RepresentationEvaluator",
    "RepresentationReport",
    "SoftNNEvaluator",
    "SpeedMonitor",
    "StepSeeder",
    "SyncMonitor",
    "ViewLogger",
    "extract_features",
]
