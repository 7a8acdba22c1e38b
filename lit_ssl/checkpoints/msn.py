"""Foreign weights of MSN: official checkpoints, transformers' ViTMSN, timm-named exports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputFileNotFoundError

__all__ = ["MSNWeights", "read_msn_weights", "read_state_dict", "vit_msn_to_timm"]

StateDict = dict[str, Tensor]

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


class MSNWeights(NamedTuple):
    """Weights of an MSN with timm's (or the head's) names; None where a file has no such part."""

    target_backbone: StateDict
    backbone: StateDict | None = None
    target_head: StateDict | None = None
    head: StateDict | None = None
    prototypes: Tensor | None = None


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Read a weight file or a transformers folder; nothing in it is executed.

    Args:
        path: ``.safetensors``, any file of ``torch.save``, or a folder with ``model.safetensors``
            or ``pytorch_model.bin``.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
        path = next((f for f in found if f.exists()), found[0])
    if not path.is_file():
        raise InputFileNotFoundError(
            f"no weights at {path}: give a .safetensors, .pth or .pth.tar file"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def read_msn_weights(path: str | Path) -> MSNWeights:
    """Read MSN weights of any known origin.

    - official checkpoint: keys ``encoder``, ``target_encoder`` (names prefixed by ``module.``, the
      projection head under ``fc.``) and ``prototypes``;
    - transformers' ``ViTMSNModel`` or ``ViTMSNForImageClassification``;
    - a state dict with timm's names, as ``lit-ssl export`` writes it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds none of these.
    """
    state = read_state_dict(path)
    if "target_encoder" in state:
        target, target_head = _split_official(state["target_encoder"])
        online, head = _split_official(state["encoder"]) if "encoder" in state else (None, None)
        return MSNWeights(target, online, target_head, head, state.get("prototypes"))
    if any("embeddings.patch_embeddings" in key for key in state):
        return MSNWeights(vit_msn_to_timm(state))
    if "patch_embed.proj.weight" in state:
        return MSNWeights({k: v for k, v in state.items() if not k.startswith("head.")})
    raise InputError(
        f"{path} holds no weights of MSN: expected an official checkpoint (key 'target_encoder'), "
        f"a transformers ViTMSN, or timm names; found {sorted(map(str, state))[:5]}"
    )


def _split_official(state: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    names = {key.removeprefix("module."): value for key, value in state.items()}
    head = {k.removeprefix("fc."): v for k, v in names.items() if k.startswith("fc.")}
    return {k: v for k, v in names.items() if not k.startswith(("fc.", "pred."))}, head


def vit_msn_to_timm(state: Mapping[str, Tensor]) -> StateDict:
    """Rename transformers' ViTMSN weights to timm's names (queries, keys and values are joined).

    Raises:
        ValueError: if a name is not known.
    """
    out: StateDict = {}
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
