"""Masked language modelling: no masked token, several processes, half precision; VQA beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from lit_ssl.losses import MaskedLMLoss, gather_masked, vqa_loss


def batch(rows=6, length=5, dim=7):
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(rows, length, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 11, (rows, length), generator=generator)
    labels[torch.rand(rows, length, generator=generator) < 0.6] = -100
    labels[0] = torch.arange(length)  # so that processes have different counts
    return states, labels


@pytest.mark.parametrize("global_mean", [True, False])
def test_gathering_first_changes_nothing(global_mean):
    states, labels = batch()
    head = torch.nn.Linear(7, 11).double()
    loss = MaskedLMLoss(global_mean)
    few, ids = gather_masked(states, labels)
    assert len(few) == len(ids) == (labels != -100).sum()
    gathered = loss(head(few), ids)
    torch.testing.assert_close(gathered, loss(head(states), labels))
    torch.testing.assert_close(gathered, F.cross_entropy(head(states).mT, labels))


@pytest.mark.parametrize("gathered", [True, False])
def test_without_masked_tokens_the_loss_is_zero_and_the_head_keeps_a_gradient(gathered):
    states, labels = torch.randn(2, 3, 7), torch.full((2, 3), -100)
    head = torch.nn.Linear(7, 11)
    states, labels = gather_masked(states, labels) if gathered else (states, labels)
    loss = MaskedLMLoss()(head(states), labels)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in head.parameters())


def test_half_precision_is_summed_in_float32():
    logits = torch.randn(40, 300).bfloat16()
    labels = torch.arange(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = MaskedLMLoss()(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), labels))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"labels must be \[2, 3\] for states \[2, 3, 4\]"):
        gather_masked(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"labels must be \[2\] for logits"):
        MaskedLMLoss()(torch.zeros(2, 9), torch.zeros(3, dtype=torch.long))


def run_rank(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3)
    torch.manual_seed(0)
    head = torch.nn.Linear(7, 11).double()
    states, labels = (part[rank::3] for part in batch())
    if rank == 1:
        labels = torch.full_like(labels, -100)
    loss = MaskedLMLoss()(head(gather_masked(states, labels)[0]), gather_masked(states, labels)[1])
    loss.backward()
    torch.save((loss.detach(), head.weight.grad), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_three_processes_equal_one_on_the_joined_batch(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=3)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(3)]
    torch.manual_seed(0)
    head = torch.nn.Linear(7, 11).double()
    states, labels = batch()
    labels[1::3] = -100
    loss = MaskedLMLoss()(head(states), labels)
    loss.backward()
    torch.testing.assert_close(sum(r[0] for r in ranks) / 3, loss.detach())
    torch.testing.assert_close(sum(r[1] for r in ranks) / 3, head.weight.grad)


def test_vqa_is_the_mean_over_questions_and_the_sum_over_answers():
    logits = torch.randn(3, 5)
    targets = torch.tensor([[1.0, 0.3, 0, 0, 0], [0] * 5, [0, 0, 0, 0.6, 0.9]])
    p = logits.sigmoid()
    by_hand = -(targets * p.log() + (1 - targets) * (1 - p).log()).sum(1).mean()
    torch.testing.assert_close(vqa_loss(logits, targets), by_hand)
    with pytest.raises(ValueError, match=r"logits and targets \[B, A\]"):
        vqa_loss(logits, targets[:, :4])
