"""Which modules of a circuit matter most, so that the others can be dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, InputRuntimeError, did_you_mean

__all__ = ["RANKINGS", "rank_modules", "usual_ranking"]

PREFIXES = ("nested", "sandwich", "distilled")  # trainings whose first modules do alone

# Batches of inputs and labels.
_Batches = list[tuple[Any, Tensor]]
_FAINT = 1e-6  # probability


def usual_ranking(training: str | None, has_graph: bool) -> str:
    """The method of ranking for whom names none: it suits the training, and needs no data.

    Args:
        training: kind of module dropout that the circuit was trained with; None: not known.
        has_graph: whether the circuit has a graph.

    Returns:
        ``nested`` after a training with prefixes of the modules, else ``eigenvector``.

    Raises:
        InputError: for a network without a graph whose prefixes were not trained.
    """
    if training in PREFIXES:
        return "nested"
    if has_graph:
        return "eigenvector"
    raise InputError(
        "this network has no graph to rank its modules by: name the modules to keep, or a method "
        "that needs no graph, such as nested or random"
    )


def rank_modules(
    net: Any,
    method: str,
    batches: Iterable[tuple[Any, Tensor]] | None = None,
    seed: int = 0,
) -> Tensor:
    """Order the mediators of a circuit by importance.

    - ``in_strength``: sum of the probabilities of links from all whom a module hears, itself left
      out: mediators, and input modules where there are some; mean over depths;
    - ``out_strength``: the same of links to all who hear it: mediators and output modules;
    - ``eigenvector``: centrality in the symmetrised mean over depths of P between mediators;
    - ``reverse``: that order from its end, as a control;
    - ``taylor``: ``|dL / dgate|``, summed over the batches, where the gate of a module multiplies
      all that it sends;
    - ``loo``: the loss L when the one module is removed, which takes U passes over the batches;
    - ``greedy``: modules are removed one by one, each time the one without which L is smallest,
      which takes U² / 2 passes. Any mediator saves as much time as any other, so this is also the
      removal with the least increase of L per millisecond;
    - ``nested``: 0 … U - 1, for circuits that were trained with nested module dropout;
    - ``random``: with a seed, as a control.

    L is the sum of cross-entropies in evaluation mode. Modes, gradients and global random numbers
    are left as they were. Modules of equal rank stand in the order of their numbers.

    Args:
        net: a circuit; for the methods with L, with a classifier.
        method: one of the above.
        batches: ``(inputs, labels [B])`` on the device of the circuit and ready for it; labels are
            int64, −1 where unknown. For ``taylor``, ``loo`` and ``greedy``.
        seed: of ``random``.

    Returns:
        int64 ``[U]`` on the CPU, a permutation of 0 … U - 1, best first: its first n are what
        ``net.prune`` keeps (in ascending order).

    Raises:
        ValueError: for an unknown method, or without the batches, labels or classifier it needs.

    Source: spec of module dropping for arXiv 2210.08031, whose own criterion is not known; all of
    these are ours.
    """
    if method not in RANKINGS:
        raise InputError(f"cannot rank modules by {method!r}.{did_you_mean(method, RANKINGS)}")
    if method == "random":
        return torch.randperm(net.num_modules, generator=torch.Generator().manual_seed(seed))
    if method == "nested":
        return torch.arange(net.num_modules)
    given = _checked(net, method, batches) if method in _BY_LOSS else []
    with _evaluation(net):
        scores = _SCORES[method](net, given).detach().double().cpu()
    if not torch.isfinite(scores).all():
        raise InputRuntimeError(
            f"ranking by {method} met numbers that are not finite: the network has diverged, or "
            "its inputs are not finite"
        )
    return scores.argsort(descending=True, stable=True)


def _in_strength(net: Any, _: _Batches) -> Tensor:
    return (net.link_probabilities().mean(0).sum(1)) - _links(net).diagonal()


def _out_strength(net: Any, _: _Batches) -> Tensor:
    kernel, signatures = net.read_out.attention.kernel, net.signatures
    answers = kernel.link_probabilities(signatures["output"], signatures["mediator"])
    links = _links(net)
    return links.sum(0) - links.diagonal() + answers.sum(0)


def _eigenvector(net: Any, _: _Batches) -> Tensor:
    links = _links(net).double().cpu()
    if not torch.isfinite(links).all():
        return links.sum(1)
    # Without zeros the leading vector is unique and has one sign: also modules without a link to
    # the largest cluster have an order.
    links = (links + links.T) / 2 + _FAINT
    return torch.linalg.eigh(links).eigenvectors[:, -1].abs()


def _reverse(net: Any, batches: _Batches) -> Tensor:
    return -_eigenvector(net, batches)


def _taylor(net: Any, batches: _Batches) -> Tensor:
    total = torch.zeros(net.num_modules, dtype=torch.float64)
    for inputs, labels in batches:
        with torch.inference_mode(False), torch.enable_grad():
            gates = torch.ones(net.num_modules, device=labels.device, requires_grad=True)
            loss = _cross_entropy(net(_normal(inputs), gates=gates), _normal(labels))
            (slope,) = torch.autograd.grad(loss, gates)
        total += slope.double().cpu().abs()
    return total


def _loo(net: Any, batches: _Batches) -> Tensor:
    everyone = list(range(net.num_modules))
    return torch.tensor([_loss_without(net, batches, everyone, u) for u in everyone])


def _greedy(net: Any, batches: _Batches) -> Tensor:
    left = list(range(net.num_modules))
    scores = torch.zeros(net.num_modules)
    for place in range(net.num_modules):
        losses = [_loss_without(net, batches, left, u) for u in left]
        least = max(i for i, loss in enumerate(losses) if loss == min(losses))
        scores[left.pop(least)] = place
    return scores


# method → scores [U], of which the best module has the largest
_SCORES: dict[str, Callable[[Any, _Batches], Tensor]] = {
    "in_strength": _in_strength,
    "out_strength": _out_strength,
    "eigenvector": _eigenvector,
    "reverse": _reverse,
    "taylor": _taylor,
    "loo": _loo,
    "greedy": _greedy,
}
RANKINGS = (*_SCORES, "nested", "random")
"""The methods of [`rank_modules`][lit_ssl.models.rank_modules]."""
_BY_LOSS = ("taylor", "loo", "greedy")


def _links(net: Any) -> Tensor:
    """Links between mediators ``[U, U]``, mean over depths; rows receive."""
    return net.link_probabilities().mean(0)[:, -net.num_modules :]


def _cross_entropy(output: Any, labels: Tensor) -> Tensor:
    """Sum over the rows whose label is known."""
    logits = output.logits.float()
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")


def _normal(inputs: Any) -> Any:
    """Inputs without tensors of inference mode, through which no gradient goes."""
    if isinstance(inputs, Tensor):
        return inputs.clone() if inputs.is_inference() else inputs
    if isinstance(inputs, dict):
        return {name: _normal(value) for name, value in inputs.items()}
    return inputs


@torch.no_grad()
def _loss_without(net: Any, batches: _Batches, modules: list[int], one: int) -> float:
    keep = torch.tensor([u for u in modules if u != one])
    if not len(keep):  # nothing is left to compare
        return 0.0
    losses = [_cross_entropy(net(inputs, keep=keep), labels) for inputs, labels in batches]
    return float(torch.stack(losses).double().sum())


def _checked(net: Any, method: str, batches: Iterable[tuple[Any, Tensor]] | None) -> _Batches:
    if not net.num_classes:
        raise InputError(f"ranking by {method} needs a network with a classifier")
    given = [] if batches is None else list(batches)
    if not any(bool((labels >= 0).any()) for _, labels in given):
        raise InputError(
            f"ranking by {method} needs labelled batches (inputs, labels): give some, or rank by "
            "eigenvector"
        )
    return given


@contextmanager
def _evaluation(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards all modes and random numbers are as they were."""
    modes = [(part, part.training) for part in net.modules()]
    devices = {tensor.device for tensor in net.parameters() if tensor.is_cuda}
    net.eval()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for part, training in modes:
            part.training = training
