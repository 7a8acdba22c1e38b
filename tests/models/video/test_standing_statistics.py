"""Statistics measured anew, and nothing else."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lit_ssl.errors import InputError, NonFiniteError
from lit_ssl.models import ConditionalBatchNorm2d, spectral_norm, standing_statistics
from lit_ssl.models.video.replicas import join_batch_norms_


def test_plain_mean_over_batches_of_what_training_sees():
    norm = nn.BatchNorm2d(3, momentum=0.3)
    batches = [torch.randn(4, 3, 5, 2) * (i + 1) + i for i in range(3)]
    standing_statistics(norm, lambda i: norm(batches[i]), 3)
    assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    variances = [x.var((0, 2, 3), unbiased=False) for x in batches]
    assert_close(norm.running_var, torch.stack(variances).mean(0))
    assert norm.momentum == 0.3
    assert norm.num_batches_tracked == 3
    assert not norm.training


def test_one_batch_in_evaluation_looks_as_in_training():
    norm = ConditionalBatchNorm2d(3, 2)
    x, c = torch.randn(2, 3, 4, 3) + 5, torch.randn(2, 2)
    trained = norm(x, c)
    standing_statistics(norm, lambda _: norm(x, c), 1)
    assert_close(norm(x, c), trained)


def test_only_batch_norm_trains_and_nothing_outside_moves():
    layers = nn.Sequential(spectral_norm(nn.Conv2d(2, 3, 1)), nn.BatchNorm2d(3), nn.Dropout(0.9))
    outside = nn.BatchNorm2d(3)
    outside(torch.randn(2, 3, 2, 2))
    before = {k: v.clone() for k, v in outside.state_dict().items()}
    vector = layers[0].parametrizations.weight[0].u.clone()
    modes = []

    def sample(_):
        outputs = layers(torch.randn(2, 2, 3, 3))
        assert not outputs.requires_grad
        modes.append([layers[0].training, layers[1].training, layers[2].training])

    standing_statistics(layers, sample, 2)
    assert modes == [[False, True, False]] * 2
    assert layers[0].parametrizations.weight[0].u.equal(vector)
    assert outside.training
    assert all(before[k].equal(v) for k, v in outside.state_dict().items())


def test_a_sampler_that_fails_leaves_the_momentum():
    norm = nn.BatchNorm2d(3, momentum=0.3)
    with pytest.raises(ZeroDivisionError):
        standing_statistics(norm, lambda i: 1 / i, 1)
    assert norm.momentum == 0.3
    assert not norm._forward_hooks


def test_mistakes():
    norms = nn.ModuleList([nn.BatchNorm2d(2), nn.BatchNorm2d(2)])
    with pytest.raises(InputError, match=r"runs no forward pass of 1$"):
        standing_statistics(norms, lambda _: norms[0](torch.randn(2, 2, 3, 3)), 1)
    with pytest.raises(InputError, match="at least one batch, not 0"):
        standing_statistics(norms, print, 0)
    with pytest.raises(InputError, match="Conv2d has no batch normalisation"):
        standing_statistics(nn.Conv2d(2, 3, 1), print, 1)
    nan = torch.full((2, 2, 3, 3), torch.nan)
    with pytest.raises(NonFiniteError, match="training has diverged"):
        standing_statistics(norms, lambda _: [norm(nan) for norm in norms], 1)


def test_a_converted_norm_on_a_cpu():
    plain = ConditionalBatchNorm2d(3, 2)
    converted = deepcopy(plain)
    join_batch_norms_(converted)
    x, c = torch.randn(2, 40, 3, 4, 4) + 5, torch.randn(40, 2)
    for norm in (plain, converted):
        standing_statistics(norm, lambda i, norm=norm: norm(x[i], c), 2)
    assert_close(converted.bn.running_mean, plain.bn.running_mean)
    assert_close(converted.bn.running_var, plain.bn.running_var)
