"""What networks cost: counted on the meta device, measured on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models.video.cost import Cost, StepMemory, count_cost, saved_bytes


def small(device):
    with torch.device(device):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2),
            nn.Conv1d(8, 4, 1), nn.Dropout(0.0),
        )  # fmt: skip


def images(device):
    return lambda batch: (torch.zeros(batch, 3, 6, 5, device=device),)


def test_shapes_tell_what_numbers_would():
    counted = count_cost(small("meta"), images("meta"))
    # input of each of both convolutions, of the normalisation, and nothing twice
    assert counted.saved == 4 * 30 * (3 + 8 + 8)
    assert counted.flops == 2 * 30 * (27 * 8 + 8 * 4)
    assert counted.parameters == 27 * 8 + 8 + 2 * 8 + 32 + 4
    assert counted.fixed == 2 * 8 * 4  # mean and deviation of the batch
    assert count_cost(small("cpu"), images("cpu")) == counted


def test_frozen_weights_are_no_parameters_and_need_nothing_saved():
    network = small("meta")
    network[0].requires_grad_(False)
    counted = count_cost(network, images("meta"))
    assert counted.parameters == 2 * 8 + 32 + 4
    assert counted.saved == 4 * 30 * (8 + 8)


def test_memory_of_one_tensor_is_counted_once():
    x = torch.zeros(10, requires_grad=True)
    product = lambda: (x.exp() * x.exp().view(2, 5).view(10)).sin()  # noqa: E731
    assert saved_bytes(product) == 3 * 40  # two exponentials, their product
    assert saved_bytes(lambda: x * x, [x]) == 0
    assert saved_bytes(lambda: x * x) == 40


def test_memory_of_a_step_and_the_batch_that_fits():
    generator = Cost(parameters=100, flops=0, saved=5_000, fixed=7)
    judges = [Cost(parameters=10, flops=0, saved=1_000, fixed=2), Cost(20, 0, 3_000, 1)]
    step = StepMemory.of(generator, judges, below=1_000)
    assert step.weights == 4 * (4 * 130 + 100 + 1_000) + 10
    assert step.activations == 9_000  # the generator's step; else that of both halves: 8,000
    assert step.total(3) == step.weights + 27_000
    assert step.total(3, "bf16") == step.weights + 13_500
    for precision in ("fp32", "bf16"):
        fits = step.largest_batch(100_000, precision)
        assert step.total(fits, precision) <= 100_000 < step.total(fits + 1, precision)
    assert step.largest_batch(100) == 0
    assert StepMemory.of(generator._replace(saved=1), judges).activations == 8_000
    with pytest.raises(InputError, match="precision must be 'fp32' or 'bf16', not 'fp16'"):
        step.total(1, "fp16")
