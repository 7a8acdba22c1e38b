"""SuNCEt, NT-Xent and RoPAWS against the reference code, and on two processes."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp

from lit_ssl.losses import NTXentLoss, RoPAWSLoss, SuNCEtLoss, ropaws_predictions

CLOSE = {"rtol": 1e-6, "atol": 5e-7}


def test_suncet_equals_the_reference(golden):
    data = golden("paws/suncet")
    z = data["z"].clone().requires_grad_()
    loss = SuNCEtLoss(0.1)(z, data["labels"].argmax(1))
    loss.backward()
    torch.testing.assert_close(loss.detach(), data["suncet"], **CLOSE)
    torch.testing.assert_close(z.grad, data["grad_z"], **CLOSE)
    with_more_columns = SuNCEtLoss(0.1)(z, data["labels"].argmax(1), num_classes=9)
    torch.testing.assert_close(with_more_columns, loss)


def test_nt_xent_equals_the_reference(golden):
    data = golden("paws/suncet")
    views = data["u"].unflatten(0, (2, -1)).clone().requires_grad_()
    loss = NTXentLoss(0.1, detach_others=True)(views)
    loss.backward()
    torch.testing.assert_close(loss.detach(), data["simclr"], **CLOSE)
    torch.testing.assert_close(views.grad.flatten(0, 1), data["grad_u"], **CLOSE)
    plain = NTXentLoss(0.1)(views)
    torch.testing.assert_close(plain, loss)
    assert (torch.autograd.grad(plain, views)[0] - views.grad).norm() > 0.1


def test_suncet_by_hand():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([5, 5, 2, 2])
    own, other = torch.e, 1.0
    expected = -torch.log(torch.tensor(own / (own + 2 * other), dtype=torch.float64))
    torch.testing.assert_close(SuNCEtLoss(1.0)(z, labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_an_image_alone_in_its_class_does_not_count(smoothing):
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 2, 1, 1])
    loss = SuNCEtLoss(0.5, smoothing)(z, labels, num_classes=3)
    unit = torch.nn.functional.normalize(z, dim=1)
    similar = (unit @ unit.T / 0.5).exp().fill_diagonal_(0)
    share = similar / similar.sum(dim=1, keepdim=True)
    smooth = (1 - smoothing) * torch.eye(3, dtype=torch.float64)[labels] + smoothing / 3
    terms = -(smooth * (share @ smooth).log()).sum(dim=1)
    torch.testing.assert_close(loss, terms[labels != 2].mean())


def test_images_that_are_all_alone_in_their_classes_are_refused():
    z = torch.randn(3, 4, requires_grad=True)
    for labels in (torch.arange(3), torch.arange(1)):
        with pytest.raises(ValueError, match=rf"all {len(labels)} labelled .*images_per_class"):
            SuNCEtLoss()(z[: len(labels)], labels)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="temperature must be positive"):
        SuNCEtLoss(0.0)
    with pytest.raises(ValueError, match=r"two views \[2, B, D\], got \[3, 4, 5\]"):
        NTXentLoss()(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="prior_temperature > 0"):
        RoPAWSLoss(prior_temperature=0.0)


def ropaws_inputs(data):
    anchors = data["anchor_views"].unflatten(0, (4, -1)).clone().requires_grad_()
    supports = data["supports"].clone().requires_grad_()
    targets = data["target_views"].unflatten(0, (2, -1)).flip(0)  # the file's are swapped already
    return anchors, supports, data["labels"].argmax(1), targets


def test_ropaws_equals_the_reference(golden):
    data = golden("paws/ropaws")
    anchors, supports, labels, targets = ropaws_inputs(data)
    out = RoPAWSLoss()(anchors, supports, labels, targets, supports)
    torch.testing.assert_close(out.consistency, data["loss"], **CLOSE)
    torch.testing.assert_close(out.me_max, data["me_max"], **CLOSE)
    torch.testing.assert_close(out.targets.flatten(0, 1), data["targets_final"], **CLOSE)
    grads = torch.autograd.grad(out.loss, (anchors, supports))
    torch.testing.assert_close(grads[0].flatten(0, 1), data["grad_anchor_views"], **CLOSE)
    torch.testing.assert_close(grads[1], data["grad_supports"], **CLOSE)

    normalize = torch.nn.functional.normalize
    queries = normalize(data["target_views"].unflatten(0, (2, -1)), dim=2)
    raw = torch.stack(
        [ropaws_predictions(view, normalize(data["supports"]), data["labels"]) for view in queries]
    )
    torch.testing.assert_close(raw.flatten(0, 1), data["raw_pseudo"], **CLOSE)
    torch.testing.assert_close(raw.sum(2).mean(0), data["p_in"], **CLOSE)
    spread = raw + (1 - raw.sum(2, keepdim=True)) / raw.shape[2]
    torch.testing.assert_close(spread.flatten(0, 1), data["pseudo"], **CLOSE)


def test_ropaws_trusts_images_near_a_support_more():
    supports = torch.eye(4)
    far = torch.tensor([[-1.0, -1.0, -1.0, -1.0]])
    queries = torch.nn.functional.normalize(torch.cat([supports, far]))
    mass = ropaws_predictions(queries, supports, torch.eye(4)).sum(1)
    assert mass[:4].min() > 0.99
    assert mass[4] < 0.01


def run_rank(rank, folder, z, labels, views, data):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    half = len(z) // 2
    own = z[rank * half : (rank + 1) * half].clone().requires_grad_()
    suncet = SuNCEtLoss(0.1)(own, labels[rank * half : (rank + 1) * half])
    suncet.backward()
    mine = views[:, rank * 3 : (rank + 1) * 3].clone().requires_grad_()
    simclr = NTXentLoss(0.1)(mine)
    simclr.backward()
    detached = NTXentLoss(0.1, detach_others=True)(mine)
    anchors, supports, classes, targets = ropaws_inputs(data)
    few = slice(rank * 3, (rank + 1) * 3)
    rows = slice(rank * 4, (rank + 1) * 4)
    ropaws = RoPAWSLoss()(
        anchors[:, few], supports[rows], classes[rows], targets[:, few], supports[rows]
    )
    result = (suncet.detach(), own.grad, simclr.detach(), mine.grad, detached.detach(),
              ropaws.consistency.detach(), ropaws.me_max.detach(), ropaws.targets)  # fmt: skip
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_equal_one_on_the_joined_batch(golden, tmp_path):
    z = torch.randn(12, 5, dtype=torch.float64)
    labels = torch.arange(3).repeat(4)
    views = torch.randn(2, 6, 5, dtype=torch.float64)
    data = golden("paws/ropaws")
    mp.spawn(run_rank, (str(tmp_path), z, labels, views, data), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    mean = [(a + b) / 2 for a, b in zip(first[:7], second[:7], strict=True)]

    z.requires_grad_(), views.requires_grad_()
    suncet, simclr = SuNCEtLoss(0.1)(z, labels), NTXentLoss(0.1)(views)
    (suncet + simclr).backward()
    torch.testing.assert_close(mean[0], suncet.detach())
    torch.testing.assert_close(torch.cat([first[1], second[1]]) / 2, z.grad)
    for value in (mean[2], mean[4]):
        torch.testing.assert_close(value, simclr.detach())
    torch.testing.assert_close(torch.cat([first[3], second[3]], dim=1) / 2, views.grad)
    torch.testing.assert_close(mean[5], data["loss"], **CLOSE)
    torch.testing.assert_close(mean[6], data["me_max"], **CLOSE)
    targets = torch.cat([first[7], second[7]], dim=1).flatten(0, 1)
    torch.testing.assert_close(targets, data["targets_final"], **CLOSE)
