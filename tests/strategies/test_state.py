"""Evaluation, checkpoints, resuming and exceptions."""

from __future__ import annotations

import re

import pytest
import torch
from torch.testing import assert_close

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool

RESUMED = [
    "local_adamw", "slowmo_sgd", "slowmo_average", "sharded", "boundary", "warm", "warming", "int8",
    "delayed", "streaming", "sidecar", "large",
]  # fmt: skip


@pool(2, "evaluation")
def test_validation_sees_the_average_and_does_not_touch_the_training(case):
    first, second = case("evaluation")
    for mode in ("average", "local", "slow"):
        assert torch.equal(first[mode]["trajectory"], first["off"]["trajectory"])
    for step in (5, 10):
        local = [r["off"]["trajectory"][step] for r in (first, second)]
        mean = torch.stack(local).mean(0)
        for rank, result in enumerate((first, second)):
            assert_close(result["average"]["parameters"][step], mean, atol=1e-7, rtol=0)
            assert torch.equal(result["local"]["parameters"][step], local[rank])
            start = result["off"]["trajectory"][step // 4 * 4]
            assert torch.equal(result["slow"]["parameters"][step], start)
    assert not torch.equal(first["sync"]["trajectory"], first["off"]["trajectory"])
    assert torch.equal(first["sync"]["parameters"][5], second["sync"]["parameters"][5])


@pool(2, "evaluation")
def test_metric_is_that_of_the_average(case, golden):
    first, second = case("evaluation")
    data = golden("strategies/slowmo_sgd_w2")
    for step in (5, 10):
        w1, b1, w2, b2 = first["average"]["parameters"][step].split([35, 7, 21, 3])
        hidden = torch.tanh(data["X"][0, :3] @ w1.view(7, 5).T + b1)
        loss = (hidden @ w2.view(3, 7).T + b2 - data["Y"][0, :3]).square().mean()
        for result in (first, second):
            assert result["average"]["losses"][step] == pytest.approx(float(loss), abs=1e-6)


@pool(2, "evaluation")
def test_what_a_run_ends_with(case):
    first, second = case("evaluation")
    for mode in ("average", "outer"):
        assert torch.equal(first[f"final_{mode}"], second[f"final_{mode}"])
    assert not torch.equal(first["final_average"], first["final_outer"])
    mean = torch.stack([first["final_none"], second["final_none"]]).mean(0)
    assert_close(first["final_average"], mean, atol=1e-7, rtol=0)
    assert not torch.equal(first["final_none"], second["final_none"])


@pool(2, "recalibration")
def test_batchnorm_statistics_are_estimated_anew(case):
    for result in case("recalibration"):
        (plain, old, _), (trajectory, new, expected) = result[0], result[2]
        assert torch.equal(plain, trajectory)
        for counted, value in zip(new, expected, strict=True):
            assert_close(counted, value, atol=1e-6, rtol=0)
        assert (old[1] - expected[1]).abs().max() > 0.01


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pool(2, f"resume_{n}"), id=n) for n in RESUMED]
)
def test_resuming_in_the_middle_of_a_round_is_exact(name, case):
    """Step 13 of 24; other random numbers before; loaded with weights_only=True."""
    results = case(f"resume_{name}")
    for rank, result in enumerate(results):
        assert torch.equal(result["whole"], result["untouched"])  # saving changes nothing
        assert torch.equal(result["resumed"], result["whole"][13:])
        for whole, resumed in zip(*result["buffers"], strict=True):
            assert torch.equal(whole, resumed)
        assert result["steps"] == [24]
        assert result["rounds"][0] == result["rounds"][1]
        sidecars = sorted(f.partition(".rank")[2] for f in result["files"] if ".rank" in f)
        assert sidecars == ["0", "1"] * (name in ("sidecar", "large"))
        if name in ("sidecar", "large", "warming"):
            assert result["has_ranks"] is False
        else:
            assert result["has_ranks"] == 2
        for key, value in result["content"]["state_dict"].items():
            local = torch.stack([r["local"][key] for r in results])
            if value.is_floating_point() and key != "norm.running_var":
                assert_close(value, local.mean(0), atol=1e-7, rtol=0)
        assert rank in (0, 1)


@pool(2, "other_checkpoints")
def test_checkpoint_of_plain_ddp_continues_after_the_warm_up(case):
    for result in case("other_checkpoints"):
        whole, resumed, steps = result["ddp"]
        assert torch.equal(whole[10], resumed[0])
        assert steps == [16]
    first, second = (r["ddp"][1] for r in case("other_checkpoints"))
    equal = [i for i in range(7) if torch.equal(first[i], second[i])]
    assert equal == [0, 4]  # a round begins at once


@pool(2, "other_checkpoints")
def test_checkpoints_without_state_of_the_processes(case):
    for result in case("other_checkpoints"):
        assert "lit_ssl.strategy" not in result["weights_only"]
        whole, resumed = result["none"]  # saving has ended the round, resetting the momentum
        assert torch.equal(whole[6:], resumed)
        changed = [w for w in result["warnings"] if "strategy has changed" in w]
        assert len(changed) <= 1
    changed = [w for w in case("other_checkpoints")[0]["warnings"] if "strategy has changed" in w]
    assert "sync_every was 4, is 3" in changed[0]
    assert "algorithm was SlowMomentumStrategy, is LocalSGDStrategy" in changed[0]


@pool(2, "gathered")
def test_states_come_to_rank_0_byte_by_byte(case):
    first, second = case("gathered")
    assert second["states"] is None
    assert first["sent"] == []
    assert max(second["sent"]) == 64
    assert all(size == 64 for size in second["sent"][:-1])
    for rank, state in enumerate(first["states"]):
        expected = case("gathered")[rank]["mine"]
        assert state["epoch_end"] == expected["epoch_end"]
        assert state["list"][0] is None
        assert torch.equal(state["list"][1][1], torch.ones(rank))
        assert list(state["tensors"]) == list(expected["tensors"])
        for name, value in state["tensors"].items():
            wanted = expected["tensors"][name]
            assert value.dtype == wanted.dtype
            assert torch.equal(value, wanted)
    columns = [result["tensors"]["columns"] for result in (first["states"][1], second["mine"])]
    assert columns[0].stride() == columns[1].stride()


@pool(2, "checkpoint_for_four")
@pool(4, "resume_from_two")
def test_resuming_on_more_processes(case):
    saved, results = case("checkpoint_for_four"), case("resume_from_two")
    momentum = torch.stack([r["momentum"] for r in saved]).mean(0)
    for result in results:
        for name, value in result["weights"].items():
            mean = torch.stack([r["local"][name] for r in saved]).mean(0)
            assert_close(value, mean, atol=1e-7, rtol=0)
        start = torch.cat([value.flatten() for value in result["weights"].values()])
        assert torch.equal(result["trajectory"][0], start)
        assert_close(result["momentum"], momentum, atol=1e-6, rtol=0)
        assert result["in_round"] == 0
        assert result["steps"] == [14]
    assert any("was saved by 2 processes" in w for w in results[0]["warnings"])
    for step in (4, 8):
        assert all(
            torch.equal(r["trajectory"][step], results[0]["trajectory"][step]) for r in results
        )


@pool(2, "model_checkpoint")
def test_model_checkpoint_saves_what_was_validated(case):
    first, _ = case("model_checkpoint")
    step, weights = first["best"]
    assert step == max(first["losses"], key=first["losses"].get)
    assert torch.equal(weights, first["parameters"][step])
    files = [re.sub(r"\.[0-9a-f]{16}\.rank", ".rank", name) for name in first["files"]]
    found = [name for name in files if name.startswith(("last", "step"))]
    names = [f"step={step}.ckpt", "last.ckpt"]
    assert sorted(found) == sorted(n + end for n in names for end in ("", ".rank0", ".rank1"))


@pool(2, "exception")
def test_no_collective_after_an_exception(case):
    results = case("exception")
    for result in results:
        assert result["files"] == [
            f"failing{i}/{n}.ckpt" for i in (0, 1) for n in ("other", "saved")
        ]
        assert result["synced"] is False
        assert torch.equal(result["saved"], results[0]["local0"])
        assert torch.equal(result["resumed"][0], result["saved"])
    for failing in (0, 1):
        assert results[failing][f"error{failing}"] == "ValueError: meant to fail"
        assert "RuntimeError" in results[1 - failing][f"error{failing}"]
    assert torch.equal(
        results[0]["resumed"][2], results[1]["resumed"][2]
    )  # steps 7, 8: a round ends
    assert any("saved after an exception" in w for w in results[0]["warnings"])


@pool(1, "plain_use")
def test_trainer_is_used_as_usual(case):
    (result,) = case("plain_use")
    before, after = result["losses"]
    assert after < before
    assert result["steps"] == [6]  # fit twice: the second run counts from 0
    assert result["named"] == "SlowMomentumStrategy"
    assert result["half"] == 0.5


@pool(1, "refusals")
def test_what_cannot_work_is_refused(case):
    (messages,) = case("refusals")
    assert "out.weight belongs to optimizers 0 and 1" in messages["shared"]
    assert "'out.weight' is sharded" in messages["sharded"]
    assert "ZeroRedundancyOptimizer: it communicates in every step" in messages["zero"]
    assert "no pattern of ['hidden.*'] matches 'out.weight'" in messages["pattern"]
    assert "number 1 of 2 would hold no parameters" in messages["empty"]
    assert "group_size=2 does not divide the 1 processes" in messages["groups"]
    assert "length is unknown" in messages["endless"]
    assert all(m.startswith("InputError") for k, m in messages.items() if k != "warnings")
