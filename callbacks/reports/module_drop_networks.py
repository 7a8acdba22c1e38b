"""Networks of a sweep over numbers of modules: what they answer, and what is timed of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from lit_ssl.callbacks.reports.timing import on_ready_tokens
from lit_ssl.contracts.batches import labelled_inputs
from lit_ssl.contracts.evaluation_sets import EvaluationSet, mask_classes
from lit_ssl.errors import InputTypeError
from lit_ssl.metrics.accuracy import KnownAccuracy
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit

__all__ = ["Sweep", "circuit_of", "gate_network", "sweep_rows", "timed_calls"]


def timed_calls(networks: dict[int, Any], inputs: Any) -> dict[tuple[int, str], Callable[[], Any]]:
    """What is timed: each network, and its circuit alone.

    Args:
        networks: circuits by their number of modules.
        inputs: one batch, as the tokenizers read it.

    Returns:
        Calls without arguments, by number of modules and ``circuit`` or ``network``.
    """
    calls: dict[tuple[int, str], Callable[[], Any]] = {}
    for size, net in networks.items():
        circuit = on_ready_tokens(net, net.tokenizer(inputs))
        calls[size, "circuit"] = partial(circuit, inputs)
        calls[size, "network"] = partial(net, inputs)
    return calls


class Sweep:
    """The networks of a sweep, and what they have answered.

    Args:
        networks: circuits by their number of modules.
        gate: the network that shows what a circuit without mediators would do.
        kind: what the gate is, in words.
        order: numbers of the modules, as they were ranked.
        sets: which are evaluated, in the order of their loaders.
        pl_module: the module that has the whole circuit.
    """

    def __init__(
        self,
        networks: dict[int, nn.Module],
        gate: nn.Module,
        kind: str,
        order: list[int],
        sets: list[EvaluationSet],
        pl_module: pl.LightningModule,
    ) -> None:
        self.networks = networks
        self.gate = gate
        self.kind = kind
        self.order = order
        self.sets = sets
        self.classes: int = circuit_of(pl_module).num_classes
        self.sample: Any = None  # inputs to time
        self.hits = {
            size: [KnownAccuracy(self.classes).to(pl_module.device) for _ in sets]
            for size in (*networks, None)
        }

    def answer(self, trainer: pl.Trainer, batch: Any, dataloader_idx: int) -> None:
        """Count the right answers of all networks.

        Args:
            trainer: the running trainer.
            batch: a labelled batch; its inputs are kept as ``sample`` if it is the first.
            dataloader_idx: which of ``sets`` it is of.
        """
        inputs, labels = labelled_inputs(batch, self.classes)
        if self.sample is None:
            self.sample = inputs
        classes = self.sets[dataloader_idx].classes
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for size, net in (*self.networks.items(), (None, self.gate)):
                logits = mask_classes(net(inputs).logits.float(), classes)
                self.hits[size][dataloader_idx].update(logits, labels)

    def accuracies(self, size: int | None) -> dict[str, float]:
        """Accuracy on each set over all processes.

        Args:
            size: number of modules of the network, or None: the gate.

        Returns:
            In [0, 1] by name: ``acc1``, and ``NAME_acc1`` for the sets that have names.
        """
        names = [f"{one.name}_acc1" if one.name else "acc1" for one in self.sets]
        return {
            name: float(metric.compute())
            for name, metric in zip(names, self.hits[size], strict=True)
        }


def gate_network(net: NeuralAttentiveCircuit, seed: int) -> tuple[nn.Module, str]:
    """A circuit without mediators, or where it needs some with a random one; and what it is.

    Args:
        net: the circuit.
        seed: chooses the mediator.
    """
    if net.input_to_output:
        return _WithoutMediators(net), "no mediator"
    generator = torch.Generator().manual_seed(seed)
    one = int(torch.randint(net.num_modules, (), generator=generator))
    return net.prune([one]).eval(), f"mediator {one} alone, drawn at random"


class _WithoutMediators(nn.Module):
    """A circuit whose outputs hear its input modules only."""

    def __init__(self, net: NeuralAttentiveCircuit) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Any) -> Any:
        """As of the circuit."""
        return self.net(inputs, keep=[])


def circuit_of(pl_module: pl.LightningModule) -> NeuralAttentiveCircuit:
    """The circuit of a module, its ``net``; InputTypeError where it has none.

    Args:
        pl_module: such as ``NAC``.

    Raises:
        InputTypeError: where it has none.
    """
    net = getattr(pl_module, "net", None)
    if not isinstance(net, NeuralAttentiveCircuit):
        raise InputTypeError(
            f"needs a module with a circuit as net, such as NAC, and {type(pl_module).__name__} "
            "has none: remove the callback"
        )
    return net


def sweep_rows(
    accuracies: dict[int | None, dict[str, float]], times: dict[int, dict[str, float]]
) -> list[dict[str, Any]]:
    """One row for each number of modules, with speed-ups against the first one.

    Args:
        accuracies: by number of modules, then by name.
        times: milliseconds by number of modules, then by name (``…_ms_…``); the whole circuit
            first.

    Returns:
        Rows with ``modules``, ``share`` of the whole circuit, accuracies, times and speed-ups.
    """
    whole = next(iter(times))
    rows = []
    for size, measured in times.items():
        row: dict[str, Any] = {"modules": size, "share": size / whole, **accuracies[size]}
        for name, value in measured.items():
            row[name] = value
            row[name.replace("_ms_", "_speedup_")] = times[whole][name] / value
        rows.append(row)
    return rows
