"""Networks and parts of networks that timm does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.models.attention_maps import ClassAttention as ClassAttention
    from lit_ssl.models.attention_maps import class_attention as class_attention
    from lit_ssl.models.attention_maps import find_vit as find_vit
    from lit_ssl.models.backbones.by_name import OWN_BACKBONES as OWN_BACKBONES
    from lit_ssl.models.backbones.by_name import create_backbone as create_backbone
    from lit_ssl.models.backbones.conv_stem import ConvStem as ConvStem
    from lit_ssl.models.backbones.multiplied_resnet import MultipliedResNet50 as MultipliedResNet50
    from lit_ssl.models.backbones.multiplied_resnet import resnet50w2 as resnet50w2
    from lit_ssl.models.backbones.multiplied_resnet import resnet50w4 as resnet50w4
    from lit_ssl.models.backbones.small_cnn import SmallCNN as SmallCNN
    from lit_ssl.models.backbones.text import TextBackbone as TextBackbone
    from lit_ssl.models.backbones.vit import ClassTokenViT as ClassTokenViT
    from lit_ssl.models.backbones.vit import draw_kept_patches as draw_kept_patches
    from lit_ssl.models.backbones.vit import keep_count as keep_count
    from lit_ssl.models.backbones.wide_resnet import WideResNet as WideResNet
    from lit_ssl.models.backbones.wide_resnet import wide_resnet28_2 as wide_resnet28_2
    from lit_ssl.models.classifiers import Classifier as Classifier
    from lit_ssl.models.classifiers import load_classifier as load_classifier
    from lit_ssl.models.ema import ema_state_update_ as ema_state_update_
    from lit_ssl.models.ema import ema_update_ as ema_update_
    from lit_ssl.models.ema import target_copy as target_copy
    from lit_ssl.models.exported import load_exported as load_exported
    from lit_ssl.models.heads import PredictionHead as PredictionHead
    from lit_ssl.models.heads import ProjectionHead as ProjectionHead
    from lit_ssl.models.nac.circuit import CircuitOutput as CircuitOutput
    from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit as NeuralAttentiveCircuit
    from lit_ssl.models.nac.generator import TextCircuitGenerator as TextCircuitGenerator
    from lit_ssl.models.nac.graph_priors import GraphPrior as GraphPrior
    from lit_ssl.models.nac.graph_priors import link_targets as link_targets
    from lit_ssl.models.nac.kernel import KernelOptions as KernelOptions
    from lit_ssl.models.nac.kernel import SignatureKernel as SignatureKernel
    from lit_ssl.models.nac.modulated import ModulatedFFN as ModulatedFFN
    from lit_ssl.models.nac.modulated import ModulatedLinear as ModulatedLinear
    from lit_ssl.models.nac.perceiver_io import PerceiverIO as PerceiverIO
    from lit_ssl.models.nac.ranking import rank_modules as rank_modules
    from lit_ssl.models.nac.signature_fit import FitReport as FitReport
    from lit_ssl.models.nac.signature_fit import fit_signatures as fit_signatures
    from lit_ssl.models.nac.tokenizers.image_pair_text import (
        ImagePairTextTokenizer as ImagePairTextTokenizer,
    )
    from lit_ssl.models.nac.tokenizers.images import ConvNeXtTokenizer as ConvNeXtTokenizer
    from lit_ssl.models.nac.tokenizers.images import PatchTokenizer as PatchTokenizer
    from lit_ssl.models.nac.tokenizers.pair_encoders import FrozenCLIP as FrozenCLIP
    from lit_ssl.models.nac.tokenizers.pair_encoders import SmallPairEncoder as SmallPairEncoder
    from lit_ssl.models.nac.tokenizers.points import PointTokenizer as PointTokenizer
    from lit_ssl.models.nac.tokenizers.sequences import ByteTokenizer as ByteTokenizer
    from lit_ssl.models.nac.tokenizers.sequences import SymbolTokenizer as SymbolTokenizer
    from lit_ssl.models.nac.tokenizers.tokens import Tokens as Tokens
    from lit_ssl.models.probe_features import ProbeFeatures as ProbeFeatures
    from lit_ssl.models.video.batch_norm import ConditionalBatchNorm2d as ConditionalBatchNorm2d
    from lit_ssl.models.video.blocks import DiscriminatorBlock as DiscriminatorBlock
    from lit_ssl.models.video.blocks import GeneratorBlock as GeneratorBlock
    from lit_ssl.models.video.cascade import GeneratorCascade as GeneratorCascade
    from lit_ssl.models.video.conv_gru import ConvGRUCell as ConvGRUCell
    from lit_ssl.models.video.discriminators import ClipDiscriminator as ClipDiscriminator
    from lit_ssl.models.video.discriminators import FrameDiscriminator as FrameDiscriminator
    from lit_ssl.models.video.discriminators import MatchingDiscriminator as MatchingDiscriminator
    from lit_ssl.models.video.dvd_generator import DVDGenerator as DVDGenerator
    from lit_ssl.models.video.level import LevelSpec as LevelSpec
    from lit_ssl.models.video.orthogonal import orthogonal_penalty_ as orthogonal_penalty_
    from lit_ssl.models.video.self_attention import SelfAttention2d as SelfAttention2d
    from lit_ssl.models.video.spectral_norm import SpectralNorm as SpectralNorm
    from lit_ssl.models.video.spectral_norm import spectral_norm as spectral_norm
    from lit_ssl.models.video.standing_statistics import standing_statistics as standing_statistics
    from lit_ssl.models.video.upsampling_generator import UpsamplingGenerator as UpsamplingGenerator
    from lit_ssl.models.vl.co_attention import CoAttentionBackbone as CoAttentionBackbone
    from lit_ssl.models.vl.heads import MatchingHead as MatchingHead
    from lit_ssl.models.vl.heads import MLMHead as MLMHead
    from lit_ssl.models.vl.heads import RetrievalHead as RetrievalHead
    from lit_ssl.models.vl.heads import VLClassifierHead as VLClassifierHead
    from lit_ssl.models.vl.output import VLOutput as VLOutput
    from lit_ssl.models.vl.vilt import ViltBackbone as ViltBackbone

__all__, __getattr__, __dir__ = lazy_names(__name__)
