"""Losses as plain torch modules and functions."""

from lit_ssl.losses.group_dro import GroupDROLoss, GroupDROLossOutput, group_means
from lit_ssl.losses.msn import MSNLoss, MSNLossOutput, log_sinkhorn
from lit_ssl.losses.paws import PAWSLoss, PAWSLossOutput, class_columns, sharpen
from lit_ssl.losses.pmsn import PMSNLoss
from lit_ssl.losses.priors import power_law_prior, uniform_prior
from lit_ssl.losses.ropaws import RoPAWSLoss, ropaws_predictions
from lit_ssl.losses.suncet import NTXentLoss, SuNCEtLoss

__all__ = [
    "GroupDROLoss",
    "GroupDROLossOutput",
    "MSNLoss",
    "MSNLossOutput",
    "NTXentLoss",
    "PAWSLoss",
    "PAWSLossOutput",
    "PMSNLoss",
    "RoPAWSLoss",
    "SuNCEtLoss",
    "class_columns",
    "group_means",
    "log_sinkhorn",
    "power_law_prior",
    "ropaws_predictions",
    "sharpen",
    "uniform_prior",
]
