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

    Images ``z [M, D]`` of length one and smoothed labels ``y [M, K]``, of all processes:

        p = softmax(z @ z.T / temperature, without i = j) @ y    # [M, K]
        loss = -(y * log p).sum(1).mean()

    Without smoothing, minus the log of the share of the own class. An image that is alone in its
    class has nothing to be pulled to, and does not count. The arithmetic is float32 (float64 for
    float64 inputs) whatever the autocast state.

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

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        num_classes: int | None = None,
        look: bool = False,
    ) -> Tensor:
        """Compute the loss.

        Args:
            embeddings: ``[M, D]``; some class at least twice among all processes.
            labels: int64 ``[M]``.
            num_classes: see [`class_columns`][lit_ssl.losses.class_columns].
            look: on an accelerator too, make sure that there is such a class; the host waits.

        Returns:
            A scalar.

        Raises:
            ValueError: if all images are alone in their classes (on accelerators the loss is then
                0, unless ``look``).
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
            mine = slice(first, first + len(z))
            has_partner = columns @ columns.sum(dim=0) > 1
            if look or labels.device.type == "cpu":
                _check_partners(has_partner)
            terms = -(smooth[mine] * probs.clamp_min(1e-30).log()).sum(dim=1)
            # by the mean number over processes, so that the mean of their losses is that of all
            count = has_partner.sum() / (len(everyone) / len(z))
            return torch.where(has_partner[mine], terms, 0.0).sum() / count.clamp(min=1e-30)


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross-entropy between two views (SimCLR).

    Both views of the images, ``z [2B, D]`` of length one, view-major:

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

        Returns:
            A scalar.

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


def _check_partners(has_partner: Tensor) -> None:
    if not bool(has_partner.any()):
        raise InputError(
            f"SuNCEt pulls images of one class together, and all {len(has_partner)} labelled ones "
            "of this batch are alone in their class: serve at least two of each (images_per_class "
            "or support_views of SemiSupervisedDataModule)"
        )


def _normalized(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _without_self(logits: Tensor, first: int) -> Tensor:
    """−∞ where row i meets column ``first + i``, which is itself."""
    rows = torch.arange(len(logits), device=logits.device)
    itself = rows[:, None] + first == torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill(itself, -torch.inf)
