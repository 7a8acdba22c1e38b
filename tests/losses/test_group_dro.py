"""Group DRO: parity with the released code, and the properties of the algorithm."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lit_ssl import GroupDROLoss
from lit_ssl.losses import group_means

STREAMS = [
    "gdro_stream_plain",
    "gdro_stream_plain_balanced_eta01",
    "gdro_stream_adj2",
    "gdro_stream_normalized",
]


def cross_entropy(logits, labels):
    return F.cross_entropy(logits.float(), labels, reduction="none")


def loss_of(values):
    return GroupDROLoss(
        len(values["group_counts"]),
        step_size=float(values["eta"]),
        adjustment=values["adj"].tolist(),
        group_counts=values["group_counts"],
        normalize=bool(values.get("normalize_loss", False)),
        gamma=float(values.get("gamma", 0.1)),
    )


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_the_released_code(name, golden):
    values = golden(f"robustness/{name}")
    criterion = loss_of(values)
    for step, (logits, y, g) in enumerate(
        zip(values["logits"], values["y"], values["g"], strict=True)
    ):
        logits = logits.clone().requires_grad_()
        output = criterion(cross_entropy(logits, y), g)
        (grad,) = torch.autograd.grad(output.loss, logits)
        expected = values["loss_without_adjustment_constant"][step]
        torch.testing.assert_close(output.loss, expected, atol=2e-6, rtol=0)
        torch.testing.assert_close(grad, values["grad"][step], atol=1e-6, rtol=0)
        weights = values["adv_probs"][step]
        torch.testing.assert_close(criterion.group_weights, weights, atol=1e-6, rtol=0)
        raw = values["group_loss_raw"][step]
        torch.testing.assert_close(output.group_losses, raw, atol=2e-6, rtol=0)
        assert torch.equal(output.group_counts, values["group_count"][step])
        running = criterion.running_losses
        torch.testing.assert_close(running, values["exp_avg_loss"][step], atol=2e-6, rtol=0)


def test_erm_stream_has_the_same_group_losses(golden):
    values = golden("robustness/erm_stream")
    for step, (logits, y, g) in enumerate(
        zip(values["logits"], values["y"], values["g"], strict=True)
    ):
        losses = cross_entropy(logits, y)
        means, counts = group_means(losses, g, 4)
        torch.testing.assert_close(losses.mean(), values["loss"][step], atol=2e-6, rtol=0)
        torch.testing.assert_close(means, values["group_loss_raw"][step], atol=2e-6, rtol=0)
        assert torch.equal(counts, values["group_count"][step])


def test_soft_groups_of_the_released_code(golden):
    values = golden("robustness/gdro_soft")
    criterion = loss_of(values)
    for step in range(len(values["loss"])):
        logits = values["logits"][step].clone().requires_grad_()
        losses = F.cross_entropy(logits, values["y"][step], reduction="none")
        output = criterion(losses, values["group_probs"][step])
        (grad,) = torch.autograd.grad(output.loss, logits)
        close = {"atol": 1e-6, "rtol": 0}
        torch.testing.assert_close(output.loss, values["loss"][step], **close)
        torch.testing.assert_close(grad, values["grad"][step], **close)
        torch.testing.assert_close(output.group_weights, values["adv_probs"][step].float(), **close)
        torch.testing.assert_close(output.group_counts, values["soft_count"][step], **close)


def test_training_run_of_the_released_code(golden):
    values = golden("robustness/gdro_train_linear")
    model = torch.nn.Linear(6, 2)
    with torch.no_grad():
        model.weight.copy_(values["W0"])
        model.bias.copy_(values["b0"])
    criterion = loss_of(values)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=float(values["lr"]),
        momentum=float(values["momentum"]),
        weight_decay=float(values["weight_decay"]),
    )
    quarters = []
    for step, rows in enumerate(values["batch_idx"]):
        optimizer.zero_grad()
        output = criterion(cross_entropy(model(values["X"][rows]), values["y"][rows]),
                           values["g"][rows])  # fmt: skip
        output.loss.backward()
        optimizer.step()
        torch.testing.assert_close(output.loss, values["loss"][step], atol=2e-6, rtol=0)
        torch.testing.assert_close(
            output.group_weights, values["adv_probs"][step], atol=1e-6, rtol=0
        )
        if (step + 1) % 50 == 0:
            quarters.append(torch.cat([model.weight.flatten(), model.bias]).detach().clone())
    expected = values["params_at_quarters"]
    torch.testing.assert_close(torch.stack(quarters), expected, atol=1e-6, rtol=0)


def test_one_group_is_plain_training():
    losses = torch.rand(5)
    torch.testing.assert_close(
        GroupDROLoss(1, step_size=1.0)(losses, torch.zeros(5, dtype=torch.int64)).loss,
        losses.mean(),
    )


def test_without_steps_all_groups_count_alike_and_absent_ones_as_zero():
    output = GroupDROLoss(4, step_size=0.0)(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 1]))
    assert output.loss.item() == pytest.approx((2 + 8 + 0 + 0) / 4)


def test_permuted_groups_permute_the_weights():
    order = torch.tensor([2, 0, 3, 1])
    one, other = (GroupDROLoss(4, step_size=0.3) for _ in range(2))
    for _ in range(5):
        losses, groups = torch.rand(12), torch.randint(0, 4, (12,))
        a, b = one(losses, groups), other(losses, order[groups])
        torch.testing.assert_close(a.loss, b.loss)
        torch.testing.assert_close(a.group_weights, b.group_weights[order])


def test_one_hot_shares_are_hard_groups():
    losses, groups = torch.rand(12), torch.randint(0, 4, (12,))
    hard = GroupDROLoss(4, step_size=0.3)(losses, groups)
    soft = GroupDROLoss(4, step_size=0.3)(losses, F.one_hot(groups, 4).float())
    assert torch.equal(hard.loss, soft.loss)
    assert torch.equal(hard.group_weights, soft.group_weights)


def test_adjustment_shifts_the_log_weights_and_may_be_zero_for_some_groups():
    with pytest.warns(UserWarning, match="is 0 for some groups"):
        adjusted = GroupDROLoss(2, 0.1, adjustment=[4.0, 0.0], group_counts=[16, 100])
    plain = GroupDROLoss(2, 0.1)
    losses, groups = torch.tensor([1.0, 2.0]), torch.tensor([0, 1])
    with_it, without = adjusted(losses, groups), plain(losses, groups)
    shift = adjusted.log_q - plain.log_q
    assert (shift[0] - shift[1]).item() == pytest.approx(0.1 * 4 / math.sqrt(16), abs=1e-6)
    # the constant q · C/√n is not part of the loss
    assert with_it.loss.item() == pytest.approx((with_it.group_weights * losses).sum().item())
    assert without.loss < with_it.group_weights.sum() * 2


def test_absent_groups_lose_weight_or_hold_it():
    """A rare group with the highest loss loses its weight without a balanced sampler."""
    generator = torch.Generator().manual_seed(0)
    zero, hold = (GroupDROLoss(3, 0.05, absent=absent) for absent in ("zero", "hold"))
    for step in range(80):
        groups = torch.randint(0, 2, (24,), generator=generator)
        groups[0] = 2 if step % 8 == 0 else 0
        losses = torch.where(groups == 2, 2.0, 1.0)
        zero(losses, groups)
        hold(losses, groups)
    assert zero.group_weights[2] < 0.1
    assert hold.group_weights[2] > 1 / 3


def test_an_empty_group_has_no_weight_and_everything_stays_finite():
    criterion = GroupDROLoss(3, 0.1, adjustment=1.0, group_counts=[4, 0, 5])
    losses = torch.rand(6, requires_grad=True)
    output = criterion(losses, torch.tensor([0, 2, 2, 0, -1, -1]))
    output.loss.backward()
    assert output.group_weights[1] == 0
    assert output.loss.isfinite()
    assert losses.grad.isfinite().all()
    assert losses.grad[-2:].tolist() == [0, 0]  # rows without a group do not count


def test_a_batch_without_any_known_group_has_no_loss():
    losses = torch.rand(3, requires_grad=True)
    for absent in ("zero", "hold"):
        output = GroupDROLoss(2, 0.1, absent=absent, normalize=True)(losses, torch.full((3,), -1))
        assert output.loss == 0
        assert output.group_weights.tolist() == pytest.approx([0.5, 0.5])


def test_weights_do_not_move_in_evaluation():
    criterion = GroupDROLoss(2, 1.0).eval()
    output = criterion(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    assert output.group_weights.tolist() == [0.5, 0.5]
    assert output.loss.item() == 2


def test_large_losses_neither_overflow_nor_vanish():
    criterion = GroupDROLoss(2, 10.0)
    for _ in range(100):
        criterion(torch.tensor([1.0, 50.0]), torch.tensor([0, 1]))
    assert criterion.log_q.isfinite().all()
    assert criterion.group_weights.tolist() == pytest.approx([0, 1])


def test_low_precision_does_not_reach_the_weights():
    criterion = GroupDROLoss(2, 0.01, group_counts=[1001, 4003]).to(torch.bfloat16)
    assert criterion.log_q.dtype == torch.float64
    assert criterion.group_counts.dtype == torch.float32
    assert criterion.group_counts.tolist() == [1001, 4003]
    reference = GroupDROLoss(2, 0.01)
    for _ in range(50):
        losses, groups = torch.rand(8), torch.randint(0, 2, (8,))
        reference(losses, groups)
        with torch.autocast("cpu", torch.bfloat16):
            output = criterion(losses, groups)
        assert output.loss.dtype == torch.float32
    torch.testing.assert_close(criterion.group_weights, reference.group_weights, atol=1e-6, rtol=0)


def test_other_group_sizes_restart_the_weights_and_equal_ones_do_not():
    criterion = GroupDROLoss(2, 1.0, group_counts=[3, 5])
    criterion(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    moved = criterion.group_weights.clone()
    criterion.set_group_counts([3, 5])
    assert torch.equal(criterion.group_weights, moved)
    criterion.set_group_counts([3, 6])
    assert criterion.group_weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "options", [{}, {"absent": "hold"}, {"adjustment": 2.0, "normalize": True}]
)
@pytest.mark.parametrize("sizes", [[8] * 8, [1, 5, 2, 13], [3] * 3 + [1]])
def test_accumulated_batches_move_the_weights_as_one_batch_does(options, sizes):
    counts = [40.0, 9.0, 2.0, 30.0]
    whole, parts = (GroupDROLoss(4, 0.3, group_counts=counts, **options) for _ in range(2))
    for step in range(6):
        losses = torch.rand(sum(sizes), dtype=torch.float64)
        groups = torch.randint(0, 3 + step % 2, (sum(sizes),))  # the last one only every other step
        groups[: step % 3] = -1
        whole(losses, groups)
        for i, (loss, group) in enumerate(
            zip(losses.split(sizes), groups.split(sizes), strict=True)
        ):
            parts(loss, group, part=(i, len(sizes)))
        torch.testing.assert_close(parts.log_q, whole.log_q, atol=1e-12, rtol=0)


def test_accumulated_batches_have_the_gradient_of_one_batch():
    """Exactly where batches are alike."""
    gradients = []
    losses, groups = torch.rand(8).repeat(4), torch.tensor([0, 0, 1, 2, 1, 0, 3, 3]).repeat(4)
    for batches in (1, 4):
        criterion, total = GroupDROLoss(4, 0.3), losses.clone().requires_grad_()
        for i, (loss, group) in enumerate(
            zip(total.chunk(batches), groups.chunk(batches), strict=True)
        ):
            (criterion(loss, group, part=(i, batches)).loss / batches).backward()
        gradients.append(total.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("drawn", [None, [63, 1]])
def test_a_rare_group_keeps_its_weight_where_batches_are_accumulated(drawn):
    """One sample among 64: the whole weight of its group, not the eighth part of a batch's mean."""
    for place in range(8):
        criterion, losses = GroupDROLoss(2, 0.0), torch.ones(8, 8, requires_grad=True)
        criterion.set_group_counts([6300, 100], drawn)
        for i in range(8):
            groups = torch.zeros(8, dtype=torch.int64)
            groups[0] = int(i == place)
            (criterion(losses[i], groups, part=(i, 8)).loss / 8).backward()
        expected = (place + 1) / 8 if drawn is None else 1.0
        assert losses.grad[place, 0].item() == pytest.approx(0.5 * expected)
        assert losses.grad[0, 1:].tolist() == pytest.approx([0.5 / 63] * 7, rel=0.15)


def test_log_weights_do_not_drift():
    criterion = GroupDROLoss(3, step_size=0.01)
    exact = torch.zeros(3, dtype=torch.float64)
    groups = torch.tensor([0, 1, 2])
    for step in range(1000):
        losses = torch.rand(3, generator=torch.Generator().manual_seed(step))
        criterion(losses, groups)
        exact += 0.01 * losses.double()
    assert (criterion.log_q - exact.log_softmax(dim=0)).abs().max() < 1e-12


def test_buffers_are_finite_from_the_start_and_empty_groups_never_gain():
    criterion = GroupDROLoss(3, 1.0, adjustment=50.0, group_counts=[9, 0, 9], absent="hold")
    for _ in range(300):
        assert all(buffer.isfinite().all() for buffer in criterion.buffers())
        criterion(torch.rand(4), torch.tensor([0, 2, 2, 0]))
    assert criterion.group_weights[1] == 0
    assert criterion.running_losses[1] == 0
    assert criterion.batches_seen.tolist() == [300, 0, 300]


def test_states_of_earlier_versions_are_read():
    old = {
        "log_q": torch.tensor([0.0, -torch.inf]), "group_counts": torch.tensor([3.0, 0.0]),
        "running_losses": torch.tensor([0.5, torch.nan]),
    }  # fmt: skip
    criterion = GroupDROLoss(2, 0.1, gamma=0.5)
    criterion.load_state_dict(old)
    assert all(buffer.isfinite().all() for buffer in criterion.buffers())
    assert criterion.group_weights.tolist() == [1, 0]
    criterion(torch.tensor([1.5, 2.5]), torch.tensor([0, 1]))
    assert criterion.running_losses.tolist() == [1.0, 2.5]
    again = GroupDROLoss(2, 0.1, gamma=0.5)
    again.load_state_dict(criterion.state_dict())
    for loss in (criterion, again):
        loss(torch.tensor([0.5, 0.5]), torch.tensor([0, 1]))
    assert torch.equal(criterion.running_losses, again.running_losses)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 0}, "num_groups >= 1"),
        ({"num_groups": 2, "step_size": -1.0}, "step_size >= 0"),
        ({"num_groups": 2, "absent": "skip"}, "'zero' or 'hold'"),
        ({"num_groups": 2, "adjustment": [1.0, 2.0, 3.0]}, "one per group"),
        ({"num_groups": 2, "group_counts": [0, 0]}, "not all 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupDROLoss(**arguments)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"groups \[B\] or \[B, 3\], got \[4\] and \[4, 2\]"):
        GroupDROLoss(3)(torch.rand(4), torch.rand(4, 2))
