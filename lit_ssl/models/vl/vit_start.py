"""A vision transformer that ViLT starts from: its sizes and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from timm.layers import QuickGELU
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputFileNotFoundError, did_you_mean
from lit_ssl.models.backbones.fetching import do_weights_follow, fetching, without_weights
from lit_ssl.models.backbones.hub_files import fetch, is_hub_name
from lit_ssl.models.vl.vit_names import vit_to_vilt

__all__ = ["VitStart", "vit_start"]

_ON_THE_HUB = ("model.safetensors", "pytorch_model.bin")


class VitStart(NamedTuple):
    """What ViLT takes from a vision transformer.

    Attributes:
        fields: of transformers' ``ViltConfig``.
        state: weights by the names of ``ViltModel``; None where others follow.
    """

    fields: dict[str, Any]
    state: dict[str, Tensor] | None


def vit_start(source: str, fields: Mapping[str, Any]) -> VitStart:
    """Read a vision transformer.

    Args:
        source: name of timm, whose weights are fetched, or a file with the state dict of one (or
            ``hf-hub:USER/NAME``, where one is); a file gives no sizes.
        fields: of ``ViltConfig``. timm fits patches and positions to another ``image_size`` and
            ``patch_size``; other sizes have to be those of the model.

    Raises:
        FileNotFoundError: if it is neither a name nor a file.
        ValueError: if it is no plain vision transformer with a class token, or a field differs.
    """
    if is_hub_name(source):
        file = None if do_weights_follow() else str(fetch(source, _ON_THE_HUB).path)
        return VitStart({}, None if file is None else _of_file(file))
    if Path(source).is_file():
        return VitStart({}, None if do_weights_follow() else _of_file(source))
    if not timm.is_model(source):
        near = did_you_mean(source, timm.list_models("vit_*"), list_up_to=0)
        raise InputFileNotFoundError(f"vit_weights {source} is no file and no model of timm.{near}")
    sizes = {"img_size": "image_size", "patch_size": "patch_size", "in_chans": "num_channels"}
    asked = {name: fields[field] for name, field in sizes.items() if field in fields}
    kwargs = without_weights({"num_classes": 0, "pretrained": True, **asked})
    instead = "give vit_weights a file with the state dict of that model"
    with fetching(f"{source} as vit_weights", instead):
        vit = timm.create_model(source, **kwargs)
    if not isinstance(vit, VisionTransformer):
        raise InputError(f"vit_weights {source} is a {type(vit).__name__}, no vision transformer")
    state = vit_to_vilt(vit.state_dict(), source)
    found = _fields(vit, source)
    for name, value in found.items():
        if name in fields and fields[name] != value:
            raise InputError(
                f"{name} is {fields[name]} in the config but {value} in {source}: leave it out"
            )
    return VitStart(found, None if do_weights_follow() else state)


def _of_file(path: str) -> dict[str, Tensor]:
    try:
        state = load_state_dict(path, use_ema=False, weights_only=True)
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # each reader has its own kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"vit_weights {path} cannot be read as weights: {reason}") from error
    return vit_to_vilt(tensors, path)


def _fields(vit: VisionTransformer, name: str) -> dict[str, Any]:
    block: Any = vit.blocks[0]
    act = block.mlp.act
    # the same names of weights, but another function
    acts = {nn.GELU: "gelu", QuickGELU: "quick_gelu"}
    if type(act) not in acts or getattr(act, "approximate", "none") != "none":
        raise InputError(f"vit_weights {name} has the activation {act}, not GELU or QuickGELU")
    embed: Any = vit.patch_embed
    return {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": acts[type(act)],
        "qkv_bias": block.attn.qkv.bias is not None,
        "image_size": _side(embed.img_size),
        "patch_size": _side(embed.patch_size),
        "num_channels": embed.proj.in_channels,
    }


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)
