"""One LightningModule per paper, a supervised classifier, and a frozen encoder to evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.methods.classification.finetuning import FineTuning as FineTuning
    from lit_ssl.methods.classification.frozen_encoder import FrozenEncoder as FrozenEncoder
    from lit_ssl.methods.classification.image_classifier import ImageClassifier as ImageClassifier
    from lit_ssl.methods.classification.linear_evaluation import (
        LinearEvaluation as LinearEvaluation,
    )
    from lit_ssl.methods.classification.pretrained_classifier import (
        PretrainedClassifier as PretrainedClassifier,
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
    from lit_ssl.methods.video.stored_cascade import load_generators as load_generators
    from lit_ssl.methods.video.supervised import SupervisedVideo as SupervisedVideo
    from lit_ssl.methods.vl.entailment import (
        VisualEntailmentClassifier as VisualEntailmentClassifier,
    )
    from lit_ssl.methods.vl.nlvr2 import NLVR2Classifier as NLVR2Classifier
    from lit_ssl.methods.vl.pretraining import VLPretraining as VLPretraining
    from lit_ssl.methods.vl.retrieval import ImageTextRetrieval as ImageTextRetrieval
    from lit_ssl.methods.vl.vqa import VQAClassifier as VQAClassifier

__all__, __getattr__, __dir__ = lazy_names(__name__)
