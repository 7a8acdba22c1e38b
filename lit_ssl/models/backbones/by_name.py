"""Backbones by name: timm's, and those of this package that timm does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones import conv_stem  # noqa: F401 - registers its names with timm
from lit_ssl.models.backbones.fetching import fetching, without_weights
from lit_ssl.models.backbones.multiplied_resnet import resnet50w2, resnet50w4
from lit_ssl.models.backbones.wide_resnet import WideResNet, wide_resnet28_2

__all__ = ["OWN_BACKBONES", "create_backbone"]

OWN_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet50w2": resnet50w2,
    "resnet50w4": resnet50w4,
    "wide_resnet": WideResNet,
    "wide_resnet28_2": wide_resnet28_2,
}


def create_backbone(
    backbone: str | nn.Module, kwargs: Mapping[str, Any] | None = None
) -> tuple[nn.Module, int]:
    """Build a network that maps images to one feature vector each.

    timm's ResNets start with all residual branches on (``zero_init_last`` false), as the
    self-supervised reference codes have them; ``kwargs`` can say otherwise.

    Args:
        backbone: a name of [`OWN_BACKBONES`][lit_ssl.models.OWN_BACKBONES] or of timm, which reads
            ``hf-hub:USER/NAME`` and ``local-dir:FOLDER``, too; or a module with ``embed_dim`` or
            ``num_features`` and ``forward(images) -> [B, D]``, which is returned as it is.
        kwargs: arguments of the network, only with a name.

    Returns:
        The network and its number of features D.

    Raises:
        ValueError: if there is no network of that name, or a module does not tell its width.
    """
    if isinstance(backbone, str):
        network = _by_name(backbone, dict(kwargs or {}))
    elif kwargs:
        raise InputError("backbone_kwargs belong to a backbone given by name; this one is a module")
    else:
        network = backbone
    # The first is timm's, and counts a hidden layer of the head; some of its models have an
    # embed_dim that is the width of their first stage.
    names = ("head_hidden_size", "embed_dim", "num_features")
    width = next((w for w in (getattr(network, n, None) for n in names) if w is not None), None)
    if not isinstance(width, int):
        raise InputError(
            f"the backbone {type(network).__name__} has neither embed_dim nor num_features: give "
            "it an attribute with the number of features that forward(images) returns"
        )
    return network, width


def _by_name(name: str, kwargs: dict[str, Any]) -> nn.Module:
    if name in OWN_BACKBONES:
        return OWN_BACKBONES[name](**kwargs)
    is_elsewhere = name.startswith(("hf-hub:", "local-dir:"))  # timm reads its config there
    if not is_elsewhere and not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5] or sorted(OWN_BACKBONES)
        raise InputError(
            f"there is no backbone {name!r}: give a name of timm or one of "
            f"{', '.join(sorted(OWN_BACKBONES))}; similar: {', '.join(near)}"
        )
    if timm.models.is_model_in_modules(name, ["resnet"]):
        kwargs.setdefault("zero_init_last", False)
    kwargs = {"num_classes": 0, **without_weights(kwargs)}
    what, instead = f"{name} with backbone_kwargs.pretrained: true", "leave that out"
    if is_elsewhere:
        what, instead = name, "give the timm name of the network"
    with fetching(what, instead, really=is_elsewhere or bool(kwargs.get("pretrained"))):
        return timm.create_model(name, **kwargs)
