"""Real digits, 16 simulated workers: local SGD costs accuracy, slow momentum wins it back."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.func import functional_call, grad, vmap

from lit_ssl.strategies.functional import slow_momentum_

WORKERS, STEPS, BATCH = 16, 240, 8


def make_model():
    sizes = (64, 64, 64, 10)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


def train(data, seed, every=0, beta=0.0, warmup=0, by_label=False):
    """SGD with momentum, each worker on its own shard; synchronous with ``every`` 0.

    Returns:
        Loss on the training images and accuracy on the others.
    """
    images, labels, test_images, test_labels = data
    torch.manual_seed(seed)
    model = make_model()
    order = labels.argsort(stable=True) if by_label else torch.randperm(len(labels))
    shards = order.view(WORKERS, -1)

    def loss(parameters, x, y):
        return torch.nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)

    gradients = vmap(grad(loss))
    weights = {k: p.detach().expand(WORKERS, *p.shape).clone() for k, p in model.named_parameters()}
    momenta = {k: torch.zeros_like(w) for k, w in weights.items()}
    x0 = {k: w[0].clone() for k, w in weights.items()}
    u = {k: torch.zeros_like(w) for k, w in x0.items()}
    for step in range(STEPS):
        lr = 0.1 * 0.1 ** ((step >= 0.6 * STEPS) + (step >= 0.85 * STEPS))
        picks = shards.gather(1, torch.randint(shards.shape[1], (WORKERS, BATCH)))
        found = gradients(weights, images[picks], labels[picks])
        for name, weight in weights.items():
            gradient = found[name]
            if not every or step < warmup:
                gradient = gradient.mean(0, keepdim=True).expand_as(gradient)
            momenta[name].mul_(0.9).add_(gradient)
            weight.sub_(momenta[name], alpha=lr)
            if step < warmup:
                x0[name].copy_(weight[0])
            elif every and (step - warmup + 1) % every == 0:
                slow_momentum_(x0[name], u[name], weight.mean(0), lr, 1.0, beta)
                weight.copy_(x0[name].expand_as(weight))
                if beta:
                    momenta[name].zero_()
    final = {name: weight.mean(0) for name, weight in weights.items()}
    guesses = functional_call(model, final, (test_images,)).argmax(1)
    return float(loss(final, images, labels)), float((guesses == test_labels).float().mean())


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(images, dtype=torch.float32)[order] / 16
    labels = torch.tensor(labels)[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def mean_of_seeds(digits, **settings):
    results = torch.tensor([train(digits, seed, **settings) for seed in range(4)])
    return results.mean(0).tolist()


def test_local_steps_cost_and_slow_momentum_recovers(digits):
    synchronous, _ = mean_of_seeds(digits)
    local, _ = mean_of_seeds(digits, every=8)
    slow, _ = mean_of_seeds(digits, every=8, beta=0.7)
    late, _ = mean_of_seeds(digits, every=8, warmup=144)
    assert synchronous < slow < 0.7 * local
    assert late < 1.25 * synchronous


def test_the_same_where_workers_have_different_data(digits):
    accuracies = [
        mean_of_seeds(digits, by_label=True, **settings)[1]
        for settings in ({}, {"every": 8, "beta": 0.7}, {"every": 8}, {"every": 24})
    ]
    for better, worse in itertools.pairwise(accuracies):
        assert better > worse + 0.005
