"""The problem of local_sgd_tradeoff.py, and training on it with simulated workers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.strategies.functional import slow_momentum_, weighted_mean_

WIDTHS = (196, 64, 64, 10)
STEPS, BATCH, LR, MOMENTUM = 240, 8, 0.1, 0.9
DROPS = (0.6, 0.85)  # of the run: the learning rate falls to a tenth


class Setting(NamedTuple):
    """How parameters are synchronised: every ``period`` steps (1: gradients, as in DDP)."""

    method: str
    period: int
    beta: float = 0.0  # slow momentum
    buffers: str = "maintain"  # the inner momentum after a synchronisation, or "reset"
    warmup: int = 0  # steps of DDP before local ones begin

    @property
    def averages(self) -> int:
        """All-reduces of the model's size in a run."""
        return self.warmup + (STEPS - self.warmup) // self.period


def settings(periods: Sequence[int]) -> list[Setting]:
    """DDP, and every other method with every period.

    Short rounds would starve an inner momentum that is reset, and blow up with a large slow
    momentum on top of one that is not.
    """
    made = [Setting("DDP", 1)]
    for period in periods:
        slow = (0.7, "reset") if period >= 8 else (0.3, "maintain")
        made += [
            Setting("local SGD", period),
            Setting("slow momentum", period, *slow),
            Setting("post-local SGD", period, warmup=round(DROPS[0] * STEPS)),
        ]
    return made


class Result(NamedTuple):
    """Of one seed: mean cross-entropy on all training digits, accuracy on the test digits in %."""

    loss: float
    accuracy: float


class Digits(NamedTuple):
    """MNIST-5k at 14 x 14 pixels: 4,000 digits to train on and 1,000 to test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls, dtype: torch.dtype = torch.float32) -> Digits:
        """Read the digits; training has the precision of the images."""
        data = MNIST5kDataModule(val_size=0)
        parts: list[Tensor] = []
        for split in ("train", "test"):
            rows: Any = data.rows(split)
            pixels = F.avg_pool2d(rows.source.images.pixels.to(dtype) / 255, 2)
            parts += [pixels.flatten(1), torch.from_numpy(rows.labels)]
        return cls(*parts)


def first_weights(seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Weights ``[out, in]`` and biases ``[out]`` of all layers, in turn."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for inputs, outputs in pairwise(WIDTHS):
        for shape in ((outputs, inputs), (outputs,)):
            uniform = torch.rand(shape, generator=generator).to(dtype)
            weights.append((2 * uniform - 1) / inputs**0.5)
    return weights


def batches(digits: Digits, workers: int, seed: int, is_sorted: bool) -> Tensor:
    """Which digits each worker sees, ``[workers, STEPS, BATCH]``; each has its own share."""
    generator = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(digits.labels), generator=generator)
    if is_sorted:
        order = order[digits.labels[order].argsort(stable=True)]
    share = len(order) // workers
    rows = []
    for own in order[: share * workers].view(workers, share):
        epochs = -(-STEPS * BATCH // share)
        turns = [own[torch.randperm(share, generator=generator)] for _ in range(epochs)]
        rows.append(torch.cat(turns)[: STEPS * BATCH].view(STEPS, BATCH))
    return torch.stack(rows)


def learning_rate(step: int) -> float:
    """A tenth from each of the drops on."""
    return LR * 0.1 ** sum(step >= drop * STEPS for drop in DROPS)


def network(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Class scores of a ReLU network; ``weights`` and ``x`` may have leading dimensions."""
    for layer in range(0, len(weights), 2):
        x = x @ weights[layer].mT + weights[layer + 1].unsqueeze(-2)
        x = x.relu() if layer + 2 < len(weights) else x
    return x


@torch.no_grad()
def evaluate(digits: Digits, weights: Sequence[Tensor]) -> Result:
    """Loss and accuracy of one network."""
    loss = F.cross_entropy(network(weights, digits.images), digits.labels)
    hits = network(weights, digits.test_images).argmax(1) == digits.test_labels
    return Result(loss.item(), 100 * hits.float().mean().item())


# simulated workers: all seeds and workers are two leading dimensions of the parameters


def simulate(
    digits: Digits, setting: Setting, workers: int, seeds: Sequence[int], is_sorted: bool
) -> list[Result]:
    """Train with simulated workers, all seeds at once; a result for each seed."""
    order = torch.stack([batches(digits, workers, seed, is_sorted) for seed in seeds])
    first = [first_weights(seed, digits.images.dtype) for seed in seeds]
    drawn = [torch.stack(same) for same in zip(*first, strict=True)]
    stacked = [w.unsqueeze(1).repeat(1, workers, *[1] * (w.ndim - 1)) for w in drawn]
    weights = [w.requires_grad_() for w in stacked]
    # elementwise, so this is an optimizer of its own for every worker
    optimizer = torch.optim.SGD(weights, lr=LR, momentum=MOMENTUM)
    x0 = torch.cat([w.flatten(1) for w in drawn], dim=1)
    slow = torch.zeros_like(x0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        seen = order[:, :, step]
        scores = network(weights, digits.images[seen])
        loss = F.cross_entropy(scores.flatten(0, 2), digits.labels[seen].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / BATCH, weights)
        local = step - setting.warmup
        is_ddp = setting.period == 1 or local < 0
        for weight, gradient in zip(weights, gradients, strict=True):
            mean = gradient.mean(1, keepdim=True).expand_as(gradient)
            weight.grad = mean if is_ddp else gradient
        optimizer.step()
        if is_ddp:
            x0 = flat(weights)[:, 0]
        elif (local + 1) % setting.period == 0:
            mean = weighted_mean_(flat(weights).sum(1), workers)
            if setting.beta:
                slow_momentum_(x0, slow, mean, learning_rate(step), beta=setting.beta)
            else:
                x0 = mean
            if setting.buffers == "reset":
                for state in optimizer.state.values():
                    state["momentum_buffer"].zero_()
            write(x0, weights)
    final = [w.detach().mean(1) for w in weights]  # as the strategies do at the end of the run
    return [evaluate(digits, [w[s] for w in final]) for s in range(len(seeds))]


def flat(weights: Sequence[Tensor]) -> Tensor:
    """All parameters of each worker, ``[seeds, workers, N]``."""
    return torch.cat([w.detach().flatten(2) for w in weights], dim=2)


@torch.no_grad()
def write(x0: Tensor, weights: Sequence[Tensor]) -> None:
    """Give the parameters ``[seeds, N]`` to all workers."""
    for weight, part in zip(weights, x0.split([w[0, 0].numel() for w in weights], 1), strict=True):
        weight.copy_(part.view(-1, 1, *weight.shape[2:]).expand_as(weight))
