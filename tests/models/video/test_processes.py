"""A discriminator on two processes learns as on one, and compiled as it is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from lit_ssl.losses import hinge_d_loss
from lit_ssl.models import ClipDiscriminator, DVDGenerator, UpsamplingGenerator

STEPS = 2


def problem():
    torch.manual_seed(2)
    d = ClipDiscriminator(8, 3, num_classes=2, channels=2).double()
    return d, torch.randn(STEPS, 2, 4, 3, 3, 8, 8).double(), torch.randint(0, 2, (STEPS, 4))


def train(module, videos, labels):
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for (real, fake), y in zip(videos, labels, strict=True):
        # both in one call: one step of the power method
        scores = module(torch.cat([real, fake]), torch.cat([y, y])).chunk(2)
        optimizer.zero_grad()
        hinge_d_loss(*scores).backward()
        optimizer.step()


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    d, videos, labels = problem()
    parallel = DistributedDataParallel(d)
    train(parallel, videos[:, :, rank::2], labels[:, rank::2])
    torch.save(d.state_dict(), Path(folder) / f"{rank}.pt")
    dist.barrier()
    del parallel  # its threads must end before the group does
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=2)
    d, videos, labels = problem()
    start = deepcopy(d.state_dict())
    train(d, videos, labels)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in d.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9)
            assert not value.equal(start[name])


@pytest.mark.slow
def test_compiled():
    z, y = torch.randn(2, 120), torch.tensor([0, 0])
    for network, inputs in (
        (DVDGenerator(2, 8, channels=1), (z, y)),
        (UpsamplingGenerator(channels=1), (z, y, torch.randn(2, 2, 3, 4, 4))),
        (ClipDiscriminator(8, 2, channels=1), (torch.randn(2, 2, 3, 8, 8), y)),
    ):
        same = deepcopy(network)
        compiled = torch.compile(same, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            torch.testing.assert_close(compiled(*inputs), network(*inputs))
        for name, value in network.state_dict().items():  # running statistics, vectors
            torch.testing.assert_close(same.state_dict()[name], value)
