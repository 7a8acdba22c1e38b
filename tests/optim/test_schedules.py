"""Schedules against the reference, and the parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.optim import LossWeight, MultiStep, Schedule, decay_groups, linear, set_schedules


def test_schedules_equal_the_reference(golden):
    data = {k: v.tolist() for k, v in golden("msn/schedules").items()}
    steps = data["epochs"] * data["iters_per_epoch"]
    warmup = data["warmup_epochs"] * data["iters_per_epoch"]
    total = 1.25 * steps
    lr = Schedule(data["start_lr"], data["lr"], data["final_lr"], total, warmup)
    decay = Schedule(0.0, data["wd"], data["final_wd"], total)
    for i in range(steps):
        assert lr(i + 1) == pytest.approx(data["lr_at_step"][i], rel=1e-12)
        assert decay(i + 1) == pytest.approx(data["wd_at_step"][i], rel=1e-12)
        assert linear(i, total, 0.996, 1.0) == pytest.approx(data["ema_at_step"][i], rel=1e-12)
        temperature = linear(i, total, data["start_T"], data["final_T"])
        assert temperature == pytest.approx(data["T_at_step"][i], rel=1e-12)


def test_schedule_does_not_rise_again_after_its_end():
    schedule = Schedule(0.0, 1.0, 0.1, total=10, warmup=2)
    assert [schedule(s) for s in (0, 1, 2, 10, 11, 100)] == [0.0, 0.5, 1.0, 0.1, 0.1, 0.1]
    assert linear(20, 10, 0.0, 1.0) == 1.0


def test_groups_and_their_schedules():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    net[0].bias.requires_grad_(False)
    groups = decay_groups(net.named_parameters(), 0.1)
    assert [(g["name"], len(g["params"]), g["weight_decay"]) for g in groups] == [
        ("decay", 1, 0.1), ("no_decay", 2, 0.0),
    ]  # fmt: skip
    groups[1]["lr_scale"] = 0.5
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_schedules(optimizer, lr=0.2, weight_decay=0.3)
    values = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert values == [(0.2, 0.3), (0.1, 0.0)]


def test_multi_step_warms_up_and_drops_at_the_milestones():
    schedule = MultiStep(0.1, 3.2, milestones=(30, 60, 80), warmup=5)
    assert [schedule(s) for s in (0, 5, 29, 30, 59)] == pytest.approx([0.1, 3.2, 3.2, 0.32, 0.32])
    assert schedule(2) == pytest.approx(0.1 + 3.1 * 2 / 5)
    assert [schedule(s) for s in (60, 80, 1000)] == pytest.approx([0.032, 0.0032, 0.0032])
    assert MultiStep(0.0, 1.0, milestones=(), factor=0.5)(0) == 1.0


def test_weight_of_a_loss_over_the_training():
    linearly = LossWeight(0.1, 0.3)
    assert [linearly(s, 10) for s in (0, 5, 10, 20)] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    falling = LossWeight(1.0, 0.2, beta=2.0)
    expected = [1.0, 0.2 + 0.8 * 0.36787944, 0.2 + 0.8 * 0.13533528]
    assert [falling(s, 10) for s in (0, 5, 10)] == pytest.approx(expected)
    assert falling(11, 10) == falling(10, 10)
    for wrong in ({"start": float("nan")}, {"beta": -1.0}, {"stop": float("inf")}):
        with pytest.raises(ValueError, match="finite start and stop and beta >= 0"):
            LossWeight(**{"start": 1.0, "stop": 0.0, **wrong})
