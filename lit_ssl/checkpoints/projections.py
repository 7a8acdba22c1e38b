"""The first layer of a projection head, from checkpoints that have one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lit_ssl.checkpoints.msn import read_msn_weights, read_state_dict
from lit_ssl.checkpoints.paws import read_paws_weights
from lit_ssl.errors import InputError

__all__ = ["read_first_projection"]


def read_first_projection(path: str | Path) -> dict[str, Tensor]:
    """Read ``fc1`` and ``bn1`` of a projection head.

    Args:
        path: Lightning checkpoint of PAWS, MSN or their relatives (of MSN the slow copy), or an
            official checkpoint of either.

    Returns:
        Tensors on the CPU, named ``fc1.weight``, ``bn1.running_mean`` and so on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no projection head with two layers or more.
    """
    head = _projection_head(path)
    first = {k: v for k, v in head.items() if k.startswith(("fc1.", "bn1."))}
    if "bn1.weight" not in first or "fc2.weight" not in head:
        raise InputError(
            f"{path} has no projection head whose first layer (fc1, bn1) could be kept: leave out "
            "proj_hidden_dim to put the classifier on the backbone"
        )
    return first


def _projection_head(path: str | Path) -> Mapping[str, Tensor]:
    content = read_state_dict(path)
    if "pytorch-lightning_version" in content:
        state = content["state_dict"]
        for prefix in ("target_head.", "projection_head."):
            head = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if head:
                return head
        return {}
    if "target_encoder" in content:
        return read_msn_weights(path).target_head or {}
    if isinstance(content.get("encoder"), Mapping):
        return read_paws_weights(path).projection_head or {}
    return {}
