"""What a network of the cascade costs, counted without a single number being computed.

Networks and inputs lie on the meta device, where tensors have shapes and no memory. Two batches of
different size tell what grows with the batch (activations) from what does not (normalised weights).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lit_ssl.errors import check_choice

__all__ = ["GIB", "Cost", "StepMemory", "count_cost", "saved_bytes"]

GIB = 2**30
_FLOAT = 4  # bytes of a float32
_COPIES = 4  # of a trained weight: itself, its gradient, the two moments of Adam


class Cost(NamedTuple):
    """What a network costs in training, in float32.

    Attributes:
        parameters: Numbers that are trained.
        flops: Floating-point operations of a forward for one sample, a multiplication with an
            addition counted as two. The backward takes about twice as many.
        saved: Bytes that a forward keeps for the backward, for one sample.
        fixed: Bytes that it keeps whatever the batch: weights that a normalisation has computed.
    """

    parameters: int
    flops: int
    saved: int
    fixed: int


def saved_bytes(forward: Callable[[], Tensor], without: Sequence[Tensor] = ()) -> int:
    """Bytes that autograd keeps for the backward of a forward, each piece of memory once.

    Args:
        forward: Computes something that needs a gradient.
        without: Tensors that lie in memory anyway, such as parameters.
    """
    known = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in without}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # held, so that no other one gets its number
        if id(storage) not in known:
            kept[id(storage)] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # held: what it saves must not be freed and counted anew
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def count_cost(
    network: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]], forward: str = "__call__"
) -> Cost:
    """Count the cost of a network in training mode.

    Args:
        network: On any device; on the meta device nothing is computed.
        inputs: Arguments of a forward for so many samples, on the device of the network.
        forward: Method to count.
    """
    network.train()
    own = [*network.parameters(), *network.buffers()]
    saved, flops = [], []
    for batch in (2, 3):  # batch normalisation needs more than one value
        arguments = inputs(batch)
        with FlopCounterMode(display=False) as counter:
            saved.append(saved_bytes(lambda: getattr(network, forward)(*arguments), own))  # noqa: B023
        flops.append(counter.get_total_flops())
    return Cost(
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        flops=flops[1] - flops[0],
        saved=saved[1] - saved[0],
        fixed=3 * saved[0] - 2 * saved[1],
    )


class StepMemory(NamedTuple):
    """Memory of a training step of one level: weights, and activations that the batch multiplies.

    A step trains the discriminators on real and generated videos together, then the generator
    through the discriminators; the larger of the two counts. What is not counted: gradients of
    activations in flight and workspace of convolutions, a tenth or so on top.

    Attributes:
        weights: Bytes of trained weights, gradients, Adam's moments, the average of the generator,
            the frozen levels below and normalised weights; in float32 at any precision.
        activations: Bytes of activations for one sample, in float32.
    """

    weights: int
    activations: int

    @classmethod
    def of(cls, generator: Cost, discriminators: Sequence[Cost], below: int = 0) -> StepMemory:
        """Put the costs of the networks together.

        Args:
            generator: Of this level, for one sample.
            discriminators: Each for one video, real or generated.
            below: Parameters of the levels below, which are frozen.
        """
        judges = sum(cost.saved for cost in discriminators)
        trained = generator.parameters + sum(cost.parameters for cost in discriminators)
        weights = _COPIES * trained + generator.parameters + below
        fixed = generator.fixed + sum(cost.fixed for cost in discriminators)
        return cls(_FLOAT * weights + fixed, max(generator.saved + judges, 2 * judges))

    def total(self, batch: int, precision: str = "fp32") -> int:
        """Bytes of a step.

        Args:
            batch: Generated videos of a step.
            precision: ``fp32``, or ``bf16`` for mixed precision, which halves activations.
        """
        return self.weights + batch * self._of_a_sample(precision)

    def largest_batch(self, memory: float, precision: str = "fp32") -> int:
        """The largest batch whose step fits; 0: none does.

        Args:
            memory: Bytes.
            precision: As in ``total``.
        """
        return max(0, int((memory - self.weights) // self._of_a_sample(precision)))

    def _of_a_sample(self, precision: str) -> int:
        check_choice("precision", precision, ("fp32", "bf16"))
        return self.activations if precision == "fp32" else self.activations // 2
