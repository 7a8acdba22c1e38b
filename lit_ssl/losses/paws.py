"""The loss of PAWS (arXiv 2104.13963): consistent soft assignments to labelled supports."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.distributed import all_gather_rows, all_reduce_mean
from lit_ssl.errors import InputError

__all__ = ["PAWSLoss", "PAWSLossOutput", "class_columns", "sharpen"]

# Far below any probability that counts, far above where float32 loses precision.
_TINY = 1e-30


class PAWSLossOutput(NamedTuple):
    """Parts of the loss.

    Attributes:
        loss: scalar to minimise.
        consistency: mean cross-entropy between targets and anchor predictions.
        me_max: regulariser ``−H(p̄)`` on the mean sharpened anchor prediction.
        probs: anchor predictions ``[V, B, K]``, without gradient.
        targets: ``[V, B, K]``, without gradient.
    """

    loss: Tensor
    consistency: Tensor
    me_max: Tensor
    probs: Tensor
    targets: Tensor


def sharpen(log_probs: Tensor, temperature: float) -> Tensor:
    """``p^(1/T) / Σ p^(1/T)`` over the last dimension, from log-probabilities: cannot underflow.

    Args:
        log_probs: log of probabilities, any shape.
        temperature: T > 0; below 1 sharpens.

    Returns:
        Probabilities, of the shape of ``log_probs``.
    """
    return F.softmax(log_probs / temperature, dim=-1)


def class_columns(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """One-hot rows of class labels.

    Args:
        labels: int64 ``[M]``.
        num_classes: labels lie in ``[0, num_classes)``, and each class has a column, also if it
            does not occur. None: one column for each label that occurs, which on a GPU makes the
            host wait.

    Returns:
        float32 ``[M, K]``.

    Raises:
        ValueError: if a label is negative or lies outside of the range (with ``num_classes`` not
            noticed on accelerators, where looking would make the host wait).
    """
    if num_classes is None:
        names = labels.unique()
        if len(names) and int(names[0]) < 0:
            raise InputError(
                f"a support has the label {int(names[0])}: every support needs a label, from 0 on"
            )
        return (labels[:, None] == names).float()
    columns = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    if labels.device.type == "cpu" and len(labels) and not bool(columns.any(dim=1).all()):
        raise InputError(
            f"support labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to "
            f"{num_classes - 1}: every support needs a label, and num_classes must cover them all"
        )
    return columns


class PAWSLoss(nn.Module):
    """Two views of an image must get the same soft label from the labelled supports.

    Views ``z [V, B, D]``, the two large ones first, supports ``s [M, D]`` of all processes, all of
    length one, and smoothed labels ``y [M, K]``:

        p = softmax(z @ s.T / temperature) @ y                   # [V, B, K]
        sharp = p ** (1 / sharpen), rows divided by their sum
        target = [sharp[1], sharp[0], mean of both, ...]         # [V, B, K] without gradient
        ce = -(target * log p).sum(2).mean(); p̄ = sharp.mean((0, 1))    # p̄ over all processes
        loss = ce + me_max_weight * -H(p̄)

    The gradient reaches the anchors and their supports, on whatever process these are. The
    arithmetic is float32 (float64 for float64 inputs) whatever the autocast state.

    Args:
        temperature: τ > 0 of the predictions.
        sharpen_temperature: T > 0 of the targets; 1 switches sharpening off (and collapses).
        label_smoothing: ε in [0, 1), spread over the classes of the batch.
        me_max_weight: weight ≥ 0 of mean-entropy maximisation; 0 for imbalanced unlabelled images.
        target_threshold: entries of a target below it become 0, and the rest is not renormalised.
        gather: use the supports of all processes, and all their anchors in p̄; False keeps the loss
            free of communication. All processes must have equally many supports.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 2104.13963, section 3; the threshold and the label smoothing are those of the
    released code.

    Examples:
        >>> anchors, supports = torch.randn(8, 4, 16), torch.randn(6, 16)
        >>> out = PAWSLoss()(anchors, supports, torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> out.targets.shape
        torch.Size([8, 4, 3])
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sharpen_temperature: float = 0.25,
        label_smoothing: float = 0.1,
        me_max_weight: float = 1.0,
        target_threshold: float = 1e-4,
        gather: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {
            "temperature": temperature,
            "sharpen_temperature": sharpen_temperature,
        }.items():
            if value <= 0:
                raise InputError(f"{name} must be positive, not {value}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must lie in [0, 1), not {label_smoothing}")
        if me_max_weight < 0 or target_threshold < 0:
            raise InputError(
                "me_max_weight and target_threshold must not be negative, got "
                f"{me_max_weight} and {target_threshold}"
            )
        self.temperature = temperature
        self.sharpen_temperature = sharpen_temperature
        self.label_smoothing = label_smoothing
        self.me_max_weight = me_max_weight
        self.target_threshold = target_threshold
        self.gather = gather

    def forward(
        self,
        anchors: Tensor,
        anchor_supports: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        target_supports: Tensor | None = None,
        num_classes: int | None = None,
    ) -> PAWSLossOutput:
        """Compute the loss.

        Args:
            anchors: ``[V, B, D]``, the two large views first.
            anchor_supports: ``[M, D]``, of the same branch.
            labels: classes of the supports, int64 ``[M]``.
            targets: the two large views in the target branch, ``[2, B, D]``, same order; None: the
                anchors' own (no prediction head), which saves a similarity matrix.
            target_supports: ``[M, D]`` of the target branch; goes with ``targets``.
            num_classes: see [`class_columns`][lit_ssl.losses.class_columns].

        Raises:
            ValueError: if shapes do not fit together.
        """
        _check(anchors, anchor_supports, labels, targets, target_supports)
        with torch.autocast(device_type=anchors.device.type, enabled=False):
            anchors, supports = _normalized(anchors), self._all(_normalized(anchor_supports))
            columns = class_columns(self._all(labels), num_classes).to(anchors.dtype)
            log_probs = self.log_probs(anchors, supports, columns)
            with torch.no_grad():
                if targets is None or target_supports is None:
                    log_large = log_probs[:2].detach()
                    queries, target_supports = anchors[:2].detach(), supports.detach()
                else:
                    queries = _normalized(targets)
                    target_supports = self._all(_normalized(target_supports.detach()))
                    log_large = None
                log_large, weights = self.pseudo_labels(
                    log_large, queries, target_supports, columns
                )
                wanted = self.make_targets(log_large, len(anchors))

            cross_entropy = -(wanted * log_probs).sum(dim=2)  # [V, B]
            if weights is not None:
                cross_entropy = cross_entropy * weights
            consistency = cross_entropy.mean()
            mean_probs = sharpen(log_probs, self.sharpen_temperature).mean(dim=(0, 1))
            me_max = self.regularizer(all_reduce_mean(mean_probs) if self.gather else mean_probs)
            loss = consistency + self.me_max_weight * me_max if self.me_max_weight else consistency
        return PAWSLossOutput(
            loss=loss,
            consistency=consistency,
            me_max=me_max,
            probs=log_probs.detach().exp(),
            targets=wanted,
        )

    def log_probs(self, queries: Tensor, supports: Tensor, columns: Tensor) -> Tensor:
        """Log of the soft nearest-neighbour predictions ``[..., K]``.

        Args:
            queries: ``[..., D]``, normalised.
            supports: ``[M, D]``, normalised.
            columns: ``[M, K]``, [`class_columns`][lit_ssl.losses.class_columns].
        """
        probs = F.softmax(queries @ supports.T / self.temperature, dim=-1) @ columns
        if self.label_smoothing:
            # Rows sum to one, so smoothing the prediction is smoothing the labels. A class that
            # does not occur in the batch gets nothing.
            present = columns.amax(dim=0)
            floor = self.label_smoothing / present.sum() * present
            probs = (1 - self.label_smoothing) * probs + floor
        return probs.clamp_min(_TINY).log()

    def pseudo_labels(
        self, log_probs: Tensor | None, queries: Tensor, supports: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Log-predictions ``[2, B, K]`` for the large views, and weights ``[B]`` of the images.

        Args:
            log_probs: ``[2, B, K]`` where they are known from the anchors, else None.
            queries: ``[2, B, D]``, normalised, of this process.
            supports: ``[M, D]``, normalised, of all processes.
            columns: ``[M, K]``, [`class_columns`][lit_ssl.losses.class_columns].
        """
        if log_probs is None:
            log_probs = self.log_probs(queries, supports, columns)
        return log_probs, None

    def make_targets(self, log_large: Tensor, views: int) -> Tensor:
        """Targets ``[V, B, K]`` of all views from log-predictions ``[2, B, K]`` for the large.

        Args:
            log_large: log-predictions of the two large views.
            views: V ≥ 2, the large ones included.
        """
        swapped = sharpen(log_large, self.sharpen_temperature).flip(0)
        small = swapped.mean(dim=0, keepdim=True).expand(views - 2, -1, -1)
        targets = torch.cat([swapped, small])
        return targets.masked_fill(targets < self.target_threshold, 0.0)

    def regularizer(self, mean_probs: Tensor) -> Tensor:
        """``Σ p̄ log p̄ = −H(p̄)`` of the mean prediction ``[K]``; may be overridden.

        Args:
            mean_probs: shares that add up to one.

        Returns:
            A scalar in [−log K, 0].
        """
        return (mean_probs * mean_probs.clamp_min(_TINY).log()).sum()

    def _all(self, rows: Tensor) -> Tensor:
        return all_gather_rows(rows) if self.gather else rows


def _normalized(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _check(
    anchors: Tensor,
    supports: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    target_supports: Tensor | None,
) -> None:
    if anchors.ndim != 3 or len(anchors) < 2 or supports.shape[1:] != anchors.shape[2:]:
        raise InputError(
            "PAWSLoss needs anchors [V, B, D] with V >= 2 views and supports [M, D] of the same "
            f"width, got {list(anchors.shape)} and {list(supports.shape)}"
        )
    if labels.shape != supports.shape[:1] or len(labels) == 0:
        raise InputError(
            f"PAWSLoss needs one label per support, got {len(supports)} supports and labels of "
            f"shape {list(labels.shape)}"
        )
    if (targets is None) != (target_supports is None):
        raise InputError("PAWSLoss needs targets and target_supports together, or neither")
    if targets is not None and target_supports is not None:
        width = targets.shape[-1]
        if targets.shape[:2] != (2, anchors.shape[1]) or target_supports.shape != (
            len(supports),
            width,
        ):
            raise InputError(
                f"PAWSLoss needs targets [2, {anchors.shape[1]}, D] and target_supports "
                f"[{len(supports)}, D], got {list(targets.shape)} and "
                f"{list(target_supports.shape)}"
            )
