"""lit_ssl: PyTorch Lightning modules for self-supervised, robust and distributed learning.

The public names below resolve on first use, so that ``import lit_ssl`` itself loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.losses.group_dro import GroupDROLoss as GroupDROLoss
    from lit_ssl.losses.msn import MSNLoss as MSNLoss
    from lit_ssl.losses.paws import PAWSLoss as PAWSLoss
    from lit_ssl.losses.pmsn import PMSNLoss as PMSNLoss
    from lit_ssl.methods.classification.finetuning import FineTuning as FineTuning
    from lit_ssl.methods.classification.frozen_encoder import FrozenEncoder as FrozenEncoder
    from lit_ssl.methods.classification.image_classifier import ImageClassifier as ImageClassifier
    from lit_ssl.methods.classification.linear_evaluation import (
        LinearEvaluation as LinearEvaluation,
    )
    from lit_ssl.methods.groups.attribute_predictor import AttributePredictor as AttributePredictor
    from lit_ssl.methods.groups.barack import BARACK as BARACK
    from lit_ssl.methods.groups.classifier import GroupRobustClassifier as GroupRobustClassifier
    from lit_ssl.methods.groups.jtt import JTT as JTT
    from lit_ssl.methods.msn import MSN as MSN
    from lit_ssl.methods.nac.few_shot import NACFewShot as NACFewShot
    from lit_ssl.methods.nac.nac import NAC as NAC
    from lit_ssl.methods.paws import PAWS as PAWS
    from lit_ssl.methods.pmsn import PMSN as PMSN
    from lit_ssl.methods.ropaws import RoPAWS as RoPAWS
    from lit_ssl.methods.suncet import SuNCEt as SuNCEt
    from lit_ssl.methods.video.cascade import CascadedVideoGAN as CascadedVideoGAN
    from lit_ssl.methods.video.supervised import SupervisedVideo as SupervisedVideo
    from lit_ssl.methods.vl.entailment import (
        VisualEntailmentClassifier as VisualEntailmentClassifier,
    )
    from lit_ssl.methods.vl.nlvr2 import NLVR2Classifier as NLVR2Classifier
    from lit_ssl.methods.vl.pretraining import VLPretraining as VLPretraining
    from lit_ssl.methods.vl.retrieval import ImageTextRetrieval as ImageTextRetrieval
    from lit_ssl.methods.vl.vqa import VQAClassifier as VQAClassifier
    from lit_ssl.strategies.diloco import DiLoCoStrategy as DiLoCoStrategy
    from lit_ssl.strategies.local_sgd import LocalSGDStrategy as LocalSGDStrategy
    from lit_ssl.strategies.slow_momentum import SlowMomentumStrategy as SlowMomentumStrategy
    from lit_ssl.version import __version__ as __version__

__all__, __getattr__, __dir__ = lazy_names(__name__)
