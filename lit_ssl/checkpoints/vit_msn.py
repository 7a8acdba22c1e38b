"""The names of transformers' ViTMSN in timm's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["vit_msn_to_timm"]

# transformers has written two sets of names for the same weights; both are read.
_LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
_HF_TO_TIMM = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (_LAYER + r"layernorm_before\.(.+)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(.+)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:output\.dense|mlp\.fc2)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(.+)", r"norm.\1"),
]
_QKV = re.compile(
    _LAYER + r"attention\.(?:attention\.(query|key|value)|([qkv])_proj)\.(weight|bias)"
)


def vit_msn_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' ViTMSN weights to timm's names (queries, keys and values are joined).

    Args:
        state: the weights of ``ViTMSNModel`` or ``ViTMSNForImageClassification``; classifier and
            mask token are left out.

    Returns:
        The weights by timm's names, of the same shapes but for those that are joined.

    Raises:
        ValueError: if a name is not known.
    """
    out: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name = key.removeprefix("vit.")
        if name.startswith("classifier.") or name == "embeddings.mask_token":
            continue
        if match := _QKV.fullmatch(name):
            layer, long_name, short_name, kind = match.groups()
            parts.setdefault(f"blocks.{layer}.attn.qkv.{kind}", {})[
                (long_name or short_name)[0]
            ] = value
            continue
        for pattern, replacement in _HF_TO_TIMM:
            if re.fullmatch(pattern, name):
                out[re.sub(pattern, replacement, name)] = value
                break
        else:
            raise InputError(f"{key!r} is no weight of transformers' ViTMSN")
    out.update({name: torch.cat([part[p] for p in "qkv"]) for name, part in parts.items()})
    return out
