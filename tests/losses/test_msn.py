"""MSN's loss against the reference code, and its invariants."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from lit_ssl.losses import MSNLoss, PMSNLoss, log_sinkhorn, power_law_prior

CASES = ["loss_a", "loss_b", "loss_c"]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-6}


def make_loss(data: dict, **kwargs) -> MSNLoss:
    iterations = 3 if data["sinkhorn"] else 0
    return MSNLoss(temperature=float(data["tau"]), sinkhorn_iterations=iterations, **kwargs)


def leaf(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype).clone().requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_the_reference(golden, case, dtype):
    data = golden(f"msn/{case}")
    close = {"rtol": TOLERANCE[dtype] * 10, "atol": TOLERANCE[dtype]}
    for name, field in {"ce": "cross_entropy", "memax": "me_max", "ent": "entropy"}.items():
        anchors, prototypes = leaf(data["anchors"], dtype), leaf(data["prototypes"], dtype)
        targets = leaf(data["targets"], dtype)
        out = make_loss(data)(anchors, targets, prototypes, float(data["sharpen_T"]))
        value = getattr(out, field)
        torch.testing.assert_close(value, data[name].to(dtype), **close)
        value.backward()
        for tensor, key in ((anchors, "anchors"), (prototypes, "prototypes")):
            expected = data[f"d_{name}_d_{key}"].to(dtype)
            torch.testing.assert_close(tensor.grad, expected, **close)
        assert targets.grad is None
        torch.testing.assert_close(out.target_probs, data["target_probs"].to(dtype), **close)
        assert not out.target_probs.requires_grad
    assert out.target_probs.argmax(1).unique().numel() == int(data["np_used"])


def test_sinkhorn_equals_the_reference(golden):
    data = golden("msn/sinkhorn")
    for name in ("q0", "q1"):
        for iterations in (0, 1, 2, 3, 10):
            result = log_sinkhorn(data[name].log(), iterations).exp()
            expected = data[f"{name}_it{iterations}"]
            torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)


def test_sinkhorn_reaches_the_marginal():
    log_probs = (torch.randn(64, 8, dtype=torch.float64) * 2).log_softmax(1)
    marginal = torch.arange(1.0, 9.0, dtype=torch.float64)
    marginal /= marginal.sum()
    result = log_sinkhorn(log_probs, 500, marginal.log()).exp()
    torch.testing.assert_close(result.mean(0), marginal, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result.sum(1), torch.ones(64, dtype=torch.float64))


def test_loss_is_the_weighted_sum(golden):
    data = golden("msn/loss_a")
    inputs = (data["anchors"], data["targets"], data["prototypes"])
    out = make_loss(data, me_max_weight=5.0, entropy_weight=0.5)(*inputs)
    expected = out.cross_entropy + 5.0 * out.me_max + 0.5 * out.entropy
    torch.testing.assert_close(out.loss, expected)


def test_scale_of_the_inputs_and_order_of_prototypes_do_not_matter(golden):
    data = golden("msn/loss_b")
    loss = make_loss(data)
    a, t, q = data["anchors"], data["targets"], data["prototypes"]
    base = loss(a, t, q).loss
    torch.testing.assert_close(loss(a * 3.0, t * 0.1, q * 7.0).loss, base)
    torch.testing.assert_close(loss(a, t, q[torch.randperm(len(q))]).loss, base)


def test_views_may_be_permuted_but_not_their_alignment(golden):
    data = golden("msn/loss_a")
    batch, views = len(data["targets"]), int(data["num_views"])
    loss = make_loss(data)
    t, q = data["targets"], data["prototypes"]
    anchors = data["anchors"].view(views, batch, -1)
    base = loss(anchors.flatten(0, 1), t, q).loss
    torch.testing.assert_close(loss(anchors.flip(0).flatten(0, 1), t, q).loss, base)
    image_major = anchors.transpose(0, 1).flatten(0, 1)
    assert (loss(image_major, t, q).loss - base).abs() > 1e-3


def test_regularizer_is_zero_only_for_the_uniform_mean():
    loss = MSNLoss()
    assert loss.regularizer(torch.full((10,), 0.1)).abs() < 1e-6
    one_hot = torch.zeros(10)
    one_hot[0] = 1.0
    assert loss.regularizer(one_hot).item() == pytest.approx(math.log(10), rel=1e-6)


def test_collapse_is_no_stationary_point():
    # Proposition 1 of the paper: with all representations equal, some gradient remains.
    z = torch.randn(1, 8, dtype=torch.float64)
    anchors = z.repeat(12, 1).requires_grad_()
    prototypes = torch.randn(16, 8, dtype=torch.float64, requires_grad=True)
    out = MSNLoss(sinkhorn_iterations=0)(anchors, z.repeat(4, 1), prototypes)
    ce = torch.autograd.grad(out.cross_entropy, prototypes, retain_graph=True)[0].norm()
    reg = torch.autograd.grad(out.me_max, prototypes)[0].norm()
    assert ce + reg > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_and_tiny_temperatures_stay_finite(dtype):
    # The textbook form p^(1/T) on probabilities underflows here.
    anchors = torch.randn(8, 16, dtype=dtype, requires_grad=True)
    loss = MSNLoss(temperature=0.005)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = loss(anchors, torch.randn(4, 16, dtype=dtype), torch.randn(1024, 16))
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(anchors.grad).all()


def test_wrong_arguments_are_named():
    loss = MSNLoss()
    with pytest.raises(ValueError, match="7 anchors do not belong to 3 targets"):
        loss(torch.randn(7, 4), torch.randn(3, 4), torch.randn(5, 4))
    with pytest.raises(ValueError, match="temperature must be positive"):
        MSNLoss(temperature=0.0)
    with pytest.raises(ValueError, match="sinkhorn_iterations"):
        MSNLoss(sinkhorn_iterations=-1)


# ------------------------------------------------------------------------- queue


def parts_of(images: int, views: int = 3, sizes: tuple[int, ...] = (4, 4, 3, 1)):
    """A batch as parts of odd sizes: (anchors view-major, targets) of each."""
    assert sum(sizes) == images
    anchors = torch.randn(views, images, 6, dtype=torch.float64)
    targets = torch.randn(images, 6, dtype=torch.float64)
    cut = zip(anchors.split(sizes, dim=1), targets.split(sizes), strict=True)
    return (anchors, targets), [(a.flatten(0, 1).clone().requires_grad_(), t) for a, t in cut]


@pytest.mark.parametrize("prior", [None, "power law"])
def test_with_a_queue_parts_of_a_batch_are_as_the_whole(prior):
    """Network and prototypes stand still here, so that the queue is never out of date."""
    prototypes = torch.randn(7, 6, dtype=torch.float64)
    (anchors, targets), parts = parts_of(12)

    def make(**queue):
        if prior is None:
            return MSNLoss(me_max_weight=2.0, **queue)
        queue.pop("num_prototypes", None)
        shares = power_law_prior(7, 0.5)
        return PMSNLoss(shares, sinkhorn_iterations=3, sinkhorn_marginal="prior", **queue)

    whole = anchors.flatten(0, 1).clone().requires_grad_()
    out = make()(whole, targets, prototypes)
    out.me_max.backward()
    gradients, sizes = [], []
    for index, (a, t) in enumerate(parts):
        loss = make(queue_size=12, num_prototypes=7).double()
        for other, (b, u) in enumerate(parts):
            if other != index:
                loss(b.detach(), u, prototypes)
        part = loss(a, t, prototypes)
        part.me_max.backward()
        torch.testing.assert_close(part.me_max, out.me_max)
        start = sum(sizes)
        torch.testing.assert_close(part.target_probs, out.target_probs[start : start + len(t)])
        gradients.append(a.grad.view(3, len(t), 6) * len(t) / 12)
        sizes.append(len(t))
    torch.testing.assert_close(torch.cat(gradients, 1), whole.grad.view(3, 12, 6))


def test_queue_is_first_in_first_out_and_saved():
    loss = MSNLoss(queue_size=5, num_prototypes=7)
    prototypes = torch.randn(7, 6)
    seen = []
    for size in (2, 1, 3):
        anchors, targets = torch.randn(2 * size, 6), torch.randn(size, 6)
        logits = nn.functional.normalize(anchors) @ nn.functional.normalize(prototypes).T / 0.1
        seen.insert(0, logits.softmax(1).view(2, size, 7).mean(0))
        loss(anchors, targets, prototypes)
        latest = torch.cat(seen)[:5]
        assert len(loss.recent_probs) == len(loss.recent_targets) == len(latest)
        torch.testing.assert_close(loss.recent_probs.own(), latest)
    half = MSNLoss(queue_size=5, num_prototypes=7)
    half(torch.randn(2, 6), torch.randn(2, 6), prototypes)
    other = MSNLoss(queue_size=5, num_prototypes=7)
    assert len(other.recent_probs) == 0
    for known in (loss, half):
        other.load_state_dict(known.state_dict())
        assert torch.equal(other.recent_probs.own(), known.recent_probs.own())
        assert len(other.recent_targets) == len(known.recent_targets)


def test_queue_is_filled_in_training_only_and_off_by_default():
    anchors, targets, prototypes = torch.randn(4, 6), torch.randn(2, 6), torch.randn(7, 6)
    plain, loss = MSNLoss(), MSNLoss(queue_size=5, num_prototypes=7)
    first = [value(anchors, targets, prototypes) for value in (plain, loss)]
    for a, b in zip(*first, strict=True):  # nothing is in it yet
        torch.testing.assert_close(a, b)
    loss.eval()
    loss(anchors, targets, prototypes)
    assert len(loss.recent_probs) == 2
    assert plain.state_dict() == {}
    assert MSNLoss(sinkhorn_iterations=0, queue_size=5, num_prototypes=7).recent_targets is None


@pytest.mark.parametrize("wrong", [{"queue_size": -1}, {"num_prototypes": None}, {"gather": False}])
def test_wrong_queues_are_named(wrong):
    with pytest.raises(ValueError, match="a queue needs num_prototypes and gather=True"):
        MSNLoss(**{"queue_size": 5, "num_prototypes": 7, **wrong})


# ------------------------------------------------------------------ two processes


def queue_step(data: dict, step: int, ranks: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Anchors (view-major) and targets of a step, of one process or of both joined."""
    targets = data["targets"][ranks].roll(step, dims=-1)
    views = data["anchors"][ranks].roll(step, dims=-1).unflatten(1, (-1, targets.shape[1]))
    anchors = views.transpose(0, 1).flatten(0, 2).clone().requires_grad_()
    return anchors, targets.flatten(0, 1)


def run_rank(rank: int, folder: str, data: dict) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    calls = {"n": 0}
    real = torch.distributed.all_reduce, torch.distributed.all_gather

    def counted(function):
        def call(*args, **kwargs):
            calls["n"] += 1
            return function(*args, **kwargs)

        return call

    torch.distributed.all_reduce, torch.distributed.all_gather = map(counted, real)
    anchors = data["anchors"][rank].clone().requires_grad_()
    prototypes = data["prototypes"].clone().requires_grad_()
    loss = MSNLoss(float(data["tau"]), 3, float(data["memax_weight"]))
    plain = loss(anchors, data["targets"][rank], prototypes, float(data["sharpen_T"]))
    plain.loss.backward()
    anchor_gradient = anchors.grad
    collectives = calls["n"]
    local = MSNLoss(gather=False)(anchors.detach(), data["targets"][rank], prototypes.detach())
    local_collectives = calls["n"] - collectives
    queued = []
    loss = MSNLoss(float(data["tau"]), 3, queue_size=5, num_prototypes=len(prototypes)).double()
    for step in range(3):
        anchors, targets = queue_step(data, step, slice(rank, rank + 1))
        out = loss(anchors, targets, data["prototypes"])
        out.me_max.backward()
        queued.append((out.me_max.detach(), out.target_probs, anchors.grad))
    result = {
        "queued": queued,
        "queue": loss.recent_probs.rows,
        "ce": plain.cross_entropy.detach(),
        "memax": plain.me_max.detach(),
        "target_probs": plain.target_probs,
        "d_anchors": anchor_gradient,
        "d_prototypes": prototypes.grad,
        "collectives": collectives,
        "local_collectives": local_collectives,
        "local_loss": local.loss,
    }
    torch.save(result, Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_equal_the_reference_and_the_joined_batch(golden, tmp_path):
    data = golden("msn/loss_two_ranks")
    mp.spawn(run_rank, (str(tmp_path), data), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in range(2)]
    close = {"rtol": 1e-9, "atol": 1e-11}
    for r, got in enumerate(ranks):
        torch.testing.assert_close(got["ce"], data["ce"][r], **close)
        torch.testing.assert_close(got["memax"], data["memax"][r], **close)
        torch.testing.assert_close(got["target_probs"], data["target_probs"][r], **close)
        torch.testing.assert_close(got["d_anchors"], data["d_anchors"][r], **close)
        torch.testing.assert_close(got["d_prototypes"], data["d_prototypes_local"][r], **close)
        assert (
            got["collectives"] == 4
        )  # one for each Sinkhorn iteration, one for the mean prediction
        assert got["local_collectives"] == 0

    # A queue is shared: the same on both, and as that of one process with the joined batches.
    assert torch.equal(ranks[0]["queue"], ranks[1]["queue"])
    loss = MSNLoss(float(data["tau"]), 3, queue_size=5, num_prototypes=len(data["prototypes"]))
    loss.double()
    for step in range(3):
        anchors, targets = queue_step(data, step, slice(None))
        out = loss(anchors, targets, data["prototypes"])
        out.me_max.backward()
        parts = [rank["queued"][step] for rank in ranks]
        for me_max, _, _ in parts:
            torch.testing.assert_close(me_max, out.me_max.detach(), **close)
        torch.testing.assert_close(torch.cat([p[1] for p in parts]), out.target_probs, **close)
        views = torch.stack([p[2].unflatten(0, (-1, len(targets) // 2)) for p in parts], dim=1)
        torch.testing.assert_close(views.flatten(0, 2) / 2, anchors.grad, **close)
    torch.testing.assert_close(loss.recent_probs.rows, ranks[0]["queue"], **close)

    # The mean over processes is the value, and the mean gradient the gradient, on the joined batch.
    views, batch = int(data["num_views"]), data["targets"].shape[1]
    split = data["anchors"].view(2, views, batch, -1).transpose(0, 1)
    anchors = split.reshape(2 * views * batch, -1).clone().requires_grad_()
    prototypes = nn.Parameter(data["prototypes"].clone())
    loss = MSNLoss(float(data["tau"]), 3, float(data["memax_weight"]))
    out = loss(anchors, data["targets"].flatten(0, 1), prototypes, float(data["sharpen_T"]))
    out.loss.backward()
    joined = anchors.grad.view(views, 2, batch, -1).transpose(0, 1).reshape(2, views * batch, -1)
    mean_ce = torch.stack([r["ce"] for r in ranks]).mean()
    torch.testing.assert_close(out.cross_entropy, mean_ce, **close)
    torch.testing.assert_close(out.me_max, ranks[0]["memax"], **close)
    mean_gradient = torch.stack([r["d_prototypes"] for r in ranks]).mean(0)
    torch.testing.assert_close(prototypes.grad, mean_gradient, **close)
    torch.testing.assert_close(joined, torch.stack([r["d_anchors"] for r in ranks]) / 2, **close)
