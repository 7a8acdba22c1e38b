"""Metrics by group: parity with WILDS, and the bound on predicted groups."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.metrics import GroupAccuracy, PredictorQuality


def test_waterbirds_as_in_wilds(golden):
    values = golden("robustness/group_metrics")
    y, place, pred = (values[f"wb_{name}"].long() for name in ("y", "place", "pred"))
    metric = GroupAccuracy(4, weights=[3498, 184, 56, 1057])
    for rows in torch.arange(len(y)).split(300):
        metric.update(pred[rows], y[rows], (2 * y + place)[rows])
    scores = metric.compute()
    assert torch.equal(scores.per_group.float(), values["wb_group_acc"])
    assert torch.equal(scores.worst.float(), values["wb_acc_wg"])
    assert torch.equal(scores.average.float(), values["wb_unweighted_micro_acc"])
    torch.testing.assert_close(scores.adjusted.float(), values["wb_adj_acc_avg"], atol=1e-7, rtol=0)


def test_overlapping_groups_as_in_wilds(golden):
    values = golden("robustness/group_metrics")
    y, pred = values["cc_y"].long(), values["cc_pred"].long()
    identity = values["cc_identities"].bool()
    classes = y[:, None] == torch.arange(2)
    membership = (identity[:, :, None] & classes[:, None, :]).flatten(1)
    metric = GroupAccuracy(16)
    metric.update(pred, y, membership)
    scores = metric.compute()
    assert torch.equal(scores.per_group.float(), values["cc_group_acc"].flatten())
    assert torch.equal(scores.sizes, values["cc_group_count"].flatten().long())
    assert torch.equal(scores.worst.float(), values["cc_acc_wg"])
    assert torch.equal(scores.average.float(), values["cc_acc_avg"])
    assert scores.adjusted.isnan()


def test_erm_stream_totals(golden):
    values = golden("robustness/erm_stream")
    metric = GroupAccuracy(4)
    for logits, y, g in zip(values["logits"], values["y"], values["g"], strict=True):
        metric.update(logits, y, g)
    scores = metric.compute()
    final = {"atol": 1e-6, "rtol": 0}  # the released code averages batch by batch, in float32
    torch.testing.assert_close(
        scores.per_group.nan_to_num().float(), values["final_avg_group_acc"], **final
    )
    torch.testing.assert_close(scores.average.float(), values["final_avg_acc"], **final)
    assert torch.equal(scores.sizes, values["final_processed_counts"].long())


def test_empty_groups_and_unknown_ones():
    metric = GroupAccuracy(3, weights=[1, 2, 3])
    assert metric.compute().worst.isnan()
    assert metric.compute().worst_group == -1
    metric.update(
        torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, -1]), torch.tensor([0, -1, 2, 2])
    )
    scores = metric.compute()
    assert scores.sizes.tolist() == [1, 0, 1]
    assert scores.per_group[1].isnan()
    assert scores.worst == 1
    assert scores.average.item() == pytest.approx(2 / 3)  # the row of no known group counts
    assert scores.adjusted == 1


def test_min_count_leaves_small_groups_out_of_the_worst():
    metric = GroupAccuracy(2, min_count=2)
    metric.update(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 1]), torch.tensor([0, 1, 1]))
    assert metric.compute().worst == 1
    assert metric.compute().worst_group == 1


def test_wrong_group_arguments():
    with pytest.raises(ValueError, match="one weight per group, got 2, 1 and"):
        GroupAccuracy(2, weights=[1.0])
    with pytest.raises(ValueError, match=r"groups \[B\] or \[B, 2\], got \[3\], \[3\] and \[2\]"):
        GroupAccuracy(2).update(torch.zeros(3), torch.zeros(3), torch.zeros(2))


def test_predictor_scores_by_hand():
    quality = PredictorQuality(2, 2)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    truth = torch.tensor([0, 0, 1, 1, 1, -1])
    guess = torch.tensor([0, 1, 1, 1, 1, 0])
    quality.update(guess, labels, truth)
    scores = quality.compute()
    assert scores.accuracy.item() == pytest.approx(4 / 5)
    assert scores.recall.tolist() == pytest.approx([0.5, 1, float("nan"), 1], nan_ok=True)
    assert scores.precision.tolist() == pytest.approx([1, 0.5, float("nan"), 1], nan_ok=True)
    assert scores.tv_bound.tolist() == [0.5, 0.5, 1, 0]
    assert scores.worst_recall == 0.5
    assert scores.sizes.tolist() == [2, 1, 0, 2]
    assert scores.predicted.tolist() == [1, 2, 0, 2]


def test_empty_predictor_scores_are_nan():
    assert PredictorQuality(2, 2).compute().worst_recall.isnan()


def test_bound_holds_for_any_loss():
    """|R_g(h) − R_ĝ(h)| ≤ 1 − min(precision, recall) for losses in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        n = int(torch.randint(5, 60, (1,), generator=generator))
        truth = torch.randint(0, 2, (n,), generator=generator)
        guess = torch.where(torch.rand(n, generator=generator) < 0.7, truth, 1 - truth)
        losses = torch.rand(n, generator=generator).round(decimals=1)
        quality = PredictorQuality(1, 2)
        quality.update(guess, torch.zeros(n, dtype=torch.int64), truth)
        bound = quality.compute().tv_bound
        for a in range(2):
            if (truth == a).any() and (guess == a).any():
                gap = (losses[truth == a].mean() - losses[guess == a].mean()).abs()
                assert gap <= bound[a] + 1e-6
