"""Networks and parts of networks that timm does not have."""

from lit_ssl.models.backbones import OWN_BACKBONES, create_backbone
from lit_ssl.models.classifiers import Classifier, load_classifier
from lit_ssl.models.conv_stem import ConvStem
from lit_ssl.models.ema import ema_update_, target_copy
from lit_ssl.models.heads import PredictionHead, ProjectionHead
from lit_ssl.models.multiplied_resnet import MultipliedResNet50, resnet50w2, resnet50w4
from lit_ssl.models.probe_features import ProbeFeatures
from lit_ssl.models.small_cnn import SmallCNN
from lit_ssl.models.text import TextBackbone
from lit_ssl.models.vit import ClassTokenViT, draw_kept_patches, keep_count
from lit_ssl.models.wide_resnet import WideResNet, wide_resnet28_2

__all__ = [
    "OWN_BACKBONES",
    "ClassTokenViT",
    "Classifier",
    "ConvStem",
    "MultipliedResNet50",
    "PredictionHead",
    "ProbeFeatures",
    "ProjectionHead",
    "SmallCNN",
    "TextBackbone",
    "WideResNet",
    "create_backbone",
    "draw_kept_patches",
    "ema_update_",
    "keep_count",
    "load_classifier",
    "resnet50w2",
    "resnet50w4",
    "target_copy",
    "wide_resnet28_2",
]
