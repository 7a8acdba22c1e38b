"""Losses as plain torch modules and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.losses.group_dro import GroupDROLoss as GroupDROLoss
    from lit_ssl.losses.group_dro import GroupDROLossOutput as GroupDROLossOutput
    from lit_ssl.losses.group_dro import group_means as group_means
    from lit_ssl.losses.hinge import hinge_d_loss as hinge_d_loss
    from lit_ssl.losses.hinge import hinge_g_loss as hinge_g_loss
    from lit_ssl.losses.matching import Matching as Matching
    from lit_ssl.losses.matching import draw_in_batch as draw_in_batch
    from lit_ssl.losses.matching import draw_matching as draw_matching
    from lit_ssl.losses.matching import matching_loss as matching_loss
    from lit_ssl.losses.mlm import MaskedLMLoss as MaskedLMLoss
    from lit_ssl.losses.mlm import gather_masked as gather_masked
    from lit_ssl.losses.msn import MSNLoss as MSNLoss
    from lit_ssl.losses.msn import MSNLossOutput as MSNLossOutput
    from lit_ssl.losses.msn import log_sinkhorn as log_sinkhorn
    from lit_ssl.losses.nac import DistanceMixture as DistanceMixture
    from lit_ssl.losses.nac import LinkProbabilityMatching as LinkProbabilityMatching
    from lit_ssl.losses.nac import SignatureRepulsion as SignatureRepulsion
    from lit_ssl.losses.paws import PAWSLoss as PAWSLoss
    from lit_ssl.losses.paws import PAWSLossOutput as PAWSLossOutput
    from lit_ssl.losses.paws import class_columns as class_columns
    from lit_ssl.losses.paws import sharpen as sharpen
    from lit_ssl.losses.pmsn import PMSNLoss as PMSNLoss
    from lit_ssl.losses.priors import power_law_prior as power_law_prior
    from lit_ssl.losses.priors import uniform_prior as uniform_prior
    from lit_ssl.losses.ropaws import RoPAWSLoss as RoPAWSLoss
    from lit_ssl.losses.ropaws import ropaws_predictions as ropaws_predictions
    from lit_ssl.losses.suncet import NTXentLoss as NTXentLoss
    from lit_ssl.losses.suncet import SuNCEtLoss as SuNCEtLoss
    from lit_ssl.losses.vqa import vqa_loss as vqa_loss
    from lit_ssl.losses.word_patch import WordPatchAlignment as WordPatchAlignment
    from lit_ssl.losses.word_patch import WordPatchOutput as WordPatchOutput
    from lit_ssl.losses.word_patch import alignment_cost as alignment_cost
    from lit_ssl.losses.word_patch import alignment_masks as alignment_masks
    from lit_ssl.losses.word_patch import transport_plan as transport_plan

__all__, __getattr__, __dir__ = lazy_names(__name__)
