"""BatchNorm statistics of evaluation images, in place of those that training left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_ssl.contracts.batches import inputs_of
from lit_ssl.contracts.data import bank_sample
from lit_ssl.contracts.modules import FeatureFunction
from lit_ssl.distributed import gather_stack
from lit_ssl.errors import InputError
from lit_ssl.trainer.passes import evaluate_batches
from lit_ssl.trainer.run import is_fast_dev_run

__all__ = ["recalibrated_batch_norm"]

_IMAGES = 10_000  # of a few hundred channels, mean and variance are known to about one per cent


class _Moments:
    """Mean and sum of squared deviations of what a layer is given, per channel."""

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm) -> None:
        self.count = torch.zeros((), device=_mean(layer).device)
        self.mean = torch.zeros_like(_mean(layer), dtype=torch.float32)
        self.squares = torch.zeros_like(self.mean)

    def add(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Count a batch ``[N, C, ...]``: a hook that runs before the layer."""
        values = args[0].detach().float()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        variance, mean = torch.var_mean(values, dim=dims, correction=0)
        number = self.count.new_tensor(values[:, 0].numel())
        self._merge(number, mean, number * variance)

    def gathered(self) -> _Moments:
        """Join those of all processes."""
        joined = object.__new__(_Moments)
        parts = [gather_stack(part) for part in (self.count, self.mean, self.squares)]
        joined.count, joined.mean, joined.squares = (part[0] for part in parts)
        for count, mean, squares in list(zip(*parts, strict=True))[1:]:
            joined._merge(count, mean, squares)
        return joined

    def _merge(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        total = (self.count + count).clamp_min(1)
        apart = mean - self.mean
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = self.count + count


@contextmanager
def recalibrated_batch_norm(
    trainer: pl.Trainer, module: nn.Module, functions: Sequence[FeatureFunction]
) -> Iterator[None]:
    """Inside, BatchNorm layers have the statistics of training images as evaluation shows them.

    Training leaves a running mean of augmented views behind, whose last ones may be of another size
    than the images of an evaluation. Here up to 10,000 training images, drawn at random, pass with
    the evaluation transform; mean and variance of what each layer is given are those of all of them
    (joined over batches and processes, not averaged). Afterwards every layer has its own again.
    Networks without BatchNorm, and layers that no function uses, stay as they are.

    Args:
        trainer: The running trainer.
        module: The module to evaluate.
        functions: Each maps images ``[B, C, H, W]`` to features ``[B, D]``.

    Raises:
        AttributeError: If the data module cannot serve some training images.
        ValueError: If there are fewer than two for each process.
    """
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]
    before = [{name: t.clone() for name, t in layer.named_buffers()} for layer in layers]
    try:
        if layers:
            _recalibrate(trainer, module, layers, functions)
        yield
    finally:
        for layer, buffers in zip(layers, before, strict=True):
            for name, value in layer.named_buffers():
                value.copy_(buffers[name])


def _recalibrate(
    trainer: pl.Trainer,
    module: nn.Module,
    layers: list[nn.modules.batchnorm._BatchNorm],
    functions: Sequence[FeatureFunction],
) -> None:
    found = [_Moments(layer) for layer in layers]

    def count(batch: Any, _: Any) -> int:
        images = inputs_of(batch)
        if len(images) < 2:  # the rest of an epoch; one image has no variance
            return 0
        for layer in layers:
            layer.train()  # so that each layer sees inputs that the one before has normalised
        for function in functions:
            function(images)
        return len(images)

    limit = int(trainer.limit_val_batches) if is_fast_dev_run(trainer) else None
    hooks = [
        layer.register_forward_pre_hook(moments.add)
        for layer, moments in zip(layers, found, strict=True)
    ]
    try:
        used = evaluate_batches(trainer, module, count, bank_sample(trainer, _IMAGES), limit)
    finally:
        for hook in hooks:
            hook.remove()
    if not sum(used):
        raise InputError(
            "recalibrating BatchNorm needs at least 2 training images in a batch of each process: "
            "use a larger batch_size, fewer processes, or recalibrate_bn: false"
        )
    for layer, moments in zip(layers, found, strict=True):
        joined = moments.gathered()
        was_used = joined.count > 0
        variance = joined.squares / (joined.count - 1).clamp_min(1)
        for buffer, value in ((_mean(layer), joined.mean), (_variance(layer), variance)):
            buffer.copy_(torch.where(was_used, value, buffer))


def _mean(layer: nn.modules.batchnorm._BatchNorm) -> Tensor:
    assert layer.running_mean is not None
    return layer.running_mean


def _variance(layer: nn.modules.batchnorm._BatchNorm) -> Tensor:
    assert layer.running_var is not None
    return layer.running_var
