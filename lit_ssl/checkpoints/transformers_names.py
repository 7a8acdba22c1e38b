"""Vision transformers and ResNets of timm by the names and settings of transformers' classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.layers import LayerScale, PatchEmbed, QuickGELU
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.class_token import class_token_problem

__all__ = ["Counterpart", "counterpart", "resnet_to_timm"]

# timm's and torchvision's ResNet → transformers'
_RESNET = [
    (r"conv1\.(.+)", r"embedder.embedder.convolution.\1"),
    (r"bn1\.(.+)", r"embedder.embedder.normalization.\1"),
    (r"downsample\.0\.(.+)", r"shortcut.convolution.\1"),
    (r"downsample\.1\.(.+)", r"shortcut.normalization.\1"),
]
_EPS = 1e-5  # of BatchNorm in transformers' ResNet


class Counterpart(NamedTuple):
    """What a class of transformers needs to compute the same.

    Attributes:
        kind: name of the class.
        config: its settings, by the names of its configuration.
        state: its weights, by the names that all its versions read.
        features: the expression for the features in its output.
    """

    kind: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    features: str


def counterpart(network: nn.Module) -> Counterpart:
    """The class of transformers that computes what a network of timm computes.

    A plain vision transformer with a class token is a ``ViTMSNModel``: queries, keys and values
    are parted, layer scale is multiplied into the projections before it, and where the class token
    has no position of its own that is zero. A plain ResNet is a ``ResNetModel``.

    Args:
        network: of timm.

    Raises:
        InputError: if no class computes the same, with the reason.
    """
    if isinstance(network, VisionTransformer):
        return _vit(network)
    if isinstance(network, ResNet):
        return _resnet(network)
    raise InputError(
        f"transformers has no class here for a {type(network).__name__}: vision transformers with "
        "a class token (ViTMSNModel) and ResNets (ResNetModel) can be written; export others as "
        ".safetensors or as a folder for timm"
    )


def _refused(kind: str, why: str) -> InputError:
    return InputError(
        f"{kind} does not compute what this network computes: {why}; export it as .safetensors or "
        "as a folder for timm"
    )


def _vit(vit: VisionTransformer) -> Counterpart:
    for why in (class_token_problem(vit), _odd_part(vit)):
        if why:
            raise _refused("ViTMSNModel", why)
    block: Any = vit.blocks[0]
    embed: Any = vit.patch_embed
    norm: Any = vit.norm if isinstance(vit.norm, nn.LayerNorm) else vit.fc_norm
    has_bias = block.attn.qkv.bias is not None
    config = {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": _ACTS[type(block.mlp.act)],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": norm.eps,
        "image_size": _side(embed.img_size),
        "patch_size": _side(embed.patch_size),
        "num_channels": embed.proj.in_channels,
        "qkv_bias": has_bias,
    }
    state = {
        "embeddings.cls_token": vit.cls_token,
        "embeddings.position_embeddings": _positions(vit),
        "embeddings.patch_embeddings.projection.weight": embed.proj.weight,
        "embeddings.patch_embeddings.projection.bias": _bias(embed.proj),
        "layernorm.weight": norm.weight,
        "layernorm.bias": norm.bias,
    }
    for number, layer in enumerate(vit.blocks):
        state |= {f"encoder.layer.{number}.{k}": v for k, v in _layer(layer, has_bias).items()}
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    return Counterpart("ViTMSNModel", config, state, ".last_hidden_state[:, 0]")


_ACTS = {nn.GELU: "gelu", QuickGELU: "quick_gelu", nn.ReLU: "relu", nn.SiLU: "silu"}


def _odd_part(vit: VisionTransformer) -> str | None:
    """Which part ``ViTMSNModel`` does not have; None: none."""
    if type(vit.patch_embed) is not PatchEmbed or not _is_none(vit.patch_embed.norm):
        return f"its patches come out of a {type(vit.patch_embed).__name__}"
    if vit.reg_token is not None:
        return "it has register tokens"
    if vit.pos_embed is None:
        return "it has no table of positions"
    if not _is_none(vit.norm_pre):
        return "it has a norm in front of its blocks (pre_norm)"
    norms: list[Any] = [norm for norm in (vit.norm, vit.fc_norm) if not _is_none(norm)]
    for block in vit.blocks:
        if why := _odd_block(block):
            return why
        norms += [block.norm1, block.norm2]
    if len(norms) != 1 + 2 * len(vit.blocks):
        return "it has not one norm behind its blocks"
    if any(not isinstance(norm, nn.LayerNorm) or norm.bias is None for norm in norms):
        return "its norms are no LayerNorms with weight and bias"
    if len({norm.eps for norm in norms}) > 1:
        return "its LayerNorms have different eps"
    return None


def _odd_block(block: Any) -> str | None:
    """What a block has beside attention, MLP and layer scale; None: nothing."""
    attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    if attn is None or mlp is None or not hasattr(attn, "qkv"):
        return f"its blocks are of another kind ({type(block).__name__})"
    own = {name.partition(".")[0] for name, _ in block.named_parameters()}
    if not own <= {"norm1", "attn", "ls1", "norm2", "mlp", "ls2"}:
        return f"its blocks are of another kind ({type(block).__name__})"
    if not {name.partition(".")[0] for name, _ in attn.named_parameters()} <= {"qkv", "proj"}:
        return "it norms or gates queries, keys or what attention gives"
    if attn.qkv.out_features != 3 * attn.qkv.in_features:
        return "its heads have a width of their own (attn_head_dim)"
    parts = {name.partition(".")[0] for name, _ in mlp.named_parameters()}
    if parts != {"fc1", "fc2"} or mlp.fc1.out_features != mlp.fc2.in_features:
        return f"its MLPs are of another kind ({type(mlp).__name__})"
    act = mlp.act
    if type(act) not in _ACTS or getattr(act, "approximate", "none") != "none":
        return f"its activation is {act}"
    return None


def _layer(block: Any, has_bias: bool) -> dict[str, Tensor]:
    """The weights of a block, with what layer scale multiplies multiplied into them."""
    state = {
        "layernorm_before.weight": block.norm1.weight,
        "layernorm_before.bias": block.norm1.bias,
        "layernorm_after.weight": block.norm2.weight,
        "layernorm_after.bias": block.norm2.bias,
        "intermediate.dense.weight": block.mlp.fc1.weight,
        "intermediate.dense.bias": _bias(block.mlp.fc1),
    }
    for kind in ("weight", "bias")[: 2 if has_bias else 1]:
        parts = getattr(block.attn.qkv, kind).chunk(3)
        for part, value in zip(("query", "key", "value"), parts, strict=True):
            state[f"attention.attention.{part}.{kind}"] = value
    for place, layer, scale in (
        ("attention.output.dense", block.attn.proj, block.ls1),
        ("output.dense", block.mlp.fc2, block.ls2),
    ):
        gamma = scale.gamma if isinstance(scale, LayerScale) else torch.ones(layer.out_features)
        state[f"{place}.weight"] = gamma[:, None] * layer.weight
        state[f"{place}.bias"] = gamma * _bias(layer)
    return state


def _positions(vit: VisionTransformer) -> Tensor:
    table: Any = vit.pos_embed
    if vit.no_embed_class:
        return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    return table


def _bias(layer: Any) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _is_none(part: Any) -> bool:
    return part is None or isinstance(part, nn.Identity)


def _resnet(net: ResNet) -> Counterpart:
    stages: list[Any] = [net.layer1, net.layer2, net.layer3, net.layer4]
    blocks = [block for stage in stages for block in stage]
    kind = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}.get(type(blocks[0]).__name__)
    conv: Any = net.conv1
    why = None
    if kind is None:
        why = f"its blocks are of another kind ({type(blocks[0]).__name__})"
    elif not isinstance(conv, nn.Conv2d) or conv.kernel_size != (7, 7):
        why = "its first layer is no convolution over 7 × 7 pixels"
    elif any(isinstance(part, nn.BatchNorm2d) and part.eps != _EPS for part in net.modules()):
        why = f"its BatchNorm has another eps than {_EPS:g}"
    if why:
        raise _refused("ResNetModel", why)
    config = {
        "num_channels": conv.in_channels,
        "embedding_size": conv.out_channels,
        "hidden_sizes": [
            (stage[0].conv3 if kind == "bottleneck" else stage[0].conv2).out_channels
            for stage in stages
        ],
        "depths": [len(stage) for stage in stages],
        "layer_type": kind,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    state = {}
    for name, value in net.state_dict().items():
        renamed = _to_transformers(name)
        if renamed is None:
            raise _refused("ResNetModel", f"it has parts of other kinds ({name})")
        state[renamed] = value.detach().clone().contiguous()
    return Counterpart("ResNetModel", config, state, ".pooler_output.flatten(1)")


def _to_transformers(name: str) -> str | None:
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name):
        stage, number, rest = found.groups()
        place = f"encoder.stages.{int(stage) - 1}.layers.{number}."
        if inner := re.fullmatch(r"(conv|bn)(\d)\.(.+)", rest):
            kind = "convolution" if inner[1] == "conv" else "normalization"
            return f"{place}layer.{int(inner[2]) - 1}.{kind}.{inner[3]}"
    else:
        place, rest = "", name
    for pattern, replacement in _RESNET[2:] if place else _RESNET[:2]:
        if re.fullmatch(pattern, rest):
            return place + re.sub(pattern, replacement, rest)
    return None


_FROM_TRANSFORMERS = [
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"\bshortcut\.convolution\.", "downsample.0."),
    (r"\bshortcut\.normalization\.", "downsample.1."),
]


def resnet_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of transformers' ResNet to timm's names.

    Args:
        state: of ``ResNetModel`` or a model with one as ``resnet``, whose classifier is left out.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("classifier."):
            continue
        name = key.removeprefix("resnet.")
        for pattern, replacement in _FROM_TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        name = re.sub(
            r"encoder\.stages\.(\d+)\.layers\.(\d+)\.",
            lambda found: f"layer{int(found[1]) + 1}.{found[2]}.",
            name,
        )
        name = re.sub(
            r"(?<=\.)layer\.(\d)\.(convolution|normalization)\.",
            lambda found: f"{'conv' if found[2] == 'convolution' else 'bn'}{int(found[1]) + 1}.",
            name,
        )
        out[name] = value
    return out
