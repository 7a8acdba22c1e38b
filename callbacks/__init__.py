"""Callbacks that evaluate, watch and draw, for any representation method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.callbacks.background_checkpoints import (
        BackgroundCheckpoints as BackgroundCheckpoints,
    )
    from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator as RepresentationEvaluator
    from lit_ssl.callbacks.evaluators.features import Features as Features
    from lit_ssl.callbacks.evaluators.features import extract_features as extract_features
    from lit_ssl.callbacks.evaluators.features import shard_features as shard_features
    from lit_ssl.callbacks.evaluators.grounding import Grounding as Grounding
    from lit_ssl.callbacks.evaluators.knn import KNNEvaluator as KNNEvaluator
    from lit_ssl.callbacks.evaluators.linear_probe import (
        LinearProbeEvaluator as LinearProbeEvaluator,
    )
    from lit_ssl.callbacks.evaluators.low_shot import LowShotEvaluator as LowShotEvaluator
    from lit_ssl.callbacks.evaluators.soft_nn import SoftNNEvaluator as SoftNNEvaluator
    from lit_ssl.callbacks.exact_resume import ExactResume as ExactResume
    from lit_ssl.callbacks.execution import Execution as Execution
    from lit_ssl.callbacks.global_batch import GlobalBatch as GlobalBatch
    from lit_ssl.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
    from lit_ssl.callbacks.last_layer import LastLayerRefit as LastLayerRefit
    from lit_ssl.callbacks.last_validation import LastValidation as LastValidation
    from lit_ssl.callbacks.monitors.cascade import CascadeMonitor as CascadeMonitor
    from lit_ssl.callbacks.monitors.collapse import CollapseMonitor as CollapseMonitor
    from lit_ssl.callbacks.monitors.finite import FiniteGuard as FiniteGuard
    from lit_ssl.callbacks.monitors.speed import SpeedMonitor as SpeedMonitor
    from lit_ssl.callbacks.monitors.sync import SyncMonitor as SyncMonitor
    from lit_ssl.callbacks.pictures.attention import AttentionMaps as AttentionMaps
    from lit_ssl.callbacks.pictures.circuit_graph import CircuitGraph as CircuitGraph
    from lit_ssl.callbacks.pictures.embedding_map import EmbeddingMap as EmbeddingMap
    from lit_ssl.callbacks.pictures.masked_captions import MaskedCaptions as MaskedCaptions
    from lit_ssl.callbacks.pictures.neighbour_grid import NeighbourGrid as NeighbourGrid
    from lit_ssl.callbacks.pictures.prototypes import PrototypeGallery as PrototypeGallery
    from lit_ssl.callbacks.pictures.support_assignments import (
        SupportAssignments as SupportAssignments,
    )
    from lit_ssl.callbacks.pictures.video_sheet import VideoContactSheet as VideoContactSheet
    from lit_ssl.callbacks.pictures.views import ViewLogger as ViewLogger
    from lit_ssl.callbacks.reports.factors import FactorReport as FactorReport
    from lit_ssl.callbacks.reports.groups import GroupReport as GroupReport
    from lit_ssl.callbacks.reports.labelled_sets import LabelledSet as LabelledSet
    from lit_ssl.callbacks.reports.module_drop import ModuleDropSweep as ModuleDropSweep
    from lit_ssl.callbacks.reports.representation import (
        RepresentationReport as RepresentationReport,
    )
    from lit_ssl.callbacks.reports.run_page import RunPage as RunPage
    from lit_ssl.callbacks.reports.vqa_results import VQAResults as VQAResults
    from lit_ssl.callbacks.seed import StepSeeder as StepSeeder
    from lit_ssl.trainer.requeue import SlurmRequeue as SlurmRequeue
    from lit_ssl.trainer.run_lock import RunLock as RunLock

__all__, __getattr__, __dir__ = lazy_names(__name__)
