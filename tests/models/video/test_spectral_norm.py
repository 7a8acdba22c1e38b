"""The vector of the power method: when it moves, and that copies and files keep it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lit_ssl.errors import InputError
from lit_ssl.models import ConvGRUCell, DiscriminatorBlock, spectral_norm
from lit_ssl.models.ema import ema_state_update_, target_copy


def vector(layer):
    return layer.parametrizations.weight[0].u


def test_the_norm_of_the_weight_becomes_one():
    layer = spectral_norm(nn.Linear(7, 5), power_iterations=50)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)


def test_one_step_in_training_and_none_in_evaluation():
    layer = spectral_norm(nn.Conv2d(3, 5, 3))
    seen = [vector(layer).clone()]
    for _ in range(2):
        layer(torch.randn(2, 3, 4, 4))
        seen.append(vector(layer).clone())
    assert not seen[0].equal(seen[1])
    assert not seen[1].equal(seen[2])
    layer.eval()
    outputs = [layer(torch.ones(1, 3, 4, 4)) for _ in range(2)]
    assert outputs[0].equal(outputs[1])
    assert vector(layer).equal(seen[2])


def test_backward_after_a_second_forward():
    """As where a generator's loss and a discriminator's share a pass."""
    layer = spectral_norm(nn.Linear(3, 2))
    first, second = layer(torch.randn(4, 3)), layer(torch.randn(4, 3))
    first.sum().backward()
    second.sum().backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_an_unrolled_cell_asks_once_for_its_weights():
    cells = [ConvGRUCell(2) for _ in range(2)]
    cells[1].load_state_dict(cells[0].state_dict())
    for cell in cells:
        torch.manual_seed(1)
        for gate in cell.gates:
            spectral_norm(gate)
    cells[0].unroll(torch.randn(1, 4, 2, 3, 3))
    cells[1].unroll(torch.randn(1, 1, 2, 3, 3))
    for one, other in zip(cells[0].gates, cells[1].gates, strict=True):
        assert vector(one).equal(vector(other))


def test_copies_and_files_keep_the_vector():
    block = DiscriminatorBlock(3, 4, down=True)
    block(torch.randn(2, 3, 4, 4))
    for same in (deepcopy(block), target_copy(block), DiscriminatorBlock(3, 4, down=True)):
        same.load_state_dict(block.state_dict())
        x = torch.randn(2, 3, 4, 4)
        assert same(x).equal(block(x))
        assert vector(same.conv1).equal(vector(block.conv1))
    assert "conv1.parametrizations.weight.0.u" in block.state_dict()
    assert not [name for name, _ in block.named_parameters() if name.endswith(".weight")]


def test_the_average_has_weights_of_its_own():
    online = DiscriminatorBlock(3, 4, down=True)
    average = target_copy(online)
    for p in online.parameters():
        p.data.add_(1)
    before = average.conv1.parametrizations.weight.original.clone()
    ema_state_update_(average, online, 0.75)
    torch.testing.assert_close(average.conv1.parametrizations.weight.original, before + 0.25)
    with pytest.raises(InputError, match="networks of one form; they differ in shortcut"):
        ema_state_update_(average, DiscriminatorBlock(3, 3, down=False), 0.5)


def test_steps_are_of_full_precision():
    torch.manual_seed(1)
    exact = spectral_norm(nn.Linear(64, 64))
    same, half = deepcopy(exact), deepcopy(exact).to(torch.bfloat16)
    x = torch.randn(2, 64)
    exact(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(x).dtype == torch.bfloat16
        assert same.weight.dtype == torch.float32
        same.eval(), exact.eval()
        assert same.weight.equal(spectrally(exact, same))
    assert vector(half).dtype == torch.float32
    assert half(x.bfloat16()).dtype == half.weight.dtype == torch.bfloat16
    assert vector(half).dtype == torch.float32


def spectrally(layer, other):
    """The weight of a layer at the other's vector."""
    vector(layer).copy_(vector(other))
    with torch.autocast("cpu", enabled=False):
        return layer.weight


def test_no_step_is_made_by_making_it():
    layer = nn.Linear(3, 2)
    spectral_norm(layer)
    assert parametrize.is_parametrized(layer, "weight")
    assert vector(layer).norm().item() != pytest.approx(1, abs=1e-6)  # no step yet


def test_wrong_values():
    with pytest.raises(InputError, match="already parametrised"):
        spectral_norm(spectral_norm(nn.Linear(3, 2)))
    with pytest.raises(InputError, match="power_iterations must be at least 1, not 0"):
        spectral_norm(nn.Linear(3, 2), power_iterations=0)
    with pytest.raises(InputError, match=r"at least 2 dimensions, got \[3\]"):
        spectral_norm(nn.LayerNorm(3))
