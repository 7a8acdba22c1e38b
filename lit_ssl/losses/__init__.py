"""Losses as plain torch modules and functions."""

from lit_ssl.losses.msn import MSNLoss, MSNLossOutput, log_sinkhorn

__all__ = ["MSNLoss", "MSNLossOutput", "log_sinkhorn"]
