"""One LightningModule per paper, a supervised classifier, and a frozen encoder to evaluate."""

from lit_ssl.methods.attribute_predictor import AttributePredictor
from lit_ssl.methods.barack import BARACK
from lit_ssl.methods.classifier import ImageClassifier
from lit_ssl.methods.finetuning import FineTuning
from lit_ssl.methods.frozen_encoder import FrozenEncoder
from lit_ssl.methods.group_classifier import GroupRobustClassifier
from lit_ssl.methods.jtt import JTT
from lit_ssl.methods.linear_evaluation import LinearEvaluation
from lit_ssl.methods.msn import MSN
from lit_ssl.methods.paws import PAWS
from lit_ssl.methods.pmsn import PMSN
from lit_ssl.methods.pretrained import PretrainedClassifier
from lit_ssl.methods.ropaws import RoPAWS
from lit_ssl.methods.suncet import SuNCEt

__all__ = [
    "BARACK",
    "JTT",
    "MSN",
    "PAWS",
    "PMSN",
    "AttributePredictor",
    "FineTuning",
    "FrozenEncoder",
    "GroupRobustClassifier",
    "ImageClassifier",
    "LinearEvaluation",
    "PretrainedClassifier",
    "RoPAWS",
    "SuNCEt",
]
