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
    from lit_ssl.metrics.collapse import FeatureSums as FeatureSums
    from lit_ssl.metrics.collapse import assignment_entropy as assignment_entropy
    from lit_ssl.metrics.collapse import feature_std as feature_std
    from lit_ssl.metrics.collapse import feature_std_from_sums as feature_std_from_sums
    from lit_ssl.metrics.collapse import rankme as rankme
    from lit_ssl.metrics.collapse import rankme_from_gram as rankme_from_gram
    from lit_ssl.metrics.collapse import used_prototypes as used_prototypes
    from lit_ssl.metrics.embedding_map import PCAMap as PCAMap
    from lit_ssl.metrics.embedding_map import pca_map as pca_map
    from lit_ssl.metrics.embedding_map import umap_map as umap_map
    from lit_ssl.metrics.groups import GroupAccuracy as GroupAccuracy
    from lit_ssl.metrics.groups import GroupScores as GroupScores
    from lit_ssl.metrics.groups import PredictorQuality as PredictorQuality
    from lit_ssl.metrics.groups import PredictorScores as PredictorScores
    from lit_ssl.metrics.knn import knn_neighbours as knn_neighbours
    from lit_ssl.metrics.knn import knn_predict as knn_predict
    from lit_ssl.metrics.knn import topk_accuracy as topk_accuracy
    from lit_ssl.metrics.linear_probe import LinearProbe as LinearProbe
    from lit_ssl.metrics.linear_probe import fit_linear_probe as fit_linear_probe
    from lit_ssl.metrics.low_shot import draw_labelled as draw_labelled
    from lit_ssl.metrics.low_shot import fit_low_shot as fit_low_shot
    from lit_ssl.metrics.low_shot import low_shot_accuracies as low_shot_accuracies
    from lit_ssl.metrics.low_shot import predict_low_shot as predict_low_shot
    from lit_ssl.metrics.low_shot import preprocess_rows as preprocess_rows
    from lit_ssl.metrics.near_duplicates import closest_pairs as closest_pairs
    from lit_ssl.metrics.sharded import ShardedFeatures as ShardedFeatures
    from lit_ssl.metrics.sharded_neighbours import sharded_knn as sharded_knn
    from lit_ssl.metrics.sharded_neighbours import sharded_soft_nn as sharded_soft_nn
    from lit_ssl.metrics.soft_nn import soft_nearest_neighbor as soft_nearest_neighbor
    from lit_ssl.metrics.softmax_regression import fit_softmax_regression as fit_softmax_regression
    from lit_ssl.metrics.video.card import score_card as score_card
    from lit_ssl.metrics.video.card import write_card as write_card
    from lit_ssl.metrics.video.distances import FrechetVideoDistance as FrechetVideoDistance
    from lit_ssl.metrics.video.distances import KernelVideoDistance as KernelVideoDistance
    from lit_ssl.metrics.video.features import load_extractor as load_extractor
    from lit_ssl.metrics.video.frechet import frechet_distance as frechet_distance
    from lit_ssl.metrics.video.frechet import (
        frechet_distance_from_features as frechet_distance_from_features,
    )
    from lit_ssl.metrics.video.inception import InceptionScore as InceptionScore
    from lit_ssl.metrics.video.inception import inception_score as inception_score
    from lit_ssl.metrics.video.inception_metric import VideoInceptionScore as VideoInceptionScore
    from lit_ssl.metrics.video.intervals import DistanceInterval as DistanceInterval
    from lit_ssl.metrics.video.intervals import bootstrap_interval as bootstrap_interval
    from lit_ssl.metrics.video.intervals import self_distance as self_distance
    from lit_ssl.metrics.video.kernel import polynomial_mmd as polynomial_mmd
    from lit_ssl.metrics.video.motion import motion_per_video as motion_per_video
    from lit_ssl.metrics.video.motion import motion_statistic as motion_statistic
    from lit_ssl.metrics.video.preparation import to_uint8 as to_uint8
    from lit_ssl.metrics.video.random_features import RandomFeatureDistance as RandomFeatureDistance
    from lit_ssl.metrics.vl.nlvr2 import NLVR2Accuracy as NLVR2Accuracy
    from lit_ssl.metrics.vl.nlvr2 import NLVR2Scores as NLVR2Scores
    from lit_ssl.metrics.vl.retrieval import RetrievalRecall as RetrievalRecall
    from lit_ssl.metrics.vl.vqa import VQAScore as VQAScore
    from lit_ssl.models.probes import ProbeHead as ProbeHead
    from lit_ssl.models.probes import ProbeHeads as ProbeHeads
    from lit_ssl.models.probes import probe_losses as probe_losses

__all__, __getattr__, __dir__ = lazy_names(__name__)
