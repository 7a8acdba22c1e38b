"""Processes at different steps get one clear error; communication in local steps gets a warning."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool


@pool(2, "skipped_in_epoch")
def test_epoch_that_ends_with_fewer_steps_for_some(case):
    for result in case("skipped_in_epoch"):
        assert "unequal data or steps" in result["message"]
        assert "rank 0 goes on after 31 steps" in result["message"]
        assert "rank 1 ended its epoch after 28 steps" in result["message"]


@pool(2, "skipped_by_one_optimizer")
def test_step_of_one_optimizer_that_some_leave_out(case):
    for result in case("skipped_by_one_optimizer"):
        assert "rank 0 goes on after 7 steps, rank 1 goes on after 7 steps" in result["message"]


@pool(2, "skipped_without_harm")
def test_a_step_that_was_left_out_may_do_no_harm(case):
    first, second = case("skipped_without_harm")
    assert first["message"] == second["message"] == ""
    assert (first["steps"], second["steps"]) == ([14, 14], [13, 13])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pool(2, n)) for n in ("leaving", "leaving_with_buffers")]
)
def test_a_process_that_stops_by_itself(name, case):
    for result in case(name):
        assert "unequal numbers of optimizer steps" in result["message"]


def told(results):
    texts = results[0]["warnings"]
    return len([t for t in texts if "communicates in every local step" in t])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pool(2, n)) for n in ("talking_loss", "talking_timer")]
)
def test_whatever_communicates_in_every_step_is_warned_about(name, case):
    assert told(case(name)) == 1


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pool(2, n)) for n in ("talking_seldom", "talking_never")]
)
def test_what_communicates_now_and_then_is_not(name, case):
    assert told(case(name)) == 0
