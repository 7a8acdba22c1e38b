"""The loss of Masked Siamese Networks (arXiv 2204.07141, section 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.distributed import all_reduce_mean, gather_stack, world_size
from lit_ssl.errors import InputError
from lit_ssl.losses.row_queue import RowQueue

__all__ = ["MSNLoss", "MSNLossOutput", "log_sinkhorn"]


class MSNLossOutput(NamedTuple):
    """Parts of the loss.

    Attributes:
        loss: scalar to minimise.
        cross_entropy: mean cross-entropy between targets and anchor predictions.
        me_max: regulariser on the mean anchor prediction; 0 at its optimum.
        entropy: mean entropy of the anchor predictions (nats).
        target_probs: ``[B, K]``, without gradient.
    """

    loss: Tensor
    cross_entropy: Tensor
    me_max: Tensor
    entropy: Tensor
    target_probs: Tensor


@torch.no_grad()
def log_sinkhorn(
    log_probs: Tensor,
    iterations: int,
    log_marginal: Tensor | None = None,
    gather: bool = True,
) -> Tensor:
    """Sinkhorn normalisation of assignments in the log domain.

    Each iteration scales the prototypes to a common total over the samples of all processes, then
    each sample to sum to one. It is the reference's algorithm (scale factors that cancel are left
    out), safe for targets so sharp that their probabilities underflow.

    Args:
        log_probs: ``[B, K]`` log of row-stochastic assignments.
        iterations: number of iterations; 0 returns the input.
        log_marginal: ``[K]`` log of the wanted share of each prototype; None: uniform.
        gather: use the samples of all processes (one ``[K]`` collective per iteration).

    Returns:
        ``[B, K]`` log-assignments; each row sums to one, prototype totals are approximately equal.
    """
    for _ in range(iterations):
        log_totals = torch.logsumexp(log_probs, dim=0)
        if gather:
            log_totals = torch.logsumexp(gather_stack(log_totals), dim=0)
        log_probs = log_probs - log_totals
        if log_marginal is not None:
            log_probs = log_probs + log_marginal
        log_probs = F.log_softmax(log_probs, dim=1)
    return log_probs


class MSNLoss(nn.Module):
    """Cross-entropy between two views' assignments to prototypes, with mean-entropy maximisation.

    Anchors ``a [V·B, D]``, targets ``t [B, D]``, prototypes ``q [K, D]``, all of length one:

        p  = softmax(a @ q.T / temperature)                      # [V·B, K] predictions
        p⁺ = softmax(t @ q.T / temperature / sharpen)            # [B, K] without gradient
        p⁺ = sinkhorn(p⁺); p̄ = p.mean(0)                         # both over all processes
        ce = -(p⁺[i] * log p[v·B + i]).sum(1).mean()             # over views v and images i
        loss = ce + me_max_weight * KL(p̄ ‖ uniform) + entropy_weight * H(p).mean()

    The arithmetic is float32 (float64 for float64 inputs) whatever the autocast state.

    Args:
        temperature: τ > 0 of the anchor predictions.
        sinkhorn_iterations: Sinkhorn iterations on the targets; 0: none (then use a
            ``me_max_weight`` of about 5: with 1, prototypes collapse partially).
        me_max_weight: λ ≥ 0.
        entropy_weight: weight of the mean entropy of the predictions; 0 in the released recipe.
        gather: use all processes in p̄ and Sinkhorn; False keeps the loss free of communication.
        queue_size: Sinkhorn and p̄ see the assignments of so many images of the latest training
            steps too (of all processes together), as if the batch were larger by these; 0: none.
            They have no gradient; that of the batch's own mean prediction is taken at the p̄ of all.
        num_prototypes: K, which a queue needs to know.

    Raises:
        ValueError: for a value outside its range, or a queue without ``gather``.

    Source: arXiv 2204.07141, eq. 1–2 and section 3; facebookresearch/msn for Sinkhorn.

    Examples:
        >>> loss = MSNLoss()
        >>> out = loss(torch.randn(6, 8), torch.randn(3, 8), torch.randn(16, 8))
        >>> out.loss.shape, out.target_probs.shape
        (torch.Size([]), torch.Size([3, 16]))
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        me_max_weight: float = 1.0,
        entropy_weight: float = 0.0,
        gather: bool = True,
        queue_size: int = 0,
        num_prototypes: int | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        if sinkhorn_iterations < 0:
            raise InputError(f"sinkhorn_iterations must not be negative, not {sinkhorn_iterations}")
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.me_max_weight = me_max_weight
        self.entropy_weight = entropy_weight
        self.gather = gather
        self.recent_targets: RowQueue | None = None
        self.recent_probs: RowQueue | None = None
        if queue_size:
            self._make_queues(queue_size, num_prototypes)

    def _make_queues(self, size: int, width: int | None) -> None:
        if size < 0 or width is None or not self.gather:
            raise InputError(
                "queue_size must not be negative, and a queue needs num_prototypes and gather=True "
                f"(all processes share it), not {size}, {width} and {self.gather}"
            )
        self.recent_probs = RowQueue(size, width)
        if self.sinkhorn_iterations:
            self.recent_targets = RowQueue(size, width)

    def forward(
        self,
        anchors: Tensor,
        targets: Tensor,
        prototypes: Tensor,
        sharpen_temperature: float = 0.25,
    ) -> MSNLossOutput:
        """Compute the loss.

        Args:
            anchors: projections of the V anchor views, ``[V * B, D]``, view-major (row ``v * B +
                b``).
            targets: projections of the target views, ``[B, D]``; no gradient flows into them.
            prototypes: ``[K, D]``. None of the three needs to be normalised.
            sharpen_temperature: T in (0, 1]: the targets are raised to the power 1/T.

        Raises:
            ValueError: if the number of anchors is no multiple of the number of targets.
        """
        batch = targets.shape[0]
        if anchors.shape[0] % batch or anchors.shape[0] == 0:
            raise InputError(
                f"{anchors.shape[0]} anchors do not belong to {batch} targets: there must be the "
                "same number of anchor views for each target, in view-major order"
            )
        with torch.autocast(device_type=anchors.device.type, enabled=False):
            prototypes = F.normalize(_full_precision(prototypes), dim=1)
            log_target = self.log_targets(targets, prototypes.detach(), sharpen_temperature)
            target_probs = log_target.exp()
            logits = F.normalize(_full_precision(anchors), dim=1) @ prototypes.T / self.temperature
            log_probs = F.log_softmax(logits, dim=1)
            probs = log_probs.exp()

            by_view = log_probs.view(-1, batch, log_probs.shape[1])
            cross_entropy = -(target_probs * by_view.mean(dim=0)).sum(dim=1).mean()
            me_max = self.regularizer(self.mean_prediction(probs, batch))
            entropy = -(probs * log_probs).sum(dim=1).mean()
            loss = cross_entropy + self.me_max_weight * me_max
            if self.entropy_weight:
                loss = loss + self.entropy_weight * entropy
        return MSNLossOutput(
            loss=loss,
            cross_entropy=cross_entropy,
            me_max=me_max,
            entropy=entropy,
            target_probs=target_probs,
        )

    @torch.no_grad()
    def log_targets(
        self, targets: Tensor, prototypes: Tensor, sharpen_temperature: float
    ) -> Tensor:
        """Sharpened (and balanced) log-assignments ``[B, K]`` of the target views.

        Args:
            targets: ``[B, D]``.
            prototypes: ``[K, D]``, normalised.
            sharpen_temperature: T; sharpening a softmax is the same as dividing its logits by T,
                which cannot underflow.
        """
        logits = F.normalize(_full_precision(targets), dim=1) @ prototypes.T
        log_probs = F.log_softmax(logits / (self.temperature * sharpen_temperature), dim=1)
        queue = self.recent_targets
        if queue is None:
            return self.balance(log_probs)
        balanced = self.balance(torch.cat([log_probs, queue.own()]))[: len(log_probs)]
        if self.training:
            queue.push(log_probs)
        return balanced

    def mean_prediction(self, probs: Tensor, batch: int) -> Tensor:
        """Mean p̄ ``[K]`` of the anchors' predictions ``[V * B, K]``, view-major, and the queue's.

        Its gradient is that of the anchors' mean alone, undiminished by the queue: averaged over
        the parts of a large batch it is the gradient of the whole.

        Args:
            probs: softmax predictions; in training, their means over the views join the queue.
            batch: B.
        """
        mean = all_reduce_mean(probs.mean(dim=0)) if self.gather else probs.mean(dim=0)
        queue = self.recent_probs
        if queue is None:
            return mean
        images = batch * world_size()
        total = images * mean.detach() + queue.total()
        pooled = total / (images + len(queue))
        if self.training:
            queue.push(probs.detach().view(-1, batch, probs.shape[1]).mean(dim=0))
        return mean + (pooled - mean.detach())

    def balance(self, log_probs: Tensor) -> Tensor:
        """Sinkhorn on the targets' log-assignments ``[B, K]``; may be overridden.

        Args:
            log_probs: of all images of this process.

        Returns:
            ``[B, K]``, log-assignments.
        """
        return log_sinkhorn(log_probs, self.sinkhorn_iterations, gather=self.gather)

    def regularizer(self, mean_probs: Tensor) -> Tensor:
        """``KL(p̄ ‖ uniform) = log K − H(p̄)`` of the mean prediction ``[K]``; may be overridden.

        Args:
            mean_probs: shares that add up to one.

        Returns:
            A scalar ≥ 0.
        """
        tiny = torch.finfo(mean_probs.dtype).tiny
        return math.log(len(mean_probs)) + (mean_probs * mean_probs.clamp_min(tiny).log()).sum()


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
