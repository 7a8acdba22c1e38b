"""Parameter groups: with and without weight decay, and with learning rates that fall by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from timm.models import group_parameters
from torch import nn

from lit_ssl.errors import InputError

__all__ = ["decay_groups", "is_bias_or_norm", "layer_decay_groups"]

Named = Iterable[tuple[str, nn.Parameter]]


def is_bias_or_norm(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is usually not decayed: 1-D tensors (biases, norms, layer scales).

    Args:
        name: not used; others decide by it.
        parameter: of any shape.
    """
    return parameter.ndim <= 1


def decay_groups(
    named_parameters: Named,
    weight_decay: float,
    exclude: Callable[[str, nn.Parameter], bool] = is_bias_or_norm,
) -> list[dict[str, Any]]:
    """Split trainable parameters into a decayed and an undecayed group.

    Args:
        named_parameters: from ``module.named_parameters()``; frozen ones are left out.
        weight_decay: of the decayed group.
        exclude: which parameters are not decayed, by name and tensor.

    Returns:
        Groups named ``decay`` and ``no_decay`` (empty ones left out); ``group["decay"]`` tells them
        apart for [`set_schedules`][lit_ssl.optim.set_schedules].
    """
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            split[not exclude(name, parameter)].append(parameter)
    groups = [
        {"params": split[True], "name": "decay", "decay": True, "weight_decay": weight_decay},
        {"params": split[False], "name": "no_decay", "decay": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def layer_decay_groups(
    backbone: nn.Module,
    head: Named,
    weight_decay: float,
    layer_decay: float,
    exclude: Callable[[str, nn.Parameter], bool] = is_bias_or_norm,
) -> list[dict[str, Any]]:
    """Groups whose learning rate is multiplied by ``layer_decay`` for each layer below the head.

    Layers are those of timm's ``group_matcher``: the blocks of a vision transformer, with its final
    norm in the last one and patches and positions below the first; the residual blocks of a ResNet.

    Args:
        backbone: network of timm without classifier.
        head: named parameters of what is above it; they keep the whole learning rate.
        weight_decay: of the decayed groups.
        layer_decay: in (0, 1].
        exclude: which parameters are not decayed, by name (in the backbone or head) and tensor.

    Returns:
        As of [`decay_groups`][lit_ssl.optim.decay_groups], for each layer, with the factor of the
        learning rate as ``lr_scale``, which [`set_schedules`][lit_ssl.optim.set_schedules] applies.

    Raises:
        ValueError: if the backbone does not tell its layers.

    Source: as in BEiT and MAE (arXiv 2111.06377), but for the final norm, which they give the whole
    learning rate.
    """
    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise InputError(
            f"layer_decay {layer_decay:g} needs a network that tells its layers, as timm's do by "
            f"group_matcher, which {type(backbone).__name__} lacks: set layer_decay to 1"
        )
    layer_of: dict[str, int] = group_parameters(backbone, matcher(coarse=False), reverse=True)
    top = max(layer_of.values()) + 1
    layers: dict[int, list[tuple[str, nn.Parameter]]] = {top: list(head)}
    for name, parameter in backbone.named_parameters():
        layers.setdefault(layer_of[name], []).append((name, parameter))
    return [
        {
            **group,
            "name": f"layer_{layer}/{group['name']}",
            "lr_scale": layer_decay ** (top - layer),
        }
        for layer, named in sorted(layers.items())
        for group in decay_groups(named, weight_decay, exclude)
    ]
