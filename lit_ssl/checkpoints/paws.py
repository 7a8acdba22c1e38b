"""Foreign weights of PAWS: official checkpoints, backbones with timm's or torchvision's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lit_ssl.checkpoints.msn import read_state_dict
from lit_ssl.errors import InputError

__all__ = ["PAWSWeights", "read_paws_weights"]

StateDict = dict[str, Tensor]


class PAWSWeights(NamedTuple):
    """Weights of a PAWS with the names of its parts; None where a file has no such part."""

    backbone: StateDict
    projection_head: StateDict | None = None
    prediction_head: StateDict | None = None


def read_paws_weights(path: str | Path) -> PAWSWeights:
    """Read weights for PAWS of any known origin.

    - Lightning checkpoint of PAWS, RoPAWS or SuNCEt;
    - official checkpoint: key ``encoder``, names prefixed by ``module.``, the projection head under
      ``fc.`` and the prediction head under ``pred.``;
    - a state dict of a backbone alone, as ``lit-ssl export``, timm or torchvision write it; a
      classifier (``fc``, ``head`` or ``classifier``) is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds neither.
    """
    state = read_state_dict(path)
    if "pytorch-lightning_version" in state:
        return _of_lightning(state["state_dict"], path)
    if isinstance(state.get("encoder"), Mapping):
        names = {key.removeprefix("module."): value for key, value in state["encoder"].items()}
        backbone = {k: v for k, v in names.items() if not k.startswith(("fc.", "pred."))}
        head = {k.removeprefix("fc."): v for k, v in names.items() if k.startswith("fc.")}
        pred = {k.removeprefix("pred."): v for k, v in names.items() if k.startswith("pred.")}
        return PAWSWeights(backbone, head or None, pred or None)
    if state and all(isinstance(value, Tensor) for value in state.values()):
        classifier = ("fc.", "head.", "classifier.")
        return PAWSWeights({k: v for k, v in state.items() if not k.startswith(classifier)})
    raise InputError(
        f"{path} holds no weights for PAWS: expected a Lightning checkpoint of it, an official "
        "checkpoint (key 'encoder') or the state dict of a backbone; found "
        f"{sorted(map(str, state))[:5]}"
    )


def _of_lightning(state: Mapping[str, Tensor], path: str | Path) -> PAWSWeights:
    parts = [
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        for prefix in ("backbone.", "projection_head.", "prediction_head.")
    ]
    if not parts[0] or any(key.startswith("target_") for key in state):
        found = sorted({key.partition(".")[0] for key in state})
        raise InputError(
            f"{path} is no checkpoint of PAWS: it has {', '.join(found[:6])}; write its encoder to "
            "a file, `lit-ssl export CHECKPOINT encoder.safetensors`, and give that one"
        )
    return PAWSWeights(parts[0], parts[1] or None, parts[2] or None)
