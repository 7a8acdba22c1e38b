"""Word–patch alignment against the reference code, and where there is nothing to align."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.losses import WordPatchAlignment, alignment_cost, alignment_masks, transport_plan

CLOSE = {"rtol": 0, "atol": 1e-5}


def reference(golden):
    data = golden("vl_masking/wpa")
    words = torch.arange(data["x"].shape[1]) < data["x_len"][:, None]
    patches = torch.arange(data["y"].shape[1]) < data["y_len"][:, None]
    return data, words, patches


def test_transport_equals_the_reference(golden):
    data, words, patches = reference(golden)
    x, y = (data[name].clone().requires_grad_() for name in "xy")
    cost = alignment_cost(x, y, words, patches)
    torch.testing.assert_close(cost.detach(), data["cost"], **CLOSE)
    plan = transport_plan(cost, words, patches)
    torch.testing.assert_close(plan, data["plan"], **CLOSE)
    distance = (cost * plan.mT).sum(dim=(1, 2))
    torch.testing.assert_close(distance.detach(), data["distance"], **CLOSE)
    distance.sum().backward()
    torch.testing.assert_close(x.grad, data["grad_x"], rtol=0, atol=1e-4)
    torch.testing.assert_close(y.grad, data["grad_y"], rtol=0, atol=1e-4)


def test_the_plan_moves_all_words_onto_all_patches():
    text, image = torch.randn(3, 6, 8), torch.randn(3, 11, 8)
    words = torch.arange(6) < torch.tensor([6, 3, 1])[:, None]
    patches = torch.arange(11) < torch.tensor([11, 1, 7])[:, None]
    plan = transport_plan(alignment_cost(text, image, words, patches), words, patches)
    for row in range(3):
        m, n = int(words[row].sum()), int(patches[row].sum())
        torch.testing.assert_close(plan[row, :n, :m].sum(0), torch.full((m,), 1 / m))
        # the side that is not scaled last is met as far as 50 iterations come
        rows = plan[row, :n, :m].sum(1)
        torch.testing.assert_close(rows, torch.full((n,), 1 / n), rtol=0.02, atol=0)
    assert plan[~(patches[:, :, None] & words[:, None, :])].abs().max() == 0


def test_special_tokens_are_no_words():
    text_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    words, patches = alignment_masks(text_mask, torch.tensor([[1, 1, 0]] * 3))
    assert words.int().tolist() == [[0, 1, 1, 0, 0], [0] * 5, [0, 1, 1, 1, 0]]
    assert patches.int().tolist() == [[0, 1, 0]] * 3
    assert text_mask.sum() == 11  # it is left as it was


def test_a_text_without_words_costs_nothing_and_others_count_as_before():
    loss = WordPatchAlignment()
    text = torch.randn(3, 5, 8, requires_grad=True)
    image = torch.randn(3, 4, 8)
    text_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    image_mask, labels = torch.ones(3, 4, dtype=torch.bool), torch.tensor([1, 0, 0])
    output = loss(text, image, text_mask, image_mask, labels)
    assert output.distances[1] == 0
    assert output.plan[1].abs().max() == 0
    torch.testing.assert_close(output.loss, (output.distances[0] - output.distances[2]) / 3)
    output.loss.backward()
    assert text.grad.isfinite().all()
    assert text.grad[1].abs().max() == 0
    few = [part[[0, 2]] for part in (text, image, text_mask, image_mask, labels)]
    torch.testing.assert_close(loss(*few).distances, output.distances[[0, 2]])


def test_unknown_matches_do_not_count():
    text, image = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    ones = torch.ones(2, 5), torch.ones(2, 4)
    output = WordPatchAlignment()(text, image, *ones, torch.tensor([0, -100]))
    torch.testing.assert_close(output.loss, -output.distances[0] / 2)


def test_half_precision_states_are_compared_in_float32():
    text, image = torch.randn(2, 5, 8).bfloat16(), torch.randn(2, 4, 8).bfloat16()
    rest = torch.ones(2, 5), torch.ones(2, 4), torch.tensor([0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = WordPatchAlignment()(text, image, *rest)
    assert output.loss.dtype == output.plan.dtype == torch.float32
    torch.testing.assert_close(output, WordPatchAlignment()(text.float(), image.float(), *rest))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="beta must be > 0 and iterations"):
        WordPatchAlignment(beta=0)
