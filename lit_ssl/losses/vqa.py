"""Answers to questions about images: several answers may be right, each by its share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["vqa_loss"]


def vqa_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, mean over questions and summed over answers.

    In float32 (float64 for float64 logits), since 3129 small terms are added.

    Args:
        logits: ``[B, A]``.
        targets: soft scores in [0, 1], ``[B, A]``; a question without a known answer has a row
            of 0.

    Returns:
        A scalar.

    Raises:
        ValueError: if the shapes differ.

    Source: dandelin/ViLT: the mean over all times the number of answers.
    """
    if logits.shape != targets.shape or logits.ndim != 2:
        raise InputError(
            f"VQA needs logits and targets [B, A], got {list(logits.shape)} and "
            f"{list(targets.shape)}"
        )
    with torch.autocast(device_type=logits.device.type, enabled=False):
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return F.binary_cross_entropy_with_logits(wide, targets.to(wide.dtype)) * logits.shape[1]
