"""Batch normalisation over processes: moments, running statistics and gradients of all rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lit_ssl.models.video.replicas import JoinedBatchNorm2d, join_batch_norms_


def rows():
    torch.manual_seed(0)
    return torch.randn(7, 3, 2, 2) * 3 + 1


def cotangent():
    torch.manual_seed(1)
    return torch.randn(7, 3, 2, 2)


def plain():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, -1.0, 3.0]))
    return norm


def run_rank(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3)
    norm = JoinedBatchNorm2d(plain())
    mine = [slice(0, 4), slice(4, 5), slice(5, 7)][rank]  # unequal shards, one of a single row
    inputs = rows()[mine].requires_grad_()
    out = norm(inputs)
    (out * cotangent()[mine]).sum().backward()
    state = {"mean": norm.running_mean, "var": norm.running_var}
    norm.eval()
    state |= {
        "out": out.detach(),
        "grad": inputs.grad,
        "weight": norm.weight.grad,
        "eval": norm(inputs).detach(),
    }
    torch.save(state, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_three_processes_equal_one_on_the_joined_batch(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=3)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(3)]
    norm = plain()
    inputs = rows().requires_grad_()
    out = norm(inputs)
    (out * cotangent()).sum().backward()
    norm.eval()
    torch.testing.assert_close(torch.cat([r["out"] for r in ranks]), out.detach())
    torch.testing.assert_close(torch.cat([r["grad"] for r in ranks]), inputs.grad)
    torch.testing.assert_close(torch.cat([r["eval"] for r in ranks]), norm(inputs).detach())
    torch.testing.assert_close(sum(r["weight"] for r in ranks), norm.weight.grad)
    for r in ranks:
        torch.testing.assert_close(r["mean"], norm.running_mean)
        torch.testing.assert_close(r["var"], norm.running_var)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_it_is_the_plain_one(momentum):
    layer = nn.BatchNorm2d(3, affine=False, momentum=momentum)
    joined = nn.Sequential(nn.BatchNorm2d(3, affine=False, momentum=momentum))
    join_batch_norms_(joined)
    assert isinstance(joined[0], JoinedBatchNorm2d)
    for _ in range(2):
        torch.testing.assert_close(joined(rows()), layer(rows()))
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(joined[0].state_dict()[name], value)
    torch.testing.assert_close(joined.eval()(rows()), layer.eval()(rows()))
