"""Masked language modelling: cross-entropy over the masked positions, exact over processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.distributed import gather_stack, world_size
from lit_ssl.errors import InputError

__all__ = ["IGNORED", "CountOnHost", "MaskedLMLoss", "gather_masked"]

IGNORED = -100  # label of what is not predicted, as everywhere in torch


class CountOnHost:
    """How many positions are masked, asked for early, so that the host need not wait for it late.

    On CUDA the number travels to the host while the device goes on; whoever takes ``int`` of it
    waits for what was queued before it was asked for, and for nothing after. Elsewhere it is read
    when it is taken.

    Args:
        labels: int64, −100 where nothing is predicted.
    """

    def __init__(self, labels: Tensor) -> None:
        count = (labels != IGNORED).sum()
        self._arrival: torch.cuda.Event | None = None
        if count.is_cuda:
            self._count = torch.empty_like(count, device="cpu", pin_memory=True)
            self._count.copy_(count, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()
        else:
            self._count = count

    def __int__(self) -> int:
        if self._arrival is not None:
            self._arrival.synchronize()
        return int(self._count)


def gather_masked(
    states: Tensor, labels: Tensor, count: CountOnHost | None = None
) -> tuple[Tensor, Tensor]:
    """Take the states of masked positions, so that only these meet the vocabulary.

    Args:
        states: ``[B, L, D]``.
        labels: int64 ``[B, L]``, −100 where nothing is predicted.
        count: of these labels, asked for before the states were queued; None: the host waits.

    Returns:
        States ``[n, D]`` and labels int64 ``[n]``, row after row.

    Raises:
        ValueError: if the shapes do not go together.
    """
    if states.shape[:-1] != labels.shape:
        raise InputError(
            f"labels must be {list(states.shape[:-1])} for states {list(states.shape)}, got "
            f"{list(labels.shape)}"
        )
    # places by a sort: a boolean index would make the host wait for its size, and again backwards
    order = (labels == IGNORED).flatten().byte().argsort(stable=True)
    places = order[: int(count or CountOnHost(labels))]
    return states.flatten(0, -2).index_select(0, places), labels.flatten()[places]


class MaskedLMLoss(nn.Module):
    """Mean cross-entropy of masked tokens.

    Logits ``[n, V]`` and ids ``[n]`` of all masked positions of the batch:

        loss = -log_softmax(logits)[range(n), ids].sum() / n    # 0 * logits.sum() for n = 0

    float32 (float64 for float64 logits) whatever the autocast state.

    Args:
        global_mean: divide by the masked tokens of all processes, so that the mean of their losses,
            and with it the averaged gradient of data-parallel training, is that of the joined
            batch. False takes the mean on each process, as ViLT and METER do; it is biased where
            their counts differ.

    Source: dandelin/ViLT (objectives of arXiv 2102.03334); ``global_mean`` and the case of no
    masked token are ours.
    """

    def __init__(self, global_mean: bool = True) -> None:
        super().__init__()
        self.global_mean = global_mean

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: ``[…, V]``, of masked positions or of all.
            labels: int64 ``[…]``; −100 does not count.

        Returns:
            A scalar.

        Raises:
            ValueError: if the shapes do not go together.
        """
        if logits.shape[:-1] != labels.shape:
            raise InputError(
                f"labels must be {list(logits.shape[:-1])} for logits {list(logits.shape)}, got "
                f"{list(labels.shape)}"
            )
        with torch.autocast(device_type=logits.device.type, enabled=False):
            wide = logits if logits.dtype == torch.float64 else logits.float()
            wide, labels = wide.flatten(0, -2), labels.flatten()
            count = (labels != IGNORED).sum()
            if self.global_mean:  # counts travel without a graph
                count = gather_stack(count).sum() / world_size()
            total = F.cross_entropy(wide, labels, ignore_index=IGNORED, reduction="sum")
            # without masked tokens the sum is 0 over an empty set: the head stays in the graph
            total = total if len(labels) else 0 * wide.sum()
            return total / torch.where(count > 0, count, 1)
