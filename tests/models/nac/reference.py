"""Arrays of the paper's reference code, and its parameter names in our networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

GOLDEN = Path(__file__).parents[2] / "golden" / "nac"

# Longest first: the reference's names → ours.
NAMES = {
    "latent_attention.": "attention.",
    "read_in_attention.receiver_layernorm": "state_norm",
    "read_in_attention.sender_layernorm": "token_norm",
    "read_in_attention.": "",
    "receiver_layernorm": "receiver_norm",
    "sender_layernorm": "sender_norm",
    "query_compiler": "query",
    "key_compiler": "key",
    "value_compiler": "value",
    "exit_layer": "out",
    "lin.weight": "weight",
    "lin.bias": "bias",
    "native_weight": "weight",
    "native_bias": "bias",
    "scale_gain": "gain",
    "kernel.bandwidth": "kernel.log_bandwidth",
    "ffn.ffn.0": "ffn.fc1",
    "ffn.ffn.2": "ffn.fc2",
    "ffn.layernorm": "ffn.norm",
    "latent_seeder.": "seeder.",
    "code_to_state_mu": "mean",
    "code_to_state_logvar": "log_variance",
    "seeder.layernorm": "seeder.norm",
    "input_latents.codes_": "codes.input",
    "mediator_latents.codes_": "codes.mediator",
    "output_latents.codes_": "codes.output",
    "input_latents.signatures_": "signatures.input",
    "mediator_latents.signatures_": "signatures.mediator",
    "output_latents.signatures_": "signatures.output",
    "confidence_scorer": "confidence",
    "to_logits": "classifier",
}


def load(name: str) -> dict[str, torch.Tensor]:
    """All arrays of a file."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "preset"}


def ours(name: str) -> str:
    """Our name of a parameter of the reference."""
    for theirs, mine in NAMES.items():
        name = name.replace(theirs, mine)
    return name


def part(arrays: dict[str, torch.Tensor], prefix: str, place: str = "") -> dict[str, torch.Tensor]:
    """The arrays below a prefix, with our names below a place."""
    return {
        place + ours(key.removeprefix(prefix)): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def fill(module: nn.Module, values: dict[str, torch.Tensor], skip: tuple[str, ...] = ()) -> None:
    """Load the reference's parameters; the bandwidth is kept as its logarithm."""
    values = {k: v.log() if k.endswith("log_bandwidth") else v for k, v in values.items()}
    state = {key: value for key, value in values.items() if key not in skip}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert unexpected == []
    parameters = {name for name, _ in module.named_parameters()}
    assert [name for name in missing if name in parameters] == []


def assert_gradients(module: nn.Module, expected: dict[str, torch.Tensor], tol: float) -> None:
    """Each gradient is the reference's; parameters that it does not name have none."""
    for name, parameter in module.named_parameters():
        if name not in expected:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        found = parameter.grad
        if name.endswith("log_bandwidth"):
            found = found / parameter.detach().exp()
        assert_close(found, expected[name], tol, name)


def assert_close(found: torch.Tensor, expected: torch.Tensor, tol: float, name: str = "") -> None:
    """Equal up to a share of the largest number."""
    scale = max(1.0, float(expected.abs().max()))
    worst = float((found.detach() - expected).abs().max()) / scale
    assert worst <= tol, f"{name}: {worst:.2e}"
