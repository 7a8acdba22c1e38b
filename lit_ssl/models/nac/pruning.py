"""Smaller copies of a circuit, and what may be computed once before it is used."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.nac.kernel import SignatureKernel

__all__ = ["checked_positions", "fold_circuit", "pruned"]


def checked_positions(keep: Tensor | Sequence[int], count: int, what: str) -> Tensor:
    """Positions of modules as int64 ``[n]``, ascending.

    Args:
        keep: positions in any order; whole numbers in one dimension. There may be none.
        count: how many modules there are.
        what: what messages call one of them.

    Raises:
        ValueError: if one lies out of range or comes twice.
    """
    try:
        chosen = torch.as_tensor(keep).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise _no_list(what, repr(keep)) from None
    if chosen.ndim == 1 and not len(chosen):
        return chosen.to(torch.int64)
    if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise _no_list(what, f"{chosen.dtype} {list(chosen.shape)}")
    chosen = chosen.to(torch.int64).sort().values
    low, high = int(chosen[0]), int(chosen[-1])
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise InputError(f"keep names {what} {wrong}: there are {count}, from 0 to {count - 1}")
    if len(chosen.unique()) < len(chosen):
        raise InputError(f"keep names the same {what} twice")
    return chosen


def _no_list(what: str, given: str) -> InputError:
    return InputError(f"keep must be a list of {what} numbers, such as [0, 3, 4], not {given}")


def pruned(
    net: Any, keep: Tensor | Sequence[int], outputs: Tensor | Sequence[int] | None = None
) -> Any:
    """A copy of a circuit with some of its modules; see ``NeuralAttentiveCircuit.prune``.

    Args:
        net: the circuit, which stays as it is.
        keep: positions of the mediators to keep, at least one.
        outputs: positions of the output modules to keep, at least one; None: all.

    Raises:
        InputError: for positions that there are not, none at all, and circuits with a generator.
    """
    if net.generator is not None:
        raise InputError(
            "a generator makes another circuit for each sample, so that no list of modules fits "
            "all: give `keep` to each call instead of pruning"
        )
    positions = {"mediator": checked_positions(keep, net.num_modules, "module")}
    count = len(net.kept_outputs)
    every = torch.arange(count) if outputs is None else outputs
    positions["output"] = checked_positions(every, count, "output module")
    for what, rows in positions.items():
        if not len(rows):
            raise InputError(f"keep at least one {what} module: the list is empty")
    if net.wiring == "from_input":
        positions["input"] = positions["mediator"]
    small = copy.deepcopy(net)
    for part in small.modules():
        if getattr(part, "folded", None) is not None:
            part.folded = None  # it was of all modules
    small.graph_prior = None  # which is one of all modules: a new training keeps these signatures
    for tables in (small.codes, small.signatures, small.states or {}):
        for name, table in tables.items():
            kind = "mediator" if name.startswith("propagator") else name
            if kind in positions:
                rows = positions[kind].to(table.device)
                values = table.detach().index_select(0, rows)
                tables[name] = nn.Parameter(values, table.requires_grad)
    small.kept_modules = small.kept_modules[positions["mediator"]]
    small.kept_outputs = small.kept_outputs[positions["output"]]
    small.resize_tables({name: len(rows) for name, rows in positions.items()})
    for part in small.modules():
        if isinstance(part, SignatureKernel) and part.options.eval_truncation is not None:
            part.truncation = part.options.eval_truncation
    return small


@torch.no_grad()
def fold_circuit(net: Any) -> None:
    """Keep factors and biases that are the same for all inputs; the circuit is in eval mode.

    Args:
        net: the circuit; its layers and kernels keep what they can.
    """
    codes, signatures = dict(net.codes.items()), dict(net.signatures.items())
    persistent = net.wiring == "persistent"
    if not codes and not signatures:
        return

    def sent(table: dict[str, Tensor], own: Tensor | None, with_inputs: bool) -> Tensor | None:
        return torch.cat([table["input"], own]) if with_inputs and own is not None else own

    first = codes.get("input")
    if first is not None:
        _fold(net.read_in, receivers=first, senders=first)
    varies = net.layer_codes and len(net.propagators) < net.depth
    own = codes.get("mediator")
    for depth, propagator in enumerate(net.propagators):
        own = codes.get(f"propagator_{depth}", own)
        signs = signatures.get("mediator")
        if own is not None and not varies:
            _fold_block(propagator, own, sent(codes, own, persistent))
        if signs is not None:
            senders = sent(signatures, signs, persistent)
            propagator.attention.kernel.fold(signs, senders)
    own = codes.get(f"propagator_{net.depth - 1}", codes.get("mediator"))
    if own is not None and codes.get("output") is not None:
        _fold_block(net.read_out, codes["output"], sent(codes, own, net.input_to_output))
    if signatures:
        senders = sent(signatures, signatures["mediator"], net.input_to_output)
        net.read_out.attention.kernel.fold(signatures["output"], senders)


def _fold_block(propagator: Any, receivers: Tensor, senders: Tensor | None) -> None:
    _fold(propagator.attention, receivers, senders)
    for layer in (propagator.ffn.fc1, propagator.ffn.fc2):
        layer.fold(receivers)


def _fold(attention: Any, receivers: Tensor, senders: Tensor | None) -> None:
    for layer in (attention.query, attention.out):
        layer.fold(receivers)
    for layer in (attention.key, attention.value):
        layer.fold(senders)
    ffn = getattr(attention, "ffn", None)
    for layer in () if ffn is None else (ffn.fc1, ffn.fc2):
        layer.fold(receivers)
