"""Which modules a training step keeps."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from lit_ssl.errors import InputError
from lit_ssl.methods.nac.module_dropout import ModuleDropout, bucket_sizes, distillation_loss

STEPS = 4000


def sizes(dropout, seed=0, which=-1):
    kept = [dropout.draw(seed, step)[which] for step in range(STEPS)]
    for keep in kept:
        assert keep is None or torch.equal(keep, torch.arange(len(keep)))
    return [dropout.num_modules if keep is None else len(keep) for keep in kept]


def test_nested_keeps_all_in_its_share_of_the_steps_and_else_a_log_uniform_prefix():
    counts = Counter(sizes(ModuleDropout("nested", 24)))
    assert set(counts) == set(range(1, 25))
    full = counts[24] - 0.7 * STEPS * math.log(25 / 24) / math.log(25)
    assert full / STEPS == pytest.approx(0.3, abs=0.03)
    for n in (1, 2, 5, 11):
        expected = 0.7 * math.log((n + 1) / n) / math.log(25)
        assert counts[n] / STEPS == pytest.approx(expected, abs=4 * (expected / STEPS) ** 0.5)


def test_steps_and_seeds_differ_and_a_repeated_step_does_not():
    dropout = ModuleDropout("nested", 24)
    assert sizes(dropout) == sizes(dropout)
    assert sizes(dropout) != sizes(dropout, seed=1)


@pytest.mark.parametrize("kind", ["sandwich", "distilled"])
def test_a_sandwich_has_all_modules_and_a_smaller_prefix(kind):
    dropout = ModuleDropout(kind, 7)
    assert all(dropout.draw(0, step)[0] is None for step in range(50))
    assert set(sizes(dropout)) == set(range(1, 7))


@pytest.mark.parametrize(("modules", "expected"), [(24, [1, 2, 3, 6, 12, 24]), (5, [1, 2, 3, 5])])
def test_buckets_are_few_sizes_each_as_probable(modules, expected):
    assert bucket_sizes(modules) == expected
    counts = Counter(sizes(ModuleDropout("nested", modules, full_share=0, buckets=True)))
    assert sorted(counts) == expected
    for count in counts.values():
        assert count / STEPS == pytest.approx(1 / len(expected), abs=0.03)


def test_random_drops_a_fixed_number_of_changing_modules():
    dropout = ModuleDropout("random", 9, drop_rate=0.4)
    kept = [tuple(dropout.draw(3, step)[0].tolist()) for step in range(200)]
    assert {len(keep) for keep in kept} == {5}
    assert len(set(kept)) > 50
    assert all(list(keep) == sorted(set(keep)) for keep in kept)
    assert {module for keep in kept for module in keep} == set(range(9))
    assert len(ModuleDropout("random", 2, drop_rate=0.99).draw(0, 0)[0]) == 1


def test_none_keeps_all():
    assert ModuleDropout("none", 1).draw(0, 0) == [None]


def test_distillation_teaches_the_student_only():
    student, teacher = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    loss = distillation_loss(student, teacher)
    loss.backward()
    assert teacher.grad is None
    p, q = teacher.detach().softmax(1), student.detach().softmax(1)
    expected = (p * (p.log() - q.log())).sum() / 4
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(student.grad, (q - p) / 4)
    half = distillation_loss(student.detach().bfloat16(), F.one_hot(torch.arange(4) % 3, 3).half())
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("nest", 4), "module_dropout must be"),
        (("nested", 1), "at least 2 modules"),
        (("nested", 4, 1.5), "full_share"),
        (("random", 4, 0.3, False, 1.0), "drop_rate"),
    ],
)
def test_wrong_values(arguments, match):
    with pytest.raises(InputError, match=match):
        ModuleDropout(*arguments)
