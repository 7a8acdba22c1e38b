"""Fused optimisers: the same numbers, and state that any of them can go on from."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from lit_ssl.optim.adamw import adam, adamw, sgd

KINDS = {
    "adamw": (adamw, {"lr": 0.1, "weight_decay": 0.1}),
    "adam": (adam, {"lr": 0.1, "betas": (0.0, 0.99)}),
    "sgd": (sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
}


def network(channels_last=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 1))
    return net.to(memory_format=torch.channels_last) if channels_last else net


def steps(net, optimizer, count=2, seed=1):
    torch.manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_step_is_the_plain_one_up_to_rounding(kind):
    make, options = KINDS[kind]
    found = {}
    for fused in (None, False):
        net = network()
        optimizer = make(net.parameters(), fused, **options)
        assert optimizer.param_groups[0]["fused"] is (True if fused is None else None)
        found[fused] = steps(net, optimizer)
    for ours, plain in zip(found[None], found[False], strict=True):
        torch.testing.assert_close(ours, plain)


def test_parameters_that_no_kernel_takes_are_not_fused():
    meta = nn.Linear(2, 2, device="meta")
    assert not adamw(meta.parameters()).param_groups[0]["fused"]
    assert adamw([{"params": nn.Linear(2, 2).weight}]).param_groups[0]["fused"]
    assert adamw(dict(nn.Linear(2, 2).named_parameters()).values()).param_groups[0]["fused"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [(None, False), (False, False), (None, True), (False, True)])
@pytest.mark.parametrize("after", [(None, False), (False, True), (None, True)])
def test_a_run_goes_on_from_a_checkpoint_of_either_kind_and_layout(kind, before, after):
    make, options = KINDS[kind]

    def made(fused, channels_last):
        net = network(channels_last)
        return net, make(net.parameters(), fused, **options)

    net, optimizer = made(*before)
    steps(net, optimizer)
    weights, state = through_a_file((net.state_dict(), optimizer.state_dict()))
    whole = steps(net, optimizer, seed=2)

    resumed, other = made(*after)
    resumed.load_state_dict(weights)
    other.load_state_dict(state)
    assert other.param_groups[0]["fused"] is (True if after[0] is None else None)
    for ours, theirs in zip(steps(resumed, other, seed=2), whole, strict=True):
        if before == after:
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs)


def test_gradients_that_somebody_has_set_belong_to_their_elements():
    net, plain = network(channels_last=True), network()
    for part in (net, plain):
        optimizer = adamw(part.parameters(), None if part is net else False, lr=0.1)
        for _ in range(2):
            torch.manual_seed(3)
            for parameter in part.parameters():
                parameter.grad = torch.randn(parameter.shape)
            optimizer.step()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_state_with_another_number_of_groups_is_refused():
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    state = adamw(one.parameters()).state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        adamw([{"params": two.weight}, {"params": two.bias}]).load_state_dict(state)
