"""Circuits from a description in plain values, as recipes and checkpoints have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.generator import TextCircuitGenerator
from lit_ssl.models.nac.graph_priors import GraphPrior
from lit_ssl.models.nac.kernel import KernelOptions
from lit_ssl.models.nac.perceiver_io import PerceiverIO
from lit_ssl.models.nac.tokenizers.image_pair_text import ImagePairTextTokenizer
from lit_ssl.models.nac.tokenizers.images import ConvNeXtTokenizer, PatchTokenizer
from lit_ssl.models.nac.tokenizers.pair_encoders import FrozenCLIP, SmallPairEncoder
from lit_ssl.models.nac.tokenizers.points import PointTokenizer
from lit_ssl.models.nac.tokenizers.sequences import ByteTokenizer, SymbolTokenizer

__all__ = ["CIRCUITS", "described_circuit"]

CIRCUITS: dict[str, type[NeuralAttentiveCircuit]] = {
    kind.__name__: kind for kind in (NeuralAttentiveCircuit, PerceiverIO)
}
"""Circuits by name."""
_PARTS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ByteTokenizer,
        ConvNeXtTokenizer,
        FrozenCLIP,
        ImagePairTextTokenizer,
        PatchTokenizer,
        PointTokenizer,
        SmallPairEncoder,
        SymbolTokenizer,
        TextCircuitGenerator,
    )
}
_OPTIONS: dict[str, Callable[..., Any]] = {
    "kernel": KernelOptions,
    "read_out_kernel": KernelOptions,
    "graph_prior": GraphPrior,
}


def described_circuit(name: str, /, **args: Any) -> NeuralAttentiveCircuit:
    """Build a circuit of this package, of parts of this package.

    Args:
        name: ``NeuralAttentiveCircuit`` or ``PerceiverIO``.
        args: its arguments in plain values; parts as ``{"class_path", "init_args"}``.

    Raises:
        InputError: for a part that is not of this package: a description must not choose code.
    """
    return CIRCUITS[name](**{key: _built(key, value) for key, value in args.items()})


def _built(key: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if key in _OPTIONS:
        return _OPTIONS[key](**value)
    if "class_path" not in value:
        return value
    path = str(value["class_path"])
    part = _PARTS.get(path.rpartition(".")[2])
    if part is None or not path.startswith("lit_ssl.models."):
        raise InputError(
            f"the circuit has a part {path} that is not of lit_ssl.models, and a description must "
            "not choose code: build the network in Python and load its weights there"
        )
    return part(**{k: _built(k, v) for k, v in (value.get("init_args") or {}).items()})
