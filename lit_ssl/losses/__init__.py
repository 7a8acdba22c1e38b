"""Losses as plain torch modules and functions."""

from lit_ssl.losses.msn import MSNLoss, MSNLossOutput, log_sinkhorn
from lit_ssl.losses.pmsn import PMSNLoss
from lit_ssl.losses.priors import power_law_prior, uniform_prior

__all__ = [
    "MSNLoss",
    "MSNLossOutput",
    "PMSNLoss",
    "log_sinkhorn",
    "power_law_prior",
    "uniform_prior",
]
