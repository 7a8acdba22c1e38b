"""Supervised noise-contrastive estimation (SuNCEt, arXiv 2006.10803) and NT-Xent beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.distributed import all_gather_rows, gather_stack, process_rank
from lit_ssl.errors import InputError
from lit_ssl.losses.paws import class_columns

__all__ = ["NTXentLoss", "SuNCEtLoss"]


class SuNCEtLoss(nn.Module):
    """Pulls labelled images of one class together, against all others of the batch.

    Images ``z [M, D]`` of length one and smoothed labels ``y [M, K]``, of all processes::

        p = softmax(z @ z.T / temperature, without i = j) @ y    # [M, K]
        loss = -(y * log p).sum(1).mean()

    Without smoothing, minus the log of the share of the own class. The arithmetic is float32
    (float64 for float64 inputs) whatever the autocast state.

    Args:
        temperature: τ > 0.
        label_smoothing: ε in [0, 1), spread over the classes of the batch.
        gather: compare with the images of all processes, with gradient; False keeps the loss free
            of communication. All processes must have equally many images.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 2006.10803, eq. 2; label smoothing as in the released code.
    """

    def __init__(
        self, temperature: float = 0.1, label_smoothing: float = 0.0, gather: bool = True
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must lie in [0, 1), not {label_smoothing}")
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor, num_classes: int | None = None) -> Tensor:
        """Compute the loss.

        Args:
            embeddings: ``[M, D]``; each class at least twice among all processes.
            labels: int64 ``[M]``.
            num_classes: see :func:`lit_ssl.losses.class_columns`.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            z = _normalized(embeddings)
            everyone = all_gather_rows(z) if self.gather else z
            names = all_gather_rows(labels) if self.gather else labels
            columns = class_columns(names, num_classes).to(z.dtype)
            present = columns.amax(dim=0)
            smooth = (1 - self.label_smoothing) * columns
            smooth = smooth + self.label_smoothing / present.sum() * present
            first = process_rank() * len(z) if self.gather else 0
            log_weights = F.log_softmax(
                _without_self(z @ everyone.T / self.temperature, first), dim=1
            )
            probs = log_weights.exp() @ smooth
            own = smooth[first : first + len(z)]
            return -(own * probs.clamp_min(1e-30).log()).sum(dim=1).mean()


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross-entropy between two views (SimCLR).

    Both views of the images, ``z [2B, D]`` of length one, view-major::

        log_p = log_softmax(z @ z.T / temperature, without i = j)    # [2B, 2B]
        loss = -log_p[i, (i + B) % 2B].mean()

    Args:
        temperature: τ > 0.
        detach_others: no gradient into the views that a view is compared with, as in SuNCEt's
            released code; False is SimCLR's loss.
        gather: compare with the images of all processes.

    Raises:
        ValueError: if ``temperature`` is not positive.

    Source: arXiv 2002.05709, eq. 1.
    """

    def __init__(
        self, temperature: float = 0.1, detach_others: bool = False, gather: bool = True
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature
        self.detach_others = detach_others
        self.gather = gather

    def forward(self, views: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            views: ``[2, B, D]``.

        Raises:
            ValueError: if there are not two views.
        """
        if views.ndim != 3 or len(views) != 2:
            raise InputError(f"NTXentLoss needs two views [2, B, D], got {list(views.shape)}")
        with torch.autocast(device_type=views.device.type, enabled=False):
            z = _normalized(views).flatten(0, 1)  # [2B, D], view-major
            others = z.detach() if self.detach_others else z
            first = 0
            if self.gather:
                others = (
                    gather_stack(others).flatten(0, 1)
                    if self.detach_others
                    else (all_gather_rows(others))
                )
                first = process_rank() * len(z)
            logits = _without_self(z @ others.T / self.temperature, first)
            partner = torch.arange(len(z), device=z.device).roll(len(z) // 2) + first
            return F.cross_entropy(logits, partner)


def _normalized(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _without_self(logits: Tensor, first: int) -> Tensor:
    """−∞ where row i meets column ``first + i``, which is itself."""
    rows = torch.arange(len(logits), device=logits.device)
    itself = rows[:, None] + first == torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill(itself, -torch.inf)
