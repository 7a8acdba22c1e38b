"""Group DRO on several processes is group DRO on the joined batch, or free of communication."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from lit_ssl.losses import GroupDROLoss

GROUPS, STEPS, BATCH = 4, 5, 12


def stream(soft):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(STEPS, BATCH, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (STEPS, BATCH), generator=generator)
    groups = torch.randint(0, GROUPS - 1, (STEPS, BATCH), generator=generator)  # one is absent
    shares = torch.rand(STEPS, BATCH, GROUPS, generator=generator, dtype=torch.float64)
    return logits, labels, shares / shares.sum(-1, keepdim=True) if soft else groups


def run(logits, labels, groups, gather=True):
    """Group weights and gradients of all steps."""
    loss = GroupDROLoss(GROUPS, 0.1, 2.0, [30, 20, 5, 2], gather=gather)
    result = []
    for x, y, g in zip(logits, labels, groups, strict=True):
        x = x.clone().requires_grad_()
        output = loss(F.cross_entropy(x, y, reduction="none"), g)
        output.loss.backward()
        result.append((output.group_weights, x.grad))
    return result


def run_rank(rank, folder, world, soft):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    mine = [part[:, rank::world] for part in stream(soft)]
    gathered = run(*mine)
    reduce, dist.all_reduce = dist.all_reduce, None  # any call would raise
    local = run(*mine, gather=False)
    dist.all_reduce = reduce
    torch.save((gathered, local), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize(("world", "soft"), [(2, False), (3, True)])
def test_processes_equal_one_on_the_joined_batch(tmp_path, world, soft):
    mp.spawn(run_rank, (str(tmp_path), world, soft), nprocs=world)
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in range(world)]
    for step, (weights, gradient) in enumerate(run(*stream(soft))):
        for rank, (gathered, _) in enumerate(ranks):
            torch.testing.assert_close(gathered[step][0], weights, rtol=1e-6, atol=1e-7)
            # data-parallel training divides by the number of processes
            mine = gathered[step][1] / world
            torch.testing.assert_close(mine, gradient[rank::world], rtol=1e-6, atol=1e-9)
    for rank, (_, local) in enumerate(ranks):
        alone = run(*[part[:, rank::world] for part in stream(soft)])
        torch.testing.assert_close(local, alone)
