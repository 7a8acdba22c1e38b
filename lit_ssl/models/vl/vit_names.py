"""timm's vision transformer in the words of transformers' ViLT."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lit_ssl.errors import InputError, listed

__all__ = ["vit_to_vilt"]

_TOP = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = tuple(f"attention.attention.{name}" for name in ("query", "key", "value"))
# classifiers, of trainings on images alone
_HEADS = ("head.", "head_dist.")


def vit_to_vilt(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Rename the weights of a vision transformer; queries, keys and values are split.

    Args:
        state: by timm's names. A classifier is left out.
        what: where they come from, for the message.

    Returns:
        By the names of transformers' ``ViltModel``, without the text and the pooler.

    Raises:
        ValueError: if ViLT has no such part.

    Source: the two public implementations, whose blocks compute the same.
    """
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, value in state.items():
        if name.startswith(_HEADS):
            continue
        stem, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        if name in _TOP:
            renamed[_TOP[name]] = value
        elif stem in _TOP:
            renamed[f"{_TOP[stem]}.{kind}"] = value
        elif block and block[2] == "attn.qkv":
            for target, part in zip(_QKV, torch.chunk(value, 3), strict=True):
                renamed[f"encoder.layer.{block[1]}.{target}.{kind}"] = part
        elif block and block[2] in _BLOCK:
            renamed[f"encoder.layer.{block[1]}.{_BLOCK[block[2]]}.{kind}"] = value
        else:
            unknown.append(name)
    missing = [old for old in ("cls_token", "pos_embed") if old not in state]
    if unknown or missing:
        odd = f"has {listed(unknown, 3)}" if unknown else f"lacks {', '.join(missing)}"
        raise InputError(
            f"{what} is no vision transformer that ViLT can start from: it {odd}; give a plain ViT "
            "with a class token, such as vit_base_patch32_384"
        )
    return renamed
