"""Which pairs keep their image: half of them, and never another caption's same image."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.losses import draw_in_batch, draw_matching, matching_loss


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_half_of_the_pairs_keep_their_image(size):
    for seed in range(20):
        for drawn in (
            draw_matching(size, seeded(seed)),
            draw_in_batch(torch.arange(size), seeded(seed)),
        ):
            assert (drawn.labels == 1).sum() == size // 2
            own = drawn.sources == torch.arange(size)
            assert torch.equal(own, drawn.labels != 0)
    again = draw_matching(size, seeded(19))
    assert torch.equal(again.labels, draw_matching(size, seeded(19)).labels)


def test_every_row_is_drawn_equally_often():
    counts = sum(draw_matching(6, seeded(s)).labels for s in range(1200))
    assert (counts - 600).abs().max() < 90  # five standard deviations


def test_the_others_get_images_of_the_second_batch():
    drawn = draw_matching(5, seeded(0))
    assert torch.equal(drawn.sources, torch.arange(5) + 5 * (drawn.labels == 0))


@pytest.mark.parametrize(
    "numbers",
    [
        [0, 1, 2, 3, 4, 5, 6],
        [3, 3, 1, 1, 2, 2, 0, 0, 5],
        [4, 4, 4, 4, 1, 2, 3],  # may be too many of one image for an exchange
        [7, 7, 7, 8],
        [1, 2],
    ],
)
def test_captions_of_one_image_are_no_negatives_of_each_other(numbers):
    numbers = torch.tensor(numbers)
    for seed in range(200):
        labels, sources = draw_in_batch(numbers, seeded(seed))
        assert (labels == 1).sum() == len(numbers) // 2
        assert (labels == 0).sum() == len(numbers) - len(numbers) // 2
        negative = labels == 0
        assert (numbers[sources[negative]] != numbers[negative]).all()
        assert torch.equal(sources[~negative], torch.arange(len(numbers))[~negative])


def test_distinct_images_are_exchanged_and_each_is_used_once():
    seen = set()
    for seed in range(300):
        labels, sources = draw_in_batch(torch.arange(8), seeded(seed))
        assert sorted(sources.tolist()) == list(range(8))
        seen |= {(i, int(s)) for i, s in enumerate(sources) if labels[i] == 0}
    assert len(seen) == 8 * 7  # every text may get every other image


def test_pairs_without_another_image_do_not_count():
    for numbers in ([5], [5, 5, 5]):
        labels, sources = draw_in_batch(torch.tensor(numbers), seeded(0))
        assert (labels == -100).sum() == len(numbers) - len(numbers) // 2
        assert torch.equal(sources, torch.arange(len(numbers)))
    logits = torch.randn(1, 2, requires_grad=True)
    loss = matching_loss(logits, torch.tensor([-100]))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().max() == 0


def test_the_loss_is_the_mean_over_pairs_that_count():
    logits = torch.randn(4, 2)
    labels = torch.tensor([1, -100, 0, 1])
    mean = torch.nn.functional.cross_entropy(logits[[0, 2, 3]], labels[[0, 2, 3]])
    torch.testing.assert_close(matching_loss(logits, labels), mean)
    with pytest.raises(ValueError, match=r"logits \[4, 2\], got \[4, 3\]"):
        matching_loss(torch.zeros(4, 3), labels)
    with pytest.raises(ValueError, match="at least one pair"):
        draw_matching(0)
