"""Evaluation measures as plain functions of features and labels."""

from __future__ import annotations

from lit_ssl.metrics.factor_accuracy import FactorAccuracy
from lit_ssl.metrics.factor_comparison import FactorComparison, compare_factors
from lit_ssl.metrics.factor_scores import FactorScores
from lit_ssl.metrics.factors import FactorTable, factor_table
from lit_ssl.metrics.groups import (
    GroupAccuracy,
    GroupScores,
    PredictorQuality,
    PredictorScores,
)
from lit_ssl.metrics.imagenet_x import ImageNetXMetric
from lit_ssl.metrics.intervals import holm, wilson_interval
from lit_ssl.metrics.knn import knn_predict, topk_accuracy
from lit_ssl.metrics.linear_probe import LinearProbe, fit_linear_probe
from lit_ssl.metrics.low_shot import (
    draw_labelled,
    fit_low_shot,
    low_shot_accuracies,
    predict_low_shot,
    preprocess_rows,
)
from lit_ssl.metrics.probe_head import ProbeHead
from lit_ssl.metrics.probe_heads import ProbeHeads, probe_losses
from lit_ssl.metrics.rankme import assignment_entropy, feature_std, rankme, used_prototypes
from lit_ssl.metrics.soft_nn import soft_nearest_neighbor
from lit_ssl.metrics.softmax_regression import fit_softmax_regression

__all__ = [
    "FactorAccuracy",
    "FactorComparison",
    "FactorScores",
    "FactorTable",
    "GroupAccuracy",
    "GroupScores",
    "ImageNetXMetric",
    "LinearProbe",
    "PredictorQuality",
    "PredictorScores",
    "ProbeHead",
    "ProbeHeads",
    "assignment_entropy",
    "compare_factors",
    "draw_labelled",
    "factor_table",
    "feature_std",
    "fit_linear_probe",
    "fit_low_shot",
    "fit_softmax_regression",
    "holm",
    "knn_predict",
    "low_shot_accuracies",
    "predict_low_shot",
    "preprocess_rows",
    "probe_losses",
    "rankme",
    "soft_nearest_neighbor",
    "topk_accuracy",
    "used_prototypes",
    "wilson_interval",
]
