"""Signals to processes at different steps: all save after the same one, and nobody hangs."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool

# the step after which all save: the end of the round in which one of them was told, or in DDP the
# step after the one in which one was
SAVED = {
    "slowmo": [8], "slowmo_late": [8], "slowmo_next_round": [8], "slowmo_one": [8],
    "local": [6], "warming": [6], "delayed": [8], "nodes": [8], "ddp": [7], "ddp_late": [8],
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pool(4 if n == "nodes" else 2, f"preempted_{n}"), id=n) for n in SAVED],
)
def test_job_is_saved_at_a_common_step_and_goes_on_from_there(name, case):
    results = case(f"preempted_{name}")
    for result in results:
        assert result["steps"] == SAVED[name]
        assert result["asked"] == ["requeue 4321"] * len(SAVED[name])
        assert torch.equal(result["first"], result["whole"])  # saving changes nothing
        assert torch.equal(result["again"], result["whole"][SAVED[name][-1] :])


# the step after which all save and stop; None: before the first there is nothing to save
ENDED = {
    "ddp": 7,
    "ddp_first": None,
    "ddp_accumulating": 4,
    "slowmo": 8,
    "delayed": 8,
    "warming": 6,
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pool(2, f"terminated_{n}"), id=n) for n in ENDED]
)
def test_process_that_is_terminated_takes_the_others_along(name, case):
    wanted = ENDED[name]
    for result in case(f"terminated_{name}"):
        assert result["status"] == 143
        assert result["saved"] == (wanted is not None)
        assert result["stopped"] == (wanted or 0)
        if wanted is not None:
            assert result["step"] == wanted
            assert torch.equal(result["first"], result["whole"][: len(result["first"])])
            again = result["again"][1:]  # without the start
            assert len(result["first"]) + len(again) == len(result["whole"])
            assert torch.equal(again, result["whole"][-len(again) :])
