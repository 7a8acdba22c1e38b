"""CollapseMonitor on two processes with unequal rows measures the rows of both together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_ssl.callbacks import CollapseMonitor
from lit_ssl.metrics import feature_std, rankme

ROWS = (11, 5)


def rows():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(sum(ROWS), 2, generator=generator) @ torch.ones(2, 6)  # of rank 1
    features = flat + 1e-3 * torch.randn(sum(ROWS), 6, generator=generator)
    return features, torch.randn(sum(ROWS), 9, generator=generator).softmax(dim=1)


def measured(features, targets):
    monitor = CollapseMonitor()
    monitor._collect(features, targets)
    return monitor._measure()


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    collectives = []
    reduce = dist.all_reduce
    dist.all_reduce = lambda tensor: (collectives.append(tensor.numel()), reduce(tensor))
    found = measured(*(part.split(ROWS)[rank] for part in rows()))
    torch.save((found, collectives), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_unequal_rows_of_two_processes_count_as_one_window(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=2)
    (first, collectives), (second, _) = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    assert first == second
    features, targets = rows()
    (values, limits), (alone, alone_limits) = first, measured(features, targets)
    assert values == pytest.approx(alone, rel=1e-6)
    assert limits == alone_limits == {"used_prototypes": 9, "rankme": 6, "feature_std": 1}
    assert values["rankme"] == pytest.approx(rankme(features).item(), rel=1e-6)
    assert values["feature_std"] == pytest.approx(feature_std(features).item(), rel=1e-5)
    assert values["used_prototypes"] == len(targets.argmax(dim=1).unique())
    assert collectives == [6 * 6 + 6 + 6 + 1 + (9 + 1) + 9]  # sums, never rows
