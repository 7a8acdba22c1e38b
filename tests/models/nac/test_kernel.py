"""Links and graphs: what signatures mean, in every precision."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import KernelOptions, SignatureKernel


def signatures(count, dim=8, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_a_module_is_linked_to_itself_and_the_length_of_signatures_does_not_matter():
    kernel, s = SignatureKernel(KernelOptions(bandwidth=0.3)), signatures(6)
    links = kernel.link_probabilities(s, s)
    torch.testing.assert_close(links.diagonal(), torch.ones(6))
    scaled = kernel.link_probabilities(s * 37, s * torch.rand(6, 1).add(0.1))
    torch.testing.assert_close(links, scaled)
    orthogonal = SignatureKernel().link_probabilities(torch.eye(3), torch.eye(3))
    torch.testing.assert_close(orthogonal[0, 1], torch.tensor(-1.0).exp())


def test_samples_at_a_low_temperature_follow_the_probabilities():
    kernel = SignatureKernel(KernelOptions(temperature=0.05)).train()
    s, count = signatures(7), 4000
    torch.manual_seed(0)
    drawn = kernel(s, s, batch=count).exp()
    mean, links = drawn.mean(0), kernel.link_probabilities(s, s)
    # K is close to 0 or 1; what lies between them adds to the tolerance.
    sigma = (links * (1 - links) / count).sqrt()
    between = ((drawn > 0.01) & (drawn < 0.99)).float().mean(0)
    assert ((mean - links).abs() <= 3 * sigma + 0.1 * between + 1e-6).all()


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_one_graph_for_each_sample_or_one_for_the_batch(per):
    kernel = SignatureKernel(KernelOptions(sample_per=per)).train()
    drawn = kernel(signatures(5), signatures(6, seed=1), batch=4)
    assert drawn.shape == ((4 if per == "sample" else 1), 5, 6)
    again = kernel(signatures(5), signatures(6, seed=1), batch=4)
    assert not torch.equal(drawn, again)


def test_signatures_of_each_sample_draw_one_graph_each():
    kernel = SignatureKernel().train()
    own = torch.stack([signatures(5, seed=i) for i in range(3)])
    assert kernel(own, own, batch=3).shape == (3, 5, 5)
    assert kernel.eval()(own, own, batch=3).shape == (3, 5, 5)


@pytest.mark.parametrize("truncation", [None, 0.9])
def test_logs_of_samples_are_finite_in_float32_also_inside_autocast(truncation):
    kernel = SignatureKernel(KernelOptions(truncation=truncation)).train()
    s = signatures(64, dim=16)
    torch.manual_seed(0)
    plain = kernel(s, s, batch=8)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = kernel(s, s, batch=8)
    assert cast.dtype == torch.float32
    assert plain.isfinite().all()
    assert torch.equal(plain, cast)
    half = kernel.eval()(s.bfloat16(), s.bfloat16(), batch=1)
    assert half.dtype == torch.float32


def test_a_dead_link_has_no_influence_in_evaluation_and_no_gradient_ever():
    s = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], requires_grad=True)
    kernel = SignatureKernel(KernelOptions(truncation=0.9, stochastic=False))
    values = torch.randn(3, 4)

    def heard(sent):
        return kernel(s, s, batch=1)[0].softmax(-1) @ sent

    other = values.clone()
    other[1] += 100.0
    assert torch.equal(heard(values)[0], heard(other)[0])
    for mode in (True, False):
        kernel.train(mode)
        (grad,) = torch.autograd.grad(heard(values)[0].sum(), s)
        assert not grad[1].any()
    sampling = SignatureKernel(KernelOptions(truncation=0.9)).train()
    logs = sampling(s, s, batch=5)
    (grad,) = torch.autograd.grad(logs[:, 0, 1].sum(), s)
    assert not grad.any()  # documented: the clamp stops it


def test_a_soft_truncation_keeps_the_gradient():
    s = torch.tensor([[1.0, 0.0], [0.05, 1.0]], requires_grad=True)
    kernel = SignatureKernel(KernelOptions(truncation=0.9, soft_truncation=True, stochastic=False))
    log = kernel.train()(s, s, batch=1)[0, 0, 1]
    assert -31 < float(log) < -5
    (grad,) = torch.autograd.grad(log, s)
    assert grad[1].abs().max() > 1
    assert kernel.eval()(s, s, batch=1)[0, 0, 1] == -torch.inf


@pytest.mark.parametrize("mode", ["soft", "threshold"])
def test_a_row_without_links_keeps_its_closest_sender(mode):
    """Read-outs have no link to themselves, and attention over nothing is NaN on some devices."""
    receivers = torch.tensor([[1.0, 0.0]])
    senders = torch.tensor([[-1.0, 0.1], [-0.5, 1.0], [-1.0, -0.1]])
    kernel = SignatureKernel(KernelOptions(truncation=0.5, eval_mode=mode)).eval()
    logs = kernel(receivers, senders, batch=1)[0, 0]
    assert logs.isfinite().tolist() == [False, True, False]


def test_threshold_keeps_links_of_one_half():
    angles = torch.tensor([0.0, 0.9, 1.6])
    s = torch.stack([angles.cos(), angles.sin()], 1)
    kernel = SignatureKernel(KernelOptions(eval_mode="threshold")).eval()
    links = kernel.link_probabilities(s, s)
    assert torch.equal(kernel(s, s, batch=1)[0] == 0, links >= 0.5)


def test_the_bandwidth_stays_positive_whatever_a_step_does():
    kernel = SignatureKernel()
    with torch.no_grad():
        kernel.log_bandwidth -= 50
    assert kernel.bandwidth > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"bandwidth": 0.0}, {"temperature": -1.0}, {"truncation": 0.0}, {"truncation": 2.5},
        {"eval_mode": "hard"}, {"sample_per": "row"}, {"bandwidth": float("nan")},
    ],
)  # fmt: skip
def test_wrong_options_are_one_clear_error(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        KernelOptions(**wrong)
