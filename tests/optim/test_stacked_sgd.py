"""SGD on stacked parameters: every model moves as it would alone."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from lit_ssl.optim.stacked_sgd import StackedSGD

sys.path.insert(0, str(Path(__file__).parents[1] / "optim"))
from inner_lr_sgd import InnerLrSGD

RATES, DECAYS = [0.1, 2.0, 6.4], [0.0, 0.03, 0.1]


def pull(p, slope):
    """A gradient that depends on the parameter."""
    return torch.sin(3 * p) + slope


def test_models_move_as_they_would_alone():
    start = torch.randn(3, 4, 2, dtype=torch.float64)
    slopes = torch.randn(6, 3, 4, 2, dtype=torch.float64)
    stacked = torch.nn.Parameter(start.clone())
    together = StackedSGD([stacked], RATES, DECAYS)
    alone = [torch.nn.Parameter(row.clone()) for row in start]
    single = [
        InnerLrSGD([p], lr=lr, momentum=0.9, weight_decay=decay, nesterov=True)
        for p, lr, decay in zip(alone, RATES, DECAYS, strict=True)
    ]
    for step, slope in enumerate(slopes):
        factor = 1 - step / 6
        together.param_groups[0]["lr"] = factor
        stacked.grad = pull(stacked.detach(), slope)
        together.step()
        for p, optimizer, part, lr in zip(alone, single, slope, RATES, strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor
            p.grad = pull(p.detach(), part)
            optimizer.step()
    torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in alone]))
    assert (stacked - start).abs().amin() > 1e-3


def test_undecayed_groups_and_resume():
    def fresh(values):
        p, q = (torch.nn.Parameter(v.clone()) for v in values)
        groups = [{"params": [p]}, {"params": [q], "weight_decay": 0.0}]
        return p, q, StackedSGD(groups, RATES, DECAYS)

    def steps(p, q, optimizer, count):
        for _ in range(count):
            p.grad, q.grad = torch.zeros_like(p), torch.zeros_like(q)
            p.grad[0] = 1.0
            optimizer.step()

    p, q, optimizer = fresh([torch.ones(3, 2), torch.ones(3, 2)])
    steps(p, q, optimizer, 2)
    assert torch.equal(q.detach(), torch.ones(3, 2))
    assert p[1, 0].item() < 1  # only decay moved it
    again, other, second = fresh([p.detach(), q.detach()])
    second.load_state_dict(deepcopy(optimizer.state_dict()))
    steps(p, q, optimizer, 2)
    steps(again, other, second, 2)
    assert torch.equal(p, again)


@pytest.mark.parametrize(
    ("rates", "decays", "momentum", "message"),
    [
        ([0.1], [0.0, 0.1], 0.9, "one learning rate and one weight decay per model"),
        ([0.1, -1], [0.0, 0.1], 0.9, "learning rates and weight decays >= 0"),
        ([0.1, 1], [0.0, 0.1], 1.0, "momentum in"),
        ([0.1, 1], [0.0, 0.1], 0.9, r"2 learning rates for parameters of \[3\] models"),
    ],
)
def test_wrong_values_are_refused(rates, decays, momentum, message):
    with pytest.raises(ValueError, match=message):
        StackedSGD([torch.nn.Parameter(torch.ones(3))], rates, decays, momentum)
