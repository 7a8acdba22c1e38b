"""The arithmetic alone, in float64, against an independent simulator's trajectories."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lit_ssl.strategies.functional import (
    mix_,
    pooled_variance,
    quadratic_period,
    rebase_,
    slow_momentum_,
    weighted_mean_,
)
from lit_ssl.strategies.sync.inner_optimizer import averaged_states, reset_

SHAPES = {"W1": (7, 5), "b1": (7,), "W2": (3, 7), "b2": (3,)}


@torch.no_grad()
def nesterov_outer_(x0, buffer, mean, lr=0.7, momentum=0.9):
    """``b ← μ b + g``, ``x0 ← x0 − η (g + μ b)`` with ``g = x0 − mean`` (arXiv 2311.08105)."""
    gradient = x0 - mean
    buffer.mul_(momentum).add_(gradient)
    x0.sub_(gradient.add_(buffer, alpha=momentum), alpha=lr)


class Worker:
    """The golden problem on one rank."""

    def __init__(self, data, rank, kind):
        self.parameters = [data[k].double().requires_grad_() for k in SHAPES]
        adam = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
        nesterov = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
        self.optimizer = {
            "sgd": lambda: torch.optim.SGD(self.parameters, lr=0.1, momentum=0.9),
            "nesterov": lambda: torch.optim.SGD(self.parameters, lr=0.1, **nesterov),
            "adamw": lambda: torch.optim.AdamW(self.parameters, lr=0.1, **adam),
        }[kind]()
        self.x, self.y, self.lr = data["X"][rank].double(), data["Y"][rank].double(), data["lr"]

    def backward(self, step):
        w1, b1, w2, b2 = self.parameters
        self.optimizer.zero_grad()
        out = torch.tanh(self.x[step] @ w1.T + b1) @ w2.T + b2
        (out - self.y[step]).square().mean().backward()

    def step(self, step):
        self.optimizer.param_groups[0]["lr"] = float(self.lr[step])
        self.optimizer.step()

    @property
    def flat(self):
        return torch.cat([p.detach().flatten() for p in self.parameters])

    def write(self, flat):
        for p, piece in zip(self.parameters, flat.split([35, 7, 21, 3]), strict=True):
            p.data.copy_(piece.view(p.shape))


def mean(values):
    return weighted_mean_(torch.stack(list(values)).sum(0), len(values))


def average_gradients(workers):
    for parameters in zip(*(w.parameters for w in workers), strict=True):
        gradient = mean([p.grad for p in parameters])
        for p in parameters:
            p.grad = gradient.clone()


def average_parameters(workers):
    average = mean([w.flat for w in workers])
    for worker in workers:
        worker.write(average)


def run(data, kind, after_step, before_step=lambda workers, step: None):
    """Train all workers; ``after_step(workers, step)`` with step from 0."""
    workers = [Worker(data, rank, kind) for rank in range(len(data["X"]))]
    trajectory = [torch.stack([w.flat for w in workers])]
    for step in range(24):
        for worker in workers:
            worker.backward(step)
        before_step(workers, step)
        for worker in workers:
            worker.step(step)
        after_step(workers, step)
        trajectory.append(torch.stack([w.flat for w in workers]))
    return torch.stack(trajectory)


class SlowMomentum:
    def __init__(self, every, beta, alpha=1.0, buffers="maintain", inner=None):
        self.every, self.beta, self.alpha, self.buffers, self.inner = (
            every,
            beta,
            alpha,
            buffers,
            inner,
        )
        self.x0, self.velocities = None, []

    def __call__(self, workers, step):
        if self.x0 is None:
            raise AssertionError("the snapshot is taken before the first step")
        if (step + 1) % self.every == 0:
            average = mean([w.flat for w in workers])
            slow_momentum_(
                self.x0, self.u, average, float(workers[0].lr[step]), self.alpha, self.beta
            )
            for worker in workers:
                worker.write(self.x0)
            self.velocities.append(self.u.clone())
            self.treat_buffers(workers)
        elif self.inner and (step + 1) % self.inner == 0:
            average_parameters(workers)

    def treat_buffers(self, workers):
        if self.buffers == "reset":
            for worker in workers:
                reset_(worker.optimizer, worker.parameters)
        if self.buffers == "average":
            states = [averaged_states(w.optimizer, w.parameters) for w in workers]
            for same in zip(*states, strict=True):
                average = mean(same)
                for state in same:
                    state.copy_(average)

    def before(self, workers, step):
        if self.x0 is None:
            self.x0, self.u = workers[0].flat, torch.zeros(66, dtype=torch.float64)


SLOW = {
    "slowmo_sgd_w2": ("sgd", {"every": 4, "beta": 0.5}),
    "slowmo_lrdecay_w2": ("sgd", {"every": 4, "beta": 0.5}),
    "slowmo_sgd_w4_reset": ("sgd", {"every": 6, "beta": 0.6, "buffers": "reset"}),
    "slowmo_sgd_w2_average_nesterov": (
        "nesterov",
        {"every": 3, "beta": 0.7, "buffers": "average"},
    ),
    "slowmo_adamw_w4": ("adamw", {"every": 4, "beta": 0.4, "alpha": 0.8}),
    "slowmo_inner_localsgd_w4": ("sgd", {"every": 6, "beta": 0.5, "inner": 2}),
    "slowmo_hier_w4_n2": ("sgd", {"every": 4, "beta": 0.5, "inner": 2}),
    "localsgd_sgd_w4": ("sgd", {"every": 3, "beta": 0.0}),
    "tft_localsgd_w2": ("sgd", {"every": 4, "beta": 0.0}),
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_momentum_in_float64(name, golden):
    data = golden(f"strategies/{name}")
    kind, settings = SLOW[name]
    slow = SlowMomentum(**settings)

    def before(workers, step):
        slow.before(workers, step)
        if "hier" in name:
            average_gradients(workers[:2])
            average_gradients(workers[2:])

    trajectory = run(data, kind, slow, before)
    assert_close(trajectory, data["traj64"], atol=1e-10, rtol=0)
    if "slow_u64" in data:
        assert_close(torch.stack(slow.velocities), data["slow_u64"], atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind", "warmup", "period", "size"),
    [("postlocal_sgd_w2", "sgd", 5, 4, 1), ("postlocal_adamw_w4_sub2", "adamw", 4, 3, 2)],
)
def test_post_local_sgd_in_float64(name, kind, warmup, period, size, golden):
    data = golden(f"strategies/{name}")

    def before(workers, step):
        count = len(workers) if step < warmup else size
        for start in range(0, len(workers), count):
            average_gradients(workers[start : start + count])

    def after(workers, step):
        if step >= warmup and (step - warmup) % period == 0:
            average_parameters(workers)

    assert_close(run(data, kind, after, before), data["traj64"], atol=1e-10, rtol=0)


def test_hierarchical_averages_in_float64(golden):
    data = golden("strategies/hier_sgd_w4")

    def after(workers, step):
        if step % 4 == 0:
            average_parameters(workers)
        elif step % 2 == 0:
            average_parameters(workers[:2])
            average_parameters(workers[2:])

    assert_close(run(data, "sgd", after), data["traj64"], atol=1e-10, rtol=0)


@pytest.mark.parametrize(("name", "fragments"), [("diloco_w2", 1), ("diloco_stream_w4", 2)])
def test_diloco_in_float64(name, fragments, golden):
    data = golden(f"strategies/{name}")
    delay, mix = (0, 0.0) if fragments == 1 else (1, 0.5)
    parts = [slice(0, 66)] if fragments == 1 else [slice(0, 42), slice(42, 66)]
    x0 = torch.cat([data[k].double().flatten() for k in SHAPES])
    buffer, taken = torch.zeros_like(x0), {}

    def after(workers, step):
        every = 6 // fragments
        part = parts[step // every % fragments]
        if (step + 1 + delay) % every == 0:
            taken["mean"] = mean([w.flat[part] for w in workers])
        if (step + 1) % every == 0:
            nesterov_outer_(x0[part], buffer[part], taken["mean"])
            for worker in workers:
                flat = worker.flat
                mix_(flat[part], x0[part], mix)
                worker.write(flat)

    assert_close(run(data, "adamw", after), data["traj64"], atol=1e-10, rtol=0)
    assert_close(buffer.float(), data["outer_buf32"], atol=5e-6, rtol=0)


# special cases


def test_slow_momentum_without_momentum_is_the_mean_bit_for_bit():
    x0, average = torch.randn(100), torch.randn(100)
    u = torch.zeros(100)
    slow_momentum_(x0, u, average, lr=0.3, alpha=1.0, beta=0.0)
    assert torch.equal(x0, average)


def test_slow_momentum_with_alpha_alone_is_lookahead():
    x0, average = torch.randn(100).double(), torch.randn(100).double()
    expected = x0 + 0.3 * (average - x0)
    slow_momentum_(x0, torch.zeros(100).double(), average, lr=0.7, alpha=0.3, beta=0.0)
    assert_close(x0, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("lr", "division"), [(0.0, None), (0.0, 0.1), (0.1, 0.0)])
def test_slow_momentum_at_a_learning_rate_of_zero(lr, division):
    x0, average, u = torch.zeros(3), torch.ones(3), torch.full((3,), 2.0)
    slow_momentum_(x0, u, average, lr, 1.0, 0.5, division)
    assert torch.equal(x0, average)
    assert torch.equal(u, torch.ones(3))


def test_two_learning_rates():
    x0, u = torch.tensor([1.0]), torch.tensor([4.0])
    slow_momentum_(x0, u, torch.tensor([0.0]), lr=0.1, alpha=1.0, beta=0.5, division_lr=0.5)
    assert_close(u, torch.tensor([4.0]))  # 0.5 * 4 + 1 / 0.5
    assert_close(x0, torch.tensor([0.6]))  # 1 - 0.1 * 4


def test_nesterov_outer_step_is_that_of_torch():
    x0 = torch.randn(50, dtype=torch.float64)
    expected = torch.nn.Parameter(x0.clone())
    reference = torch.optim.SGD([expected], lr=0.7, momentum=0.9, nesterov=True)
    buffer = torch.zeros_like(x0)
    for _ in range(4):
        average = torch.randn(50, dtype=torch.float64)
        expected.grad = expected.detach() - average
        reference.step()
        nesterov_outer_(x0, buffer, average)
    assert_close(x0, expected.detach(), atol=1e-12, rtol=0)


def test_weighted_mean():
    assert torch.equal(weighted_mean_(torch.tensor([3.0]), 1.5), torch.tensor([2.0]))
    fallback = torch.tensor([7.0])
    assert torch.equal(weighted_mean_(torch.tensor([0.0]), 0, fallback), fallback)
    with pytest.raises(ValueError, match="mean of no workers"):
        weighted_mean_(torch.tensor([0.0]), 0)


def test_mixing_and_rebasing():
    outer, snapshot = torch.tensor([1.0]), torch.tensor([2.0])
    assert torch.equal(mix_(torch.tensor([3.0]), outer, 0.0), outer)
    assert_close(mix_(torch.tensor([3.0]), outer, 0.25), torch.tensor([1.5]))
    assert_close(rebase_(torch.tensor([2.5]), outer, snapshot), torch.tensor([1.5]))


def test_pooled_variance_is_that_of_all_samples():
    first, second = torch.randn(40, 5).double() + 3, 2 * torch.randn(40, 5).double()
    moments = [x.var(0, correction=0) + x.mean(0).square() for x in (first, second)]
    means = [x.mean(0) for x in (first, second)]
    pooled = pooled_variance(sum(moments) / 2, sum(means) / 2)
    assert_close(pooled, torch.cat([first, second]).var(0, correction=0), atol=1e-12, rtol=0)
    assert pooled_variance(torch.tensor([1.0]), torch.tensor([1.1])) == 0


@pytest.mark.parametrize(
    ("lr", "period"), [(1.0, 4), (0.1, 4), (0.04, 6), (0.025, 16), (0.01, 50), (1e-12, 50)]
)
def test_quadratic_rule(lr, period):
    assert quadratic_period(lr, coefficient=0.1, base=4, maximum=50) == period


def test_quadratic_rule_forgives_rounding():
    lr = float(torch.tensor(0.05))  # a little more than 0.05
    assert quadratic_period(lr, 0.1, 1, 50) == 4
