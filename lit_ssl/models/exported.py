"""Files of ``lit-ssl export``: the network that a name stands for, and the one of a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm import create_model
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputFileNotFoundError, quoted
from lit_ssl.models.backbones import conv_stem
from lit_ssl.models.backbones.by_name import OWN_BACKBONES
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.backbones.hub_files import fetch, is_hub_name
from lit_ssl.models.backbones.multiplied_resnet import MultipliedResNet50
from lit_ssl.models.backbones.small_cnn import SmallCNN
from lit_ssl.models.backbones.text import TextBackbone
from lit_ssl.models.backbones.wide_resnet import WideResNet
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.described import CIRCUITS, described_circuit

__all__ = ["build_network", "example_inputs", "input_size", "is_of_timm", "load_exported"]

# Networks of this package, by the names that recipes have for them.
_OWN: dict[str, Callable[..., nn.Module]] = {
    **OWN_BACKBONES,
    **{kind.__name__: kind for kind in (MultipliedResNet50, SmallCNN, TextBackbone, WideResNet)},
    **{name: partial(described_circuit, name) for name in CIRCUITS},
}
# Names that this package tells timm: by itself, timm does not know them.
_TOLD = (conv_stem.vitc_4gf.__name__, conv_stem.deit_small_convstem.__name__)


# Arguments of timm by which it reads weights from a file or the net.
_READING = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
_IN_FOLDERS = "model.safetensors"


def is_of_timm(name: str) -> bool:
    """Whether timm builds a network of this name without this package.

    Args:
        name: of a network.
    """
    return name not in _OWN and name not in _TOLD


def build_network(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Build a network without weights of its own and, but for circuits, without a classifier.

    Args:
        name: of timm or of this package.
        args: its arguments.

    Raises:
        InputError: if there is no such network, or not with these arguments.
    """
    try:
        with weights_follow():
            if name in _OWN:
                return _OWN[name](**args)
            return create_model(name, num_classes=0, **args)
    except (RuntimeError, TypeError, ValueError, AssertionError, OSError) as error:
        if isinstance(error, InputError):
            raise
        who = "timm" if is_of_timm(name) else "lit_ssl"
        reason = " ".join(str(error).split())
        raise InputError(
            f"{who} cannot build {quoted(name)} with {quoted(dict(args))}: {reason:.300}"
        ) from error


def load_exported(path: str | Path) -> nn.Module:
    """The network that ``lit-ssl export`` wrote, in eval mode; timm's and this package's own.

    Args:
        path: ``.safetensors``, a folder that ``lit-ssl export`` wrote, or its name on the hub,
            ``hf-hub:USER/NAME[@REVISION]``.

    Raises:
        InputError: if there is no such file, or it was not written by ``lit-ssl export``.
    """
    from safetensors import SafetensorError, safe_open

    if is_hub_name(path):
        path = fetch(str(path), [_IN_FOLDERS]).path
    elif Path(path).is_dir():
        path = Path(path) / _IN_FOLDERS
    if not Path(path).is_file():
        raise InputFileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is no file of safetensors: {error}") from error
    name = about.get("timm_model") or about.get("lit_ssl_model")
    if name is None:
        raise InputError(f"{path} was not written by `lit-ssl export`: it names no network")
    try:
        args = dict(json.loads(about.get("model_args", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its model_args are no JSON object") from error
    if ":" in name:
        raise InputError(
            f"{path} asks for the network of another place, {quoted(name)}, which `lit-ssl export` "
            "never writes: build the network yourself, and load its weights with safetensors"
        )
    if reading := [key for key in _READING if args.get(key)]:
        raise InputError(
            f"{path} asks for another file, by {reading[0]}, which `lit-ssl export` never writes: "
            "build the network yourself, and load its weights with safetensors"
        )
    network = build_network(name, args)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the {name} that it names") from error
    return network.eval()


def input_size(network: nn.Module) -> list[int]:
    """``[C, H, W]`` that a network was made for; empty for other inputs than one image.

    Args:
        network: of timm or of this package.
    """
    if isinstance(network, TextBackbone):
        return []
    if isinstance(network, NeuralAttentiveCircuit):
        side, channels = (getattr(network.tokenizer, n, 0) for n in ("image_size", "in_channels"))
        return [int(channels), int(side), int(side)] if side else []
    size = list(getattr(network, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    embed = getattr(network, "patch_embed", None)
    if isinstance(network, SmallCNN):
        size[1:] = [network.img_size] * 2
    elif getattr(embed, "img_size", None):
        size[1:] = list(embed.img_size)  # type: ignore[union-attr]
    elif getattr(embed, "grid_size", None):  # a convolutional stem
        sides = zip(embed.grid_size, embed.patch_size, strict=True)  # type: ignore[union-attr]
        size[1:] = [count * patch for count, patch in sides]
    elif not hasattr(network, "pretrained_cfg"):
        size[1:] = [64, 64]  # a convolutional network of this package, of any size
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None:
        size[0] = first.in_channels
    return [int(side) for side in size]


def example_inputs(network: nn.Module) -> Any:
    """Two random inputs of a network, the same each time.

    Args:
        network: of timm or of this package.

    Returns:
        ``[2, C, H, W]``; for texts and circuits, what they read.
    """
    if isinstance(network, NeuralAttentiveCircuit):
        return network.tokenizer.example(2)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    size = input_size(network)
    if size:
        return torch.randn(2, *size, generator=generator)
    words: Tensor = torch.randint(1, network.model.config.vocab_size, (2, 8), generator=generator)  # type: ignore
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}
