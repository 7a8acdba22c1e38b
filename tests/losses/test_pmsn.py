"""PMSN's loss against stored values, its identities, and several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from lit_ssl.losses import MSNLoss, PMSNLoss, log_sinkhorn, power_law_prior, uniform_prior

PRIORS = ["custom", "pl0.25", "pl1.0", "uniform"]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-6}


@pytest.fixture
def data(golden):
    return golden("msn/pmsn_prior")


def make_loss(prior, dtype=torch.float64, **kwargs) -> PMSNLoss:
    loss = PMSNLoss(prior, **kwargs).to(dtype)
    loss.prior.copy_(prior)  # in the full precision of `dtype`, and as it was stored
    return loss


def leaf(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype).clone().requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PRIORS)
def test_divergence_and_gradients_equal_the_definition(data, name, dtype):
    close = {"rtol": TOLERANCE[dtype] * 10, "atol": TOLERANCE[dtype]}
    anchors, prototypes = leaf(data["anchors"], dtype), leaf(data["prototypes"], dtype)
    loss = make_loss(data[f"prior_{name}"], dtype, temperature=float(data["tau"]))
    out = loss(anchors, data["targets"].to(dtype), prototypes, float(data["sharpen_T"]))
    torch.testing.assert_close(out.me_max, data[f"kl_pbar_prior_{name}"].to(dtype), **close)
    out.me_max.backward()
    for tensor, key in ((anchors, "anchors"), (prototypes, "prototypes")):
        expected = data[f"d_kl_pbar_prior_d_{key}_{name}"].to(dtype)
        torch.testing.assert_close(tensor.grad, expected, **close)
    mean = data["mean_anchor_probs"].to(dtype)
    torch.testing.assert_close(loss.regularizer(mean), out.me_max.detach(), **close)


@pytest.mark.parametrize("name", PRIORS)
def test_reverse_direction_equals_lightly(data, name):
    inputs = (data["anchors"], data["targets"], data["prototypes"], float(data["sharpen_T"]))
    settings = {"me_max_weight": 1.0, "kl_direction": "reverse"}
    out = make_loss(data[f"prior_{name}"], **settings)(*inputs)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(out.me_max, data[f"kl_prior_pbar_{name}"], **close)
    torch.testing.assert_close(out.loss, data[f"lightly_total_nosinkhorn_{name}"], **close)


@pytest.mark.parametrize(("iterations", "marginal"), [(0, "uniform"), (3, "uniform"), (3, "prior")])
def test_uniform_prior_is_msn(data, iterations, marginal):
    results = []
    for loss in (
        MSNLoss(sinkhorn_iterations=iterations, me_max_weight=5.0, entropy_weight=0.3),
        make_loss(
            uniform_prior(16), sinkhorn_iterations=iterations, entropy_weight=0.3,
            sinkhorn_marginal=marginal,
        ),
    ):  # fmt: skip
        anchors = leaf(data["anchors"], torch.float64)
        prototypes = leaf(data["prototypes"], torch.float64)
        out = loss(anchors, data["targets"], prototypes)
        out.loss.backward()
        results.append([*out, anchors.grad, prototypes.grad])
    for expected, got in zip(*results, strict=True):
        if marginal == "uniform":  # to the last bit: the prior's term is exactly zero
            assert torch.equal(expected, got)
        torch.testing.assert_close(expected, got, rtol=1e-12, atol=1e-14)


def test_divergence_is_zero_only_at_the_prior():
    prior = power_law_prior(12, 1.0)
    for direction in ("forward", "reverse"):
        loss = make_loss(prior, kl_direction=direction)
        mean = prior.clone().requires_grad_()
        value = loss.regularizer(mean)
        assert abs(value.item()) < 1e-12
        # the gradient along the simplex vanishes, too
        (gradient,) = torch.autograd.grad(value, mean)
        assert (gradient - gradient.mean()).abs().max() < 1e-12
        assert loss.regularizer(uniform_prior(12)) > 0.1
        one_hot = torch.zeros(12, dtype=torch.float64)
        one_hot[0] = 1.0
        assert torch.isfinite(loss.regularizer(one_hot))


def test_sinkhorn_follows_the_chosen_marginal():
    prior = power_law_prior(8, 1.0)
    targets = torch.randn(64, 4, dtype=torch.float64)
    prototypes = torch.nn.functional.normalize(torch.randn(8, 4, dtype=torch.float64), dim=1)
    shares = {
        marginal: make_loss(prior, sinkhorn_iterations=2000, sinkhorn_marginal=marginal)
        .log_targets(targets, prototypes, 1.0)
        .exp()
        .mean(0)
        for marginal in ("uniform", "prior")
    }
    torch.testing.assert_close(shares["uniform"], uniform_prior(8), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shares["prior"], prior, rtol=1e-4, atol=1e-5)


def test_defaults_are_off_sinkhorn_and_weight_five(data):
    loss = PMSNLoss(data["prior_custom"])
    inputs = (data["anchors"], data["targets"], data["prototypes"])
    out = loss(*inputs)
    torch.testing.assert_close(out.loss, out.cross_entropy + 5.0 * out.me_max)
    plain = MSNLoss(sinkhorn_iterations=0)(*inputs)
    assert torch.equal(out.target_probs, plain.target_probs)


def test_prior_is_a_buffer():
    loss = PMSNLoss([1, 2, 5])
    assert dict(loss.named_buffers()).keys() == {"prior"}
    torch.testing.assert_close(loss.prior, torch.tensor([0.125, 0.25, 0.625]))
    other = PMSNLoss([1, 1, 1])
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.prior, loss.prior)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype):
    loss = PMSNLoss(power_law_prior(1024), temperature=0.005, sinkhorn_iterations=3,
                    sinkhorn_marginal="prior").to(dtype)  # fmt: skip
    anchors = torch.randn(8, 16, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = loss(anchors, torch.randn(4, 16, dtype=dtype), torch.randn(1024, 16))
    assert out.loss.dtype == out.target_probs.dtype == torch.float32
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(anchors.grad).all()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="kl_direction must be 'forward' or 'reverse', not 'up'"):
        PMSNLoss([1, 1], kl_direction="up")
    with pytest.raises(ValueError, match="sinkhorn_marginal must be"):
        PMSNLoss([1, 1], sinkhorn_marginal="power_law")
    with pytest.raises(ValueError, match="2 entries, but there are 5 prototypes"):
        PMSNLoss([1, 1])(torch.randn(6, 4), torch.randn(3, 4), torch.randn(5, 4))
    with pytest.raises(ValueError, match="3 entries for 2 prototypes"):
        PMSNLoss([1, 1]).set_prior([1, 1, 1])


# ------------------------------------------------------------------ several processes


def run_rank(rank: int, folder: str, data: dict) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(data["targets"])
    )
    out, anchors, prototypes = step(data, data["anchors"][rank], data["targets"][rank])
    result = [out.cross_entropy, out.me_max, out.target_probs, anchors.grad, prototypes.grad]
    torch.save([value.detach() for value in result], Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def step(data, anchors, targets):
    anchors, prototypes = anchors.clone().requires_grad_(), data["prototypes"].clone()
    prototypes.requires_grad_()
    prior = power_law_prior(len(prototypes), 0.5)
    loss = make_loss(prior, sinkhorn_iterations=3, sinkhorn_marginal="prior")
    out = loss(anchors, targets, prototypes)
    out.loss.backward()
    return out, anchors, prototypes


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_processes_equal_one_on_the_joined_batch(golden, tmp_path, world):
    data = dict(golden("msn/loss_two_ranks"))
    views, batch = int(data["num_views"]), 2 * data["targets"].shape[1] // world
    width = data["targets"].shape[-1]
    data["targets"] = data["targets"].reshape(world, batch, width)
    data["anchors"] = data["anchors"].reshape(world, views * batch, width)
    mp.spawn(run_rank, (str(tmp_path), data), nprocs=world)
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in range(world)]
    cross_entropy, me_max, target_probs, d_anchors, d_prototypes = zip(*ranks, strict=True)

    joined = data["anchors"].view(world, views, batch, -1).transpose(0, 1).flatten(0, 2)
    out, anchors, prototypes = step(data, joined, data["targets"].flatten(0, 1))
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(torch.stack(cross_entropy).mean(), out.cross_entropy, **close)
    assert torch.equal(me_max[0], me_max[-1])
    torch.testing.assert_close(me_max[0], out.me_max, **close)
    torch.testing.assert_close(torch.cat(target_probs), out.target_probs, **close)
    torch.testing.assert_close(torch.stack(d_prototypes).mean(0), prototypes.grad, **close)
    split = anchors.grad.view(views, world, batch, -1).transpose(0, 1).flatten(1, 2)
    torch.testing.assert_close(torch.stack(d_anchors) / world, split, **close)
    # and the prior matters: without Sinkhorn towards it, targets differ
    other = log_sinkhorn(out.target_probs.log(), 3).exp()
    assert (other - out.target_probs).abs().max() > 1e-3
