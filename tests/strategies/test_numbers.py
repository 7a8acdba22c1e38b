"""Numbers that are not finite, or not real, in what is synchronised."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool

NAN = float("nan")


@pool(2, "complex_numbers")
def test_complex_buffers_and_frozen_parameters_are_averaged(case):
    results = case("complex_numbers")
    for result in results:
        first = result["after"][0]
        assert_close(first["phase"], torch.full((3,), 1.5 + 1.5j))  # three steps, mean of 0 and 1
        expected = ((1 - 0.1j) ** 3 + (1 - 0.2j) ** 3) / 2
        assert_close(first["frozen"], torch.full((2,), expected), atol=1e-6, rtol=0)
        assert torch.equal(first["constant"], torch.full((2,), 0.3 + 0.7j))
        (phase, frozen), (phase_again, frozen_again) = result["ends"]
        assert torch.equal(phase, phase_again)
        assert torch.equal(frozen, frozen_again)
    assert_close(results[0]["saved"]["phase"].imag, results[0]["after"][0]["phase"].imag + 1.5)


@pool(2, "unset_values")
def test_values_that_some_processes_have_not_seen_are_averaged_over_those_that_have(case):
    for result in case("unset_values"):
        for name in ("average", "int8", "skip"):
            held = [h["losses"] for h in result[name]]
            assert_close(held[0], torch.tensor([1.0, 3.0, NAN, NAN]), equal_nan=True)
            assert_close(held[1], torch.tensor([1.0, 3.0, 7.0, NAN]), equal_nan=True)
            assert_close(held[2], torch.tensor([1.0, 3.5, 7.0, NAN]), equal_nan=True)
        held = [h["losses"] for h in result["broadcast"]]
        assert_close(held[0], torch.tensor([1.0, 2.0, NAN, NAN]), equal_nan=True)
        assert_close(held[1], torch.tensor([1.0, 2.0, NAN, NAN]), equal_nan=True)
        # in the first round only rank 0 had seen anything when the average was begun
        assert_close(result["delay"][1]["losses"][0], torch.tensor(1.0))
        for name in ("average", "broadcast", "delay", "int8", "skip"):
            for held in result[name]:
                assert torch.equal(held["mask"], torch.full((3, 3), -float("inf")).triu(1))
                assert torch.equal(held["odd"].isfinite(), torch.tensor([False] * 3 + [True]))
        assert_close(result["saved"], torch.tensor([1.0, 3.0, 7.0, NAN]), equal_nan=True)
        assert_close(result["average"][0]["log_weights"], torch.zeros(3))
        expected = torch.tensor([-float("inf"), -0.5, -2.0])  # no weight, from the second round on
        assert_close(result["average"][1]["log_weights"], expected)
        assert_close(result["average"][2]["log_weights"], expected)


@pool(2, "unset_values")
def test_unset_values_leave_the_training_alone_and_survive_a_resume(case):
    for result in case("unset_values"):
        plain, whole, resumed = result["trajectories"]
        assert torch.equal(plain, whole)
        assert torch.equal(resumed, whole[7:])
        assert_close(*result["resumed"], atol=0, rtol=0, equal_nan=True)


@pool(2, "unset_values")
def test_nan_that_comes_up_in_a_round_is_an_error_that_names_the_tensor(case):
    for result in case("unset_values"):
        assert "rank(s) [1] at the end of round 2" in result["message"]
        assert "(losses of rank 1)" in result["message"]
        assert "_ddp_params_and_buffers_to_ignore" in result["message"]


@pool(2, "statistics_all")
def test_statistics_that_are_nan_everywhere_go_back_to_the_start_of_the_round(case):
    first, second = case("statistics_all")
    for result in (first, second):
        before, back, on, _ = result["after"]
        for name in ("norm.running_mean", "norm.running_var", "out.weight"):
            assert torch.equal(back[name], before[name])
            assert not torch.equal(on[name], back[name])
        assert torch.isfinite(result["end"]).all()
        assert torch.equal(first["end"], second["end"])
    assert any("all go back to the start" in w for w in first["warnings"])


@pool(2, "statistics_for_good")
def test_training_that_stands_still_stops(case):
    for result in case("statistics_for_good"):
        assert "the 3rd in a row, so that training stands still" in result["message"]


@pool(4, "statistics_of_a_node")
def test_a_node_is_left_out_as_a_whole(case):
    results = case("statistics_of_a_node")
    for result in results:
        assert torch.isfinite(result["trajectory"]).all()
        for step in (4, 8, 12, 16):
            assert torch.equal(result["trajectory"][step], results[0]["trajectory"][step])
    for a, b in ((0, 1), (2, 3)):  # processes of a node never part
        assert torch.equal(results[a]["trajectory"], results[b]["trajectory"])
    assert not torch.equal(results[0]["trajectory"][6], results[2]["trajectory"][6])


@pool(2, "group_methods")
def test_methods_with_running_losses_of_groups_train(case):
    first, second = case("group_methods")
    for name in ("group_dro", "local_group_dro", "barack"):
        (a, rounds), (b, _) = first[name], second[name]
        assert rounds > 2
        for key, value in a.items():
            assert_close(value, b[key], atol=0, rtol=0, equal_nan=True, msg=f"{name}: {key}")
