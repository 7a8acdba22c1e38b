"""What local steps do to the training, looked at from all processes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

pytestmark = pytest.mark.distributed
pool = pytest.mark.pool


def spread(a, b):
    """Largest difference between two ranks after every step."""
    return [(x - y).abs().max().item() for x, y in zip(a, b, strict=True)]


@pool(2, "equalities")
def test_special_cases_are_equal(case):
    for result in case("equalities"):
        assert torch.equal(result["slow"], result["local"])  # α = 1, β = 0: bit for bit
        assert_close(result["every_step"], result["ddp"], atol=1e-6, rtol=0)
        assert_close(result["sharded"], result["whole"], atol=1e-7, rtol=0)
        assert torch.equal(result["small_buckets"], result["whole"])  # tensors span buckets
        assert not torch.equal(result["whole"], result["local"])
        assert_close(result["halfway"], result["lookahead"], atol=1e-6, rtol=0)


@pool(1, "lookahead")
def test_one_process_without_momentum_is_lookahead(case):
    (result,) = case("lookahead")
    assert_close(result["trajectory"], result["expected"], atol=1e-6, rtol=0)


@pool(2, "learning_rates")
def test_learning_rate_of_zero(case):
    first, second = (r["zero"] for r in case("learning_rates"))
    assert torch.isfinite(first).all()
    assert torch.equal(first[4], first[0])
    assert torch.equal(first[12], first[8])
    assert not torch.equal(first[8], first[4])
    assert torch.equal(first[12], second[12])


@pool(2, "learning_rates")
def test_mean_reference_bounds_the_velocity_when_the_rate_drops(case):
    first, second = case("learning_rates")
    assert first["norm_last"] > 5 * first["norm_mean"]
    for name in ("last", "mean", "none"):
        assert torch.equal(first[name][12], second[name][12])
    assert not torch.equal(first["last"][12], first["mean"][12])


@pool(2, "silence")
def test_no_collective_between_synchronisations(case):
    for result in case("silence"):
        for name in ("local", "slowmo"):
            calls, events, sent, rounds = result[name]
            assert calls == ("all_reduce",) * 3
            assert [count for count, _ in events] == [0] * 3 + [1] * 4 + [2] * 4 + [3]
            assert [synced for _, synced in events] == [False, False, False, True] * 3
            assert rounds == 3
            floats = 66 + 2 * 6  # parameters, and a row of six numbers for each process
            assert sent == 3 * 4 * floats


@pool(2, "in_place")
def test_storage_and_memory_format_stay(case):
    for result in case("in_place"):
        assert result["same"]
        assert result["channels_last"]
        assert result["own_storage"]


@pool(2, "extras")
def test_buffers_and_frozen_networks(case):
    first, second = case("extras")
    for mode in ("average", "broadcast", "none"):
        (before0, after0, sent), (before1, after1, _) = first[mode], second[mode]
        same = {name for name in after0 if torch.equal(after0[name], after1[name])}
        unsynced = set() if mode != "none" else {"norm.running_mean", "norm.running_var"}
        assert set(after0) - same == unsynced
        assert torch.equal(after0["constant"], before0["constant"])  # not even rounded
        assert not torch.equal(before0["target.weight"], before1["target.weight"])
        # hidden, out, norm and target; statistics; the table. Not the constant.
        assert sent == 4 * (80 + 24 + (14 if mode != "none" else 0) + 12)
    assert torch.equal(
        second["broadcast"][1]["norm.running_mean"], first["broadcast"][0]["norm.running_mean"]
    )
    assert not torch.equal(first["local_target"], second["local_target"])


@pool(2, "extras")
def test_running_variances_are_pooled(case):
    (b0, after, _), (b1, _, _) = (r["average"] for r in case("extras"))
    means = torch.stack([b0["norm.running_mean"], b1["norm.running_mean"]]).double()
    variances = torch.stack([b0["norm.running_var"], b1["norm.running_var"]]).double()
    expected = (variances + means.square()).mean(0) - means.mean(0).square()
    assert_close(after["norm.running_mean"].double(), means.mean(0), atol=1e-6, rtol=0)
    assert_close(after["norm.running_var"].double(), expected, atol=1e-6, rtol=0)
    assert (after["norm.running_var"].double() - variances.mean(0)).abs().max() > 1e-4


@pool(2, "gan")
def test_optimizers_count_for_themselves(case):
    """Two optimizers, four steps of DDP, rounds of four."""
    first, second = case("gan")
    assert first["steps"] == [14, 14]
    assert first["global"] == 28
    for part in (0, 1):
        a, b = [s[part] for s in first["seen"]], [s[part] for s in second["seen"]]
        equal = [i for i, distance in enumerate(spread(a, b)) if distance == 0]
        assert equal == [0, 1, 2, 3, 7, 11]


@pool(2, "loss_scale")
def test_skipped_steps_do_not_unhinge_the_processes(case):
    first, second = case("loss_scale")
    assert second["scales"][:4] == (32768, 16384, 8192, 8192)
    assert first["scales"][:4] == (32768, 32768, 32768, 8192)  # the minimum, from the sync on
    assert first["scales"][3:] == second["scales"][3:]
    distances = spread(first["trajectory"], second["trajectory"])
    assert [i for i, d in enumerate(distances) if d == 0] == [0, 4, 8, 12]


@pool(2, "nonfinite")
def test_nonfinite_parameters(case):
    first, second = case("nonfinite")
    for result in (first, second):
        assert "rank(s) [1] at the end of round 2" in result["message"]
        assert "nonfinite='skip_rank'" in result["message"]
    assert torch.isnan(second["trajectory"][7]).any()
    assert torch.isfinite(first["trajectory"]).all()
    assert torch.isfinite(second["trajectory"][8:]).all()
    assert torch.equal(first["trajectory"][12], second["trajectory"][12])


@pool(2, "schedules")
def test_when_rounds_end(case):
    for result in case("schedules"):
        assert result["list"] == [2, 4, 7, 10, 15, 20]
        # (0.1 / γ)², at least 2, at most 6, with the learning rate of the round's first step
        assert result["rule"] == [2, 4, 8, 14, 20]
        assert result["epoch"] == [5, 7, 12, 14, 19]
        assert result["warm"] == [*range(1, 13), 17, 22]  # in DDP all are equal after each step
        assert result["hierarchy"] == [*range(1, 7), 9, 13, 17, 21]  # multiples of 4, from step 0
        assert result["accumulate"] == [2, 4, 6, 8]


def simulate_delay(data, steps, every, delay):
    """Two workers in one process; averages of step H − d are used at step H."""
    weights = [torch.cat([data[k].flatten() for k in ("W1", "b1", "W2", "b2")]) for _ in range(2)]
    momenta = [torch.zeros(66), torch.zeros(66)]
    shapes = {"W1": (7, 5), "b1": (7,), "W2": (3, 7), "b2": (3,)}
    trajectory, taken = [torch.stack(weights)], None
    for step in range(steps):
        for rank in range(2):
            flat = weights[rank].clone().requires_grad_()
            sizes = [35, 7, 21, 3]
            w1, b1, w2, b2 = (
                p.view(shapes[k]) for p, k in zip(flat.split(sizes), shapes, strict=True)
            )
            x, y = data["X"][rank, step], data["Y"][rank, step]
            loss = (torch.tanh(x @ w1.T + b1) @ w2.T + b2 - y).square().mean()
            (gradient,) = torch.autograd.grad(loss, flat)
            momenta[rank] = 0.9 * momenta[rank] + gradient
            weights[rank] = weights[rank] - float(data["lr"][step]) * momenta[rank]
        done = step % every + 1
        if done == every - delay:
            taken = torch.stack(weights)
        if done == every:
            weights = [taken.mean(0) + (w - t) for w, t in zip(weights, taken, strict=True)]
        trajectory.append(torch.stack(weights))
    return torch.stack(trajectory)


@pool(2, "delayed")
def test_delayed_averages_keep_local_progress(case, golden):
    results = case("delayed")
    expected = simulate_delay(golden("strategies/slowmo_sgd_w2"), 13, every=4, delay=2)
    actual = torch.stack([r[None] for r in results], dim=1)
    assert_close(actual, expected, atol=5e-6, rtol=0)
    rounded = torch.stack([r["bf16"] for r in results], dim=1)
    assert_close(rounded, expected, atol=5e-3, rtol=0)
    assert not torch.equal(rounded, actual)


@pool(2, "compressed")
def test_compressed_averages(case):
    first, second = case("compressed")
    exact = first["trajectories"][None]
    for name in ("bf16", "int8"):
        a, b = first["trajectories"][name], second["trajectories"][name]
        assert [i for i, d in enumerate(spread(a, b)) if d == 0] == list(range(0, 25, 4))
        assert 0 < (a - exact).abs().max() < 0.02
    assert first["bytes"]["bf16"] < 0.6 * first["bytes"][None]


@pool(2, "feedback")
def test_error_feedback_loses_nothing_over_many_rounds(case):
    for result in case("feedback"):
        for name, size in (("bf16", 0.51), ("int8", 0.27)):
            missing, sent = result[name]
            assert missing["kept"] < 0.35 * missing["dropped"]  # one error, not the sum of thirty
            assert sent < size


@pool(2, "added_parameters")
def test_parameters_may_join_an_optimizer(case):
    first, second = case("added_parameters")
    for name in ("slowmo", "local"):
        (a, names), (b, _) = first[name], second[name]
        assert names[-1] == "extra"
        assert [i for i in (4, 8, 12, 16) if torch.equal(a[i], b[i])] == [4, 8, 12, 16]
        assert torch.isfinite(a).all()
    # A parameter that is new has no slow momentum yet: its first round ends with the mean.
    difference = (first["slowmo"][0][8] - first["local"][0][8]).abs()
    assert difference[:3].max() < 1e-6
    assert difference[3:].max() > 1e-3


@pool(1, "outer_optimizers")
def test_outer_optimizers(case):
    (result,) = case("outer_optimizers")
    assert torch.isfinite(result["adam"]).all()
    assert result["names"] == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    assert all(result["momenta"].values())
    assert result["finite"]
    assert result["shares"]


@pool(1, "outer_devices")
def test_outer_optimizer_lives_where_it_is_told(case):
    (result,) = case("outer_devices")
    assert torch.equal(result["cpu"], result[None])
    assert result["away"] == {"meta"}


@pool(2, "unequal")
def test_unequal_data(case):
    first, second = case("unequal")
    for kind in ("stream", "sized"):
        assert (first[kind][1], second[kind][1]) == ([20], [14])
        assert torch.equal(first[kind][0], second[kind][0])
    for result in (first, second):
        assert torch.equal(result["even"], result["plain"])
        assert "[10, 7]" in result["sized_error"]
        assert "uneven='join'" in result["sized_error"]
        assert "rank 0 goes on after 9 steps" in result["stream_error"]
        assert "rank 1 ended its epoch after 7 steps" in result["stream_error"]


@pool(2, "hooks")
def test_what_users_see_of_a_round(case):
    first, second = case("hooks")
    assert torch.equal(first["end"], second["end"])
    local = torch.stack([first["local"], second["local"]])
    drift = (local - local.mean(0)).square().mean().sqrt()
    for result in (first, second):
        names = [event[0] for event in result["events"]]
        told = ["callback before", "module before", "callback after", "module after"]
        assert names == [0, 1, 2, *told, 3, 4, 5, *told, 6, 7]
        rounds = [event[1] for event in result["events"] if "module" in str(event[0])]
        assert rounds == [0, 1, 1, 2]
        drifts = [event[1] for event in result["events"] if "callback" in str(event[0])]
        assert drifts[1] == drifts[3] == 0 < drifts[0]
        assert drifts[2] == pytest.approx(float(drift), rel=1e-4)
        batches = [event for event in result["events"] if len(event) == 3]
        assert batches[3] == (3, 0, True)
        assert batches[5] == (5, 2, False)
        assert batches[7] == (7, 2, False)  # sync() after batch 5 has begun a new round
    texts = first["warnings"]
    assert len([t for t in texts if "communicates in every local step" in t]) == 1
    told = [t for t in texts if "decides about the training" in t]
    assert len(told) == 1
    assert told[0].startswith("'own' decides")
    assert "(0, 1)" in told[0]


@pool(2, "precision")
def test_precision_and_compilation(case):
    first, second = case("precision")
    assert torch.equal(first["compiled"], first["plain"])
    assert first["dtype"] == "torch.bfloat16"
    assert first["x0"].dtype == torch.float32  # averages and x0 are never rounded to bfloat16
    assert torch.equal(first["bf16"], second["bf16"])
    assert_close(first["bf16"], first["x0"], atol=0, rtol=2**-8)
    assert_close(first["bf16"], first["plain"][-1], atol=0.05, rtol=0)
    assert_close(first["double"], first["plain"], atol=2e-6, rtol=0)


@pool(2, "adamw_reset")
def test_buffers_of_the_inner_optimizer(case):
    first, second = case("adamw_reset")
    for key in ("step", "exp_avg", "exp_avg_sq"):
        assert not first["reset"][key].any()
        assert torch.equal(first["average"][key], second["average"][key])
    assert first["maintain"]["step"] == first["average"]["step"] == 8
    assert not torch.equal(first["maintain"]["exp_avg"], second["maintain"]["exp_avg"])
    assert first["auto"] == "reset"


@pool(2, "msn")
def test_msn_with_slow_momentum(case):
    """The EMA networks agree after a round; the loss communicates only if it is asked to."""
    first, second = (r["seen"] for r in case("msn"))
    counts = [count for count, _, _ in first]
    assert counts[0] == counts[1] - 2 == counts[2] - 2 == counts[3] - 4 == 0
    for part in (1, 2):
        equal = [torch.equal(a[part], b[part]) for a, b in zip(first, second, strict=True)]
        assert equal == [False, True, False, True]
