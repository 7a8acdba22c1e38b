"""Parameters that a callback unfreezes: in the warm-up, within nodes, and before a resume."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool


@pool(2, "unfrozen_warming")
def test_gradients_of_unfrozen_parameters_are_averaged_in_the_warm_up(case):
    first, second = case("unfrozen_warming")
    assert not torch.equal(first["unfrozen"][7][:42], first["unfrozen"][6][:42])
    for step in (*range(13), 16, 20, 24):
        assert torch.equal(first["unfrozen"][step], second["unfrozen"][step])
    assert not torch.equal(first["unfrozen"][13], second["unfrozen"][13])
    assert_close(first["unfrozen"], first["known"], atol=1e-6, rtol=0)
    assert not any("different parameters" in w for w in first["warnings"])


@pool(4, "unfrozen_in_nodes")
def test_gradients_of_unfrozen_parameters_are_averaged_within_nodes(case):
    runs = [r["unfrozen"] for r in case("unfrozen_in_nodes")]
    for a, b in ((0, 1), (2, 3)):
        assert torch.equal(runs[a], runs[b])
    assert not torch.equal(runs[0][9], runs[2][9])
    for step in (4, 8, 12, 24):
        assert torch.equal(runs[0][step], runs[2][step])


@pool(2, "unfrozen_parted")
def test_local_steps_begin_with_the_same_parameters(case):
    first, second = case("unfrozen_parted")
    # in the step after the warm-up both start from rank 0's: half of the lie would stay otherwise
    assert (second["trajectory"][6] - first["trajectory"][6]).abs().max() == 1
    assert (second["trajectory"][7] - first["trajectory"][7]).abs().max() < 0.5
    for step in (10, 14):
        assert torch.equal(first["trajectory"][step], second["trajectory"][step])
    assert any("different parameters at the end of the warm-up" in w for w in first["warnings"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pool(2, f"unfrozen_{n}"), id=n)
        for n in ("slowmo", "diloco", "delayed", "sharded")
    ],
)
def test_resume_after_parameters_have_joined_is_exact(name, case):
    for result in case(f"unfrozen_{name}"):
        for step, again in result["again"].items():
            assert torch.equal(again, result["whole"][step:]), step
        assert not any("a new round begins" in w for w in result["warnings"])
