"""LARS and its schedule against the reference code of PAWS."""

from __future__ import annotations

import pytest
import timm.optim
import torch
from torch import nn

from lit_ssl.optim import InnerLrLars, Schedule, decay_groups, make_lars, set_schedules


def run(data, weight_decay, **options):
    """Largest error of the parameters over six steps with the file's gradients."""
    params = [nn.Parameter(data[f"init_p{i}"].clone()) for i in range(4)]
    named = [(str(i), p) for i, p in enumerate(params)]
    optimizer = make_lars(decay_groups(named, weight_decay), lr=0.1, **options)
    error = 0.0
    for step in range(6):
        for i, p in enumerate(params):
            p.grad = data[f"grad_t{step}_p{i}"].clone()
        set_schedules(optimizer, float(data["lrs"][step]), weight_decay)
        optimizer.step()
        wanted = [data[f"param_t{step}_p{i}"] for i in range(4)]
        error = max(
            error, *((p - w).abs().max().item() for p, w in zip(params, wanted, strict=True))
        )
    return error


@pytest.mark.parametrize("inner", [True, False])
def test_constant_rate_equals_the_reference(golden, inner):
    assert run(golden("paws/lars_const_lr"), 0.01, lr_in_momentum=inner) < 1e-6


def test_warmup_equals_the_reference_with_the_rate_in_the_momentum(golden):
    data = golden("paws/lars_warmup")
    assert run(data, 1e-6) < 1e-6
    assert run(data, 1e-6, lr_in_momentum=False) > 0.1


@pytest.mark.parametrize(
    ("index", "start", "peak", "final", "epochs", "per_epoch", "warmup"),
    [(0, 0.8, 3.2, 0.032, 20, 5, 2), (1, 0.3, 6.4, 0.064, 10, 7, 1), (2, 0.1, 0.1, 0.01, 6, 4, 0)],
)
def test_schedule_equals_the_reference(
    golden, index, start, peak, final, epochs, per_epoch, warmup
):
    wanted = golden("paws/lr_schedule")[f"lr{index}"].tolist()
    schedule = Schedule(start, peak, final, epochs * per_epoch, warmup * per_epoch)
    assert len(wanted) == epochs * per_epoch + 1
    assert [schedule(step) for step in range(len(wanted))] == pytest.approx(wanted, abs=1e-14)


def test_weights_are_adapted_without_weight_decay_and_biases_are_not():
    layer = nn.Linear(4, 4)
    optimizer = make_lars(decay_groups(layer.named_parameters(), 0.0), lr=1.0, momentum=0.0)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    ratio = 1e-3 * before["weight"].norm() / 4
    torch.testing.assert_close(before["weight"] - layer.weight, ratio.expand(4, 4))
    torch.testing.assert_close(before["bias"] - layer.bias, torch.ones(4))


def test_momentum_survives_a_checkpoint_and_nothing_happens_twice():
    def fresh():
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        return layer, make_lars(decay_groups(layer.named_parameters(), 1e-4), lr=1.0)

    def step(layer, optimizer, rate):
        layer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        set_schedules(optimizer, rate, 1e-4)
        optimizer.step()

    whole, optimizer = fresh()
    for rate in (0.1, 0.3, 0.5, 0.4):
        step(whole, optimizer, rate)
    first, early = fresh()
    for rate in (0.1, 0.3):
        step(first, early, rate)
    second, late = fresh()
    second.load_state_dict(first.state_dict())
    late.load_state_dict(early.state_dict())
    for rate in (0.5, 0.4):
        step(second, late, rate)
    assert torch.equal(second.weight, whole.weight)
    assert isinstance(late, InnerLrLars)
    assert isinstance(late, timm.optim.Lars)


def test_rate_zero_moves_nothing():
    layer, rates = nn.Linear(2, 2), (0.0, 0.1, 0.0)
    optimizer = make_lars(decay_groups(layer.named_parameters(), 0.0), lr=0.1)
    moved = []
    for rate in rates:
        before = layer.weight.clone()
        layer.weight.grad = torch.ones(2, 2)
        set_schedules(optimizer, rate, 0.0)
        optimizer.step()
        moved.append(bool((layer.weight != before).any()))
    assert moved == [False, True, False]
    assert torch.isfinite(layer.weight).all()
