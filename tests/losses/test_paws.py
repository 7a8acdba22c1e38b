"""The loss of PAWS against the reference code, and its invariants."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from lit_ssl import distributed
from lit_ssl.losses import NTXentLoss, PAWSLoss, RoPAWSLoss, SuNCEtLoss, class_columns

# temperature, sharpening, smoothing, weight of me-max, number of small views
CASES = {
    "loss_basic": (0.1, 0.25, 0.0, 1.0, 0),
    "loss_multicrop": (0.1, 0.25, 0.1, 1.0, 6),
    "loss_no_memax": (0.2, 0.5, 0.1, 0.0, 2),
}
CLOSE = {"rtol": 1e-6, "atol": 5e-7}


def inputs(data, small):
    """Leaves (anchors, supports), labels, and the targets in the order of the anchors."""
    views = 2 + small
    anchors = data["anchor_views"].unflatten(0, (views, -1)).clone().requires_grad_()
    supports = data["anchor_supports"].clone().requires_grad_()
    targets = data["target_views"].unflatten(0, (2, -1)).flip(0)  # the file's are swapped already
    return anchors, supports, data["labels"].argmax(1), targets, data["target_supports"]


def random_case(views=4, batch=3, classes=3, per_class=2, width=8, dtype=torch.float64):
    anchors = torch.randn(views, batch, width, dtype=dtype)
    supports = torch.randn(classes * per_class, width, dtype=dtype)
    return anchors, supports, torch.arange(classes).repeat(per_class)


@pytest.mark.parametrize("extra_classes", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_the_reference(golden, case, extra_classes):
    data = golden(f"paws/{case}")
    tau, sharpening, smoothing, weight, small = CASES[case]
    loss = PAWSLoss(tau, sharpening, smoothing, weight)
    anchors, supports, labels, targets, target_supports = inputs(data, small)
    targets.requires_grad_()
    classes = data["labels"].shape[1]
    # Columns of classes that do not occur change nothing.
    columns = None if extra_classes is None else classes + extra_classes
    out = loss(anchors, supports, labels, targets, target_supports, columns)
    torch.testing.assert_close(out.consistency, data["loss"], **CLOSE)
    if weight:
        torch.testing.assert_close(out.me_max, data["me_max"], **CLOSE)
    torch.testing.assert_close(out.loss, data["loss"] + weight * data["me_max"], **CLOSE)
    for name, key in (("probs", "probs"), ("targets", "targets_final")):
        value = getattr(out, name)[..., :classes].flatten(0, 1)
        torch.testing.assert_close(value, data[key], **CLOSE)
        assert not getattr(out, name).requires_grad
    parts = {"total": out.loss, "xent": out.consistency}
    for part, value in (parts | ({"reg": out.me_max} if weight else {})).items():
        grads = torch.autograd.grad(value, (anchors, supports), retain_graph=True)
        for grad, key in zip(grads, ("anchor_views", "anchor_supports"), strict=True):
            expected = data[f"grad_{key}_{part}"]
            torch.testing.assert_close(grad.flatten(0, -2), expected, **CLOSE)
    out.loss.backward()
    assert targets.grad is None


def test_label_columns_equal_the_reference(golden):
    data = golden("paws/label_matrices")
    for name in ("m0", "m1", "m2"):  # m3 shows a defect of the reference: its rows sum to 1.1
        matrix = data[name]
        columns = class_columns(matrix.argmax(1))
        smoothing = 1 - float(matrix[0].max() - matrix[0].min())
        smooth = (1 - smoothing) * columns + smoothing / columns.shape[1]
        torch.testing.assert_close(smooth, matrix)
    labels = data["m3"].argmax(1)
    assert torch.equal(class_columns(labels).sum(1), torch.ones(len(labels)))
    assert class_columns(labels).shape[1] == len(labels.unique())


def test_one_matrix_for_both_branches_gives_the_same():
    anchors, supports, labels = random_case()
    loss = PAWSLoss()
    twice = loss(anchors, supports, labels, anchors[:2].clone(), supports.clone())
    once = loss(anchors, supports, labels)
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(one, two)


def test_order_of_supports_names_of_classes_and_scale_do_not_matter():
    anchors, supports, labels = random_case()
    loss = PAWSLoss()
    base = loss(anchors, supports, labels)
    order = torch.randperm(len(labels))
    torch.testing.assert_close(loss(anchors, supports[order], labels[order]).loss, base.loss)
    renamed = torch.tensor([70, 3, 12])[labels]
    torch.testing.assert_close(loss(anchors, supports, renamed).loss, base.loss)
    scale = torch.rand(len(supports), 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(loss(anchors * 7, supports * scale, labels).loss, base.loss)


def test_identical_supports_give_the_mean_label():
    anchors, supports, _ = random_case()
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    loss = PAWSLoss(label_smoothing=0.0)
    out = loss(anchors, supports[:1].expand(6, -1), labels)
    expected = torch.tensor([3, 2, 1], dtype=torch.float64) / 6
    torch.testing.assert_close(out.probs, expected.expand_as(out.probs))


def test_targets_are_swapped_and_small_views_get_the_mean_of_the_sharpened_ones():
    anchors, supports, labels = random_case()
    out = PAWSLoss(target_threshold=0.0)(anchors, supports, labels)
    sharp = out.probs[:2] ** 4 / (out.probs[:2] ** 4).sum(2, keepdim=True)
    torch.testing.assert_close(out.targets[0], sharp[1])
    torch.testing.assert_close(out.targets[1], sharp[0])
    torch.testing.assert_close(out.targets[2:], sharp.mean(0).expand(2, -1, -1))


def test_small_entries_of_targets_vanish_without_renormalisation():
    anchors, supports, labels = random_case()
    whole = PAWSLoss(target_threshold=0.0)(anchors, supports, labels).targets
    cut = PAWSLoss(target_threshold=0.05)(anchors, supports, labels).targets
    small = whole < 0.05
    assert small.any()
    assert torch.equal(cut[small], torch.zeros(int(small.sum()), dtype=cut.dtype))
    assert torch.equal(cut[~small], whole[~small])


def test_supports_are_trained_and_me_max_has_its_minimum_at_the_uniform_mean():
    anchors, supports, labels = random_case()
    supports.requires_grad_()
    PAWSLoss(me_max_weight=0.0)(anchors, supports, labels).loss.backward()
    assert supports.grad.norm() > 1e-3
    uniform = torch.full((5,), 0.2)
    assert PAWSLoss().regularizer(uniform).item() == pytest.approx(-math.log(5), rel=1e-6)
    assert PAWSLoss().regularizer(torch.eye(5)[0]).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_of_many_classes_stay_finite(dtype):
    # 960 classes: p is about 1e-3, whose fourth power underflows in half precision.
    anchors = torch.randn(4, 8, 64, dtype=dtype, requires_grad=True)
    supports = torch.randn(960, 64, dtype=dtype)
    loss = PAWSLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = loss(anchors, supports, torch.arange(960))
    assert out.loss.dtype == torch.float32
    exact = loss(anchors.detach().double(), supports.double(), torch.arange(960))
    torch.testing.assert_close(out.loss.double(), exact.loss, rtol=1e-3, atol=1e-3)
    out.loss.backward()
    assert torch.isfinite(anchors.grad).all()


def test_tiny_temperatures_and_missing_smoothing_stay_finite():
    anchors, supports, labels = random_case(dtype=torch.float32)
    anchors.requires_grad_()
    out = PAWSLoss(temperature=1e-3, label_smoothing=0.0)(anchors, supports, labels)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(anchors.grad).all()


def test_wrong_arguments_are_named():
    anchors, supports, labels = random_case()
    loss = PAWSLoss()
    with pytest.raises(ValueError, match=r"anchors \[V, B, D\] with V >= 2 views"):
        loss(anchors[:1], supports, labels)
    with pytest.raises(ValueError, match="one label per support, got 6 supports"):
        loss(anchors, supports, labels[:3])
    with pytest.raises(ValueError, match="together, or neither"):
        loss(anchors, supports, labels, anchors[:2])
    with pytest.raises(ValueError, match=r"needs targets \[2, 3, D\]"):
        loss(anchors, supports, labels, anchors[:2, :2], supports)
    with pytest.raises(ValueError, match="run from -1 to 1, expected 0 to 2"):
        loss(anchors, supports, torch.tensor([0, 1, -1, 0, 1, 1]), num_classes=3)
    with pytest.raises(ValueError, match="sharpen_temperature must be positive"):
        PAWSLoss(sharpen_temperature=0.0)
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        PAWSLoss(label_smoothing=1.0)


# ------------------------------------------------------------------ several processes

# smoothing and number of views of the files
TWO_PROCESSES = {"unique": (0.1, 4), "shared": (0.0, 2)}


def encode(x, w1, w2):
    hidden = torch.tanh(x @ w1)
    return hidden, hidden @ w2


def loss_of(data, rank, loss, views):
    """Loss and gradients of one rank of a golden file."""
    w1, w2 = (data[name].clone().requires_grad_() for name in ("W1", "W2"))
    anchor_h, anchor_z = encode(data[f"x_unlabeled_rank{rank}"], w1, w2)
    support_h, support_z = encode(data[f"x_support_rank{rank}"], w1, w2)
    rows = len(support_h)
    labels = data["labels"].argmax(1)[rank * rows : (rank + 1) * rows]
    anchors = anchor_z.unflatten(0, (views, -1))
    targets = anchor_h.unflatten(0, (views, -1))[:2]
    out = loss(anchors, support_z, labels, targets, support_h)
    out.loss.backward()
    return {"loss": out.consistency.detach(), "me_max": out.me_max.detach(),
            "W1": w1.grad, "W2": w2.grad}  # fmt: skip


def run_golden(rank, folder, files):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    import lit_ssl.losses.paws as module

    real = module.all_gather_rows
    results = {}
    for case, (smoothing, views) in TWO_PROCESSES.items():
        loss = PAWSLoss(label_smoothing=smoothing)
        module.all_gather_rows = real
        results[case] = {"right": loss_of(files[case], rank, loss, views)}
        # What a gather without gradient would give
        module.all_gather_rows = lambda x: real(x.detach())
        results[case]["detached"] = loss_of(files[case], rank, loss, views)
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_equal_the_reference(golden, tmp_path):
    files = {case: golden(f"paws/dist_w2_{case}") for case in TWO_PROCESSES}
    mp.spawn(run_golden, (str(tmp_path), files), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for case, data in files.items():
        check_golden(data, [results[case] for results in ranks])


def check_golden(data, ranks):
    for rank, got in enumerate(ranks):
        torch.testing.assert_close(got["right"]["loss"], data["loss"][rank], **CLOSE)
        torch.testing.assert_close(got["right"]["me_max"], data["me_max"][rank], **CLOSE)
        for name in ("W1", "W2"):
            expected = data[f"local_grad_{name}_rank{rank}"]
            torch.testing.assert_close(got["right"][name], expected, rtol=1e-5, atol=1e-6)
    for name in ("W1", "W2"):
        mean = torch.stack([got["right"][name] for got in ranks]).mean(0)
        torch.testing.assert_close(mean, data[f"mean_grad_{name}"], rtol=1e-5, atol=1e-6)
        wrong = torch.stack([got["detached"][name] for got in ranks]).mean(0)
        assert (wrong - mean).norm() > 0.01 * mean.norm()


def run_joined(rank, folder, world, batch):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    anchors, supports, labels = (part[rank].clone() for part in batch)
    anchors.requires_grad_(), supports.requires_grad_()
    out = PAWSLoss()(anchors, supports, labels, num_classes=7)
    out.loss.backward()
    local = PAWSLoss(gather=False)(anchors.detach(), supports.detach(), labels).loss
    torch.save((out.loss.detach(), anchors.grad, supports.grad, local), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_processes_equal_one_on_the_joined_batch(tmp_path):
    world = 4
    parts = [random_case() for _ in range(world)]
    batch = [torch.stack(part) for part in zip(*parts, strict=True)]
    batch[2] = (batch[2] + torch.arange(world)[:, None]) % 7  # other classes on each process
    mp.spawn(run_joined, (str(tmp_path), world, batch), nprocs=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    anchors = torch.cat(list(batch[0]), dim=1).requires_grad_()  # [V, W * B, D]
    supports = batch[1].flatten(0, 1).requires_grad_()
    whole = PAWSLoss()(anchors, supports, batch[2].flatten())
    whole.loss.backward()
    torch.testing.assert_close(torch.stack([r[0] for r in ranks]).mean(), whole.loss.detach())
    # Each process' gradient belongs to W times its share of the mean.
    torch.testing.assert_close(torch.cat([r[1] for r in ranks], dim=1) / world, anchors.grad)
    torch.testing.assert_close(torch.cat([r[2] for r in ranks]) / world, supports.grad)
    for part, got in zip(parts, ranks, strict=True):
        alone = PAWSLoss(gather=False)(*part).loss
        torch.testing.assert_close(got[3], alone)


def test_without_a_process_group_nothing_is_gathered():
    x = torch.randn(3, 2)
    assert distributed.all_gather_rows(x) is x
    assert distributed.process_rank() == 0


@pytest.mark.parametrize("loss", [PAWSLoss(), RoPAWSLoss()], ids=["paws", "ropaws"])
def test_the_host_never_reads_from_the_device(loss, monkeypatch):
    # Tensors on the meta device have no values: any read would raise. It knows no autocast.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    with torch.device("meta"):
        anchors = torch.empty(4, 3, 8, requires_grad=True)
        supports, labels = torch.empty(6, 8), torch.zeros(6, dtype=torch.int64)
        targets = torch.empty(2, 3, 8)
    out = loss(anchors, supports, labels, targets, supports, num_classes=5)
    out.loss.backward()
    assert out.targets.shape == (4, 3, 5)
    SuNCEtLoss()(anchors[0], labels[:3], num_classes=5).backward()
    NTXentLoss()(anchors[:2]).backward()
