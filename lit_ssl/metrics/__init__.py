"""Evaluation measures as plain functions of features and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.imagenet_x.comparison import FactorComparison as FactorComparison
    from lit_ssl.imagenet_x.comparison import compare_factors as compare_factors
    from lit_ssl.imagenet_x.factor_table import FactorTable as FactorTable
    from lit_ssl.imagenet_x.factor_table import factor_table as factor_table
    from lit_ssl.imagenet_x.intervals import holm as holm
    from lit_ssl.imagenet_x.intervals import wilson_interval as wilson_interval
    from lit_ssl.imagenet_x.metric import FactorAccuracy as FactorAccuracy
    from lit_ssl.imagenet_x.metric import ImageNetXMetric as ImageNetXMetric
    from lit_ssl.imagenet_x.scores import FactorScores as FactorScores
    from lit_ssl.metrics.accuracy import KnownAccuracy as KnownAccuracy
    from lit_ssl.metrics.circuit import degree_entropy as degree_entropy
    from lit_ssl.metrics.circuit import link_density as link_density
    from lit_ssl.metrics.circuit import mean_link as mean_link
    from lit_ssl.metrics.collapse import assignment_entropy as assignment_entropy
    from lit_ssl.metrics.collapse import feature_std as feature_std
    from lit_ssl.metrics.collapse import rankme as rankme
    from lit_ssl.metrics.collapse import used_prototypes as used_prototypes
    from lit_ssl.metrics.groups import GroupAccuracy as GroupAccuracy
    from lit_ssl.metrics.groups import GroupScores as GroupScores
    from lit_ssl.metrics.groups import PredictorQuality as PredictorQuality
    from lit_ssl.metrics.groups import PredictorScores as PredictorScores
    from lit_ssl.metrics.knn import knn_predict as knn_predict
    from lit_ssl.metrics.knn import topk_accuracy as topk_accuracy
    from lit_ssl.metrics.linear_probe import LinearProbe as LinearProbe
    from lit_ssl.metrics.linear_probe import fit_linear_probe as fit_linear_probe
    from lit_ssl.metrics.low_shot import draw_labelled as draw_labelled
    from lit_ssl.metrics.low_shot import fit_low_shot as fit_low_shot
    from lit_ssl.metrics.low_shot import low_shot_accuracies as low_shot_accuracies
    from lit_ssl.metrics.low_shot import predict_low_shot as predict_low_shot
    from lit_ssl.metrics.low_shot import preprocess_rows as preprocess_rows
    from lit_ssl.metrics.soft_nn import soft_nearest_neighbor as soft_nearest_neighbor
    from lit_ssl.metrics.softmax_regression import fit_softmax_regression as fit_softmax_regression
    from lit_ssl.metrics.vl.nlvr2 import NLVR2Accuracy as NLVR2Accuracy
    from lit_ssl.metrics.vl.nlvr2 import NLVR2Scores as NLVR2Scores
    from lit_ssl.metrics.vl.retrieval import RetrievalRecall as RetrievalRecall
    from lit_ssl.metrics.vl.vqa import VQAScore as VQAScore
    from lit_ssl.models.probes import ProbeHead as ProbeHead
    from lit_ssl.models.probes import ProbeHeads as ProbeHeads
    from lit_ssl.models.probes import probe_losses as probe_losses

__all__, __getattr__, __dir__ = lazy_names(__name__)
