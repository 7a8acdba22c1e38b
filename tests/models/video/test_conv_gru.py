"""The recurrent cell against another implementation, and unrolled against step by step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lit_ssl.errors import InputError
from lit_ssl.models import ConvGRUCell

sys.path.insert(0, str(Path(__file__).parent))
from biggan_reference import under

CLOSE = {"rtol": 1e-4, "atol": 5e-6}


@pytest.mark.parametrize(("case", "sizes"), [("c0_", (4, 6, 3)), ("c1_", (5, 5, 5))])
@pytest.mark.parametrize("unrolled", [True, False])
def test_reference(golden, case, sizes, unrolled):
    a = under(golden("video_convgru"), case)
    cell = ConvGRUCell(*sizes, candidate_act="tanh")
    gates = dict(zip(("reset_gate", "update_gate", "out_gate"), cell.gates, strict=True))
    # the reference has the roles of u and 1 - u swapped
    signs = {"reset_gate": 1, "update_gate": -1, "out_gate": 1}
    for name, gate in gates.items():
        gate.weight.data.copy_(signs[name] * a[f"{name}.weight"])
        gate.bias.data.copy_(signs[name] * a[f"{name}.bias"])
    x = a["x"].requires_grad_()
    states = cell.unroll(x) if unrolled else by_steps(cell, x)
    assert_close(states, a["h"], **CLOSE)
    (states * a["cot"]).sum().backward()
    assert_close(x.grad, a["grad_x"], **CLOSE)
    for name, gate in gates.items():
        assert_close(signs[name] * gate.weight.grad, a[f"grad_{name}.weight"], **CLOSE)
        assert_close(signs[name] * gate.bias.grad, a[f"grad_{name}.bias"], **CLOSE)


def by_steps(cell, x):
    state = x.new_zeros(len(x), cell.hidden_channels, *x.shape[3:])
    states = []
    for t in range(x.shape[1]):
        state = cell(x[:, t], state)
        states.append(state)
    return torch.stack(states, dim=1)


def test_an_input_that_stays_is_computed_once():
    cell = ConvGRUCell(3)
    x = torch.randn(2, 1, 3, 4, 3)
    assert_close(cell.unroll(x, 5), by_steps(cell, x.expand(-1, 5, -1, -1, -1)))
    assert cell.unroll(x).shape == (2, 1, 3, 4, 3)


def test_wrong_values():
    with pytest.raises(InputError, match="candidate_act must be 'relu' or 'tanh', not 'gelu'"):
        ConvGRUCell(3, candidate_act="gelu")
    with pytest.raises(InputError, match="kernel_size of a ConvGRU must be odd, not 4"):
        ConvGRUCell(3, kernel_size=4)
    with pytest.raises(InputError, match="3 frames cannot be unrolled over 5"):
        ConvGRUCell(3).unroll(torch.zeros(1, 3, 3, 4, 4), 5)
