"""Weights of an encoder from any file that may hold one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_ssl.checkpoints.msn import read_msn_weights, read_state_dict
from lit_ssl.checkpoints.paws import read_paws_weights
from lit_ssl.errors import InputError

__all__ = ["load_encoder", "read_encoder_weights"]

StateDict = dict[str, Tensor]

_CLASSIFIER = re.compile(r"(?:fc|head|head_dist|classifier|head\.fc)\.(?:weight|bias)")
_HEADS = ("fc.", "head.", "head_dist.", "classifier.", "pred.")
_SHOWN = 3


def read_encoder_weights(path: str | Path, online: bool = False) -> StateDict:
    """Read the weights of a backbone, with timm's names (torchvision's for a ResNet-50).

    Classifiers and projection heads are left out. Nothing in the file is executed. Read are

    - a Lightning checkpoint of a module with ``backbone``, such as those of this package and their
      subclasses; of one with ``target_backbone`` (MSN, PMSN) that slow copy;
    - what ``lit-ssl export`` writes, and the state dict of any timm or torchvision model, by itself
      or under ``state_dict`` or ``model``, ``.safetensors`` or of ``torch.save``;
    - official checkpoints of MSN (the target encoder) and PAWS;
    - transformers' ViTMSN: a folder or a file.

    Args:
        path: file or folder.
        online: take the trained backbone of MSN, not its slow copy. Files with one backbone only
            give that one.

    Returns:
        Tensors on the CPU by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds no backbone.
    """
    try:
        content = read_state_dict(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # each reader has its own kinds
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} cannot be read as a file of weights: {reason}") from error
    state = _backbone_of(content, path, online)
    return {k: v for k, v in _plain_names(state).items() if not _CLASSIFIER.fullmatch(k)}


def load_encoder(backbone: nn.Module, path: str | Path, online: bool = False) -> None:
    """Load the weights of :func:`read_encoder_weights` into a network, all of them.

    Args:
        backbone: a network of timm or torchvision, or a :class:`lit_ssl.models.ClassTokenViT`.
        path: file or folder.
        online: see :func:`read_encoder_weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or its weights are not those of the network; only
            classifiers may be there in one and not in the other.
    """
    wanted = backbone.state_dict()
    inside = "vit." if wanted and all(key.startswith("vit.") for key in wanted) else ""
    wanted = {key.removeprefix(inside): value for key, value in wanted.items()}
    state = read_encoder_weights(path, online)
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(_HEADS)}
    own_classifier = {key for key in wanted if _CLASSIFIER.fullmatch(key)}
    missing = [key for key in wanted if key not in state and key not in own_classifier]
    unexpected = [key for key in state if key not in wanted]
    shapes = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or unexpected or shapes:
        raise InputError(_misfit(path, state, wanted, missing, unexpected, shapes))
    backbone.load_state_dict({inside + k: v for k, v in state.items()}, strict=not own_classifier)


def _backbone_of(content: dict[str, Any], path: str | Path, online: bool) -> StateDict:
    """The part of a file that holds the backbone, under the names it has there."""
    if "pytorch-lightning_version" in content:
        return _of_lightning(content.get("state_dict", {}), path, online)
    if "target_encoder" in content:
        weights = read_msn_weights(path)
        return weights.backbone if online and weights.backbone else weights.target_backbone
    if isinstance(content.get("encoder"), Mapping):
        return read_paws_weights(path).backbone
    if any("embeddings.patch_embeddings" in str(key) for key in content):
        return read_msn_weights(path).target_backbone
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = dict(content[key])
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    raise InputError(
        f"{path} holds no weights of a backbone: expected a Lightning checkpoint, a file of "
        "`lit-ssl export`, an official checkpoint of MSN or PAWS, transformers' ViTMSN, or the "
        f"state dict of a timm or torchvision model; found {sorted(map(str, content))[:5]}"
    )


def _of_lightning(state: Mapping[str, Tensor], path: str | Path, online: bool) -> StateDict:
    names = ("backbone.",) if online else ("target_backbone.", "backbone.")
    for prefix in names:
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if part:
            return part
    found = sorted({key.partition(".")[0] for key in state})
    raise InputError(
        f"{path} is a checkpoint of a module without `backbone`, but with {found[:5]}: write its "
        "encoder to a file first, `lit-ssl export CHECKPOINT encoder.safetensors`, and give that "
        "one"
    )


def _plain_names(state: Mapping[str, Tensor]) -> StateDict:
    """Names without what torch.compile, DDP or ClassTokenViT put in front of them."""
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    for prefix in ("module.", "vit."):
        if plain and all(key.startswith(prefix) for key in plain):
            plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _misfit(
    path: str | Path,
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
) -> str:
    """What differs between the weights of a file and those of a network, in one line."""
    differing = [f"{k} {_shape(state[k])} instead of {_shape(wanted[k])}" for k in shapes]
    if shapes == ["pos_embed"] and not missing and not unexpected:
        return (
            f"the weights in {path} have position embeddings for another image size: pos_embed is "
            f"{_shape(state['pos_embed'])} there, {_shape(wanted['pos_embed'])} in the backbone; "
            "give the size of the training as img_size in backbone_kwargs (images may have "
            "another size where positions are interpolated)"
        )
    parts = [
        f"{what} {', '.join(keys[:_SHOWN])}{' …' if len(keys) > _SHOWN else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", differing),
        )
        if keys
    ]
    total = len(missing) + len(unexpected) + len(shapes)
    return (
        f"the weights in {path} are not those of the backbone: {total} differ in name or shape "
        f"({'; '.join(parts)}); give its timm name as backbone, and its arguments as "
        "backbone_kwargs"
    )


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
