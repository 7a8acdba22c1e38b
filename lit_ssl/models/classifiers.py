"""Trained image classifiers by name: timm's, transformers', torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputImportError, did_you_mean
from lit_ssl.models.backbones import conv_stem  # noqa: F401 - registers its names with timm
from lit_ssl.models.backbones.fetching import do_weights_follow, fetching, without_weights
from lit_ssl.transforms.preprocessing import Preprocessing, without_long_ends

__all__ = ["Classifier", "load_classifier"]

_FORMS = (
    "timm:NAME, hf:NAME_OR_FOLDER, torchvision:NAME, torchvision:NAME@WEIGHTS, or (in "
    "PretrainedClassifier) the path of a checkpoint (.ckpt) of this package"
)
_INSTEAD = "give as model a local file or folder"


class Classifier(NamedTuple):
    """A network with what belongs to it.

    Attributes:
        network: Maps images ``[B, 3, H, W]`` to logits ``[B, outputs]``.
        outputs: Width of the logits.
        preprocessing: The transform that the network was made for.
        name: For reports.
    """

    network: nn.Module
    outputs: int
    preprocessing: Preprocessing
    name: str


def load_classifier(
    model: str, pretrained: bool = True, model_kwargs: Mapping[str, Any] | None = None
) -> Classifier:
    """Build a classifier with its weights and its own preprocessing.

    Args:
        model: ``timm:NAME``, ``hf:NAME_OR_FOLDER`` (transformers), ``torchvision:NAME`` with the
            library's best weights or ``torchvision:NAME@WEIGHTS``.
        pretrained: False leaves the weights random, for trying things out; so they are where
            weights follow (``lit_ssl.models.backbones.fetching.weights_follow``).
        model_kwargs: Passed to timm's or torchvision's constructor.

    Raises:
        ValueError: If there is no such model, or its weights cannot be had.
    """
    kind, colon, name = model.partition(":")
    loaders = {"timm": _timm, "hf": _transformers, "torchvision": _torchvision}
    if colon and kind in loaders:
        wanted = pretrained and not do_weights_follow()
        return loaders[kind](name, wanted, dict(model_kwargs or {}))
    raise InputError(f"model {model!r} is none of {_FORMS}")


def _timm(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Classifier:
    if not timm.is_model(name) and "/" not in name:
        raise InputError(f"timm has no model {name!r}.{did_you_mean(name, timm.list_models())}")
    with fetching(f"timm:{name}", _INSTEAD):
        network = timm.create_model(name, pretrained=pretrained, **without_weights(kwargs))
    given = {key: kwargs[key] for key in ("img_size",) if key in kwargs}
    config = timm.data.resolve_model_data_config(network, args=given)
    steps = timm.data.create_transform(**config, is_training=False, use_prefetcher=True)
    if config["crop_mode"] == "center":
        steps = T.Compose([without_long_ends, steps])
    text = (
        f"timm's for {name}: {config['input_size'][-1]} pixels, {config['interpolation']}, crop "
        f"{config['crop_pct']:g} ({config['crop_mode']})"
    )
    preprocessing = Preprocessing(steps, config["mean"], config["std"], text)
    return Classifier(network, cast(int, network.num_classes), preprocessing, name)


class _Logits(nn.Module):
    """Logits of a transformers model, alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, outputs]``."""
        return self.model(pixel_values=images).logits


class _Processor:
    """A transformers image processor for one image; gives normalised pixels."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(image, return_tensors="pt")["pixel_values"][0].to(torch.float32)


def _transformers(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Classifier:
    try:
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise InputImportError(
            f"hf:{name} needs transformers: pip install 'lit-ssl[hf]'"
        ) from error
    with fetching(f"hf:{name}", _INSTEAD, ValueError):
        # else transformers would ask on the terminal whether to run what the folder holds
        trusts = bool(kwargs.setdefault("trust_remote_code", False))
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=trusts)
        if pretrained:
            model = AutoModelForImageClassification.from_pretrained(name, **kwargs)
        else:
            config = AutoConfig.from_pretrained(name, **kwargs)
            model = AutoModelForImageClassification.from_config(config, trust_remote_code=trusts)
    text = f"transformers' for {name} ({type(processor).__name__})"
    preprocessing = Preprocessing(_Processor(processor), text=text)
    return Classifier(_Logits(model), int(model.config.num_labels), preprocessing, Path(name).name)


def _torchvision(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Classifier:
    from torchvision import models

    name, _, weights_name = name.partition("@")
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier {name!r}.{did_you_mean(name, known)}")
    choices = models.get_model_weights(name)
    if weights_name and weights_name not in choices.__members__:
        hint = did_you_mean(weights_name, choices.__members__)
        raise InputError(f"torchvision's {name} has no weights {weights_name!r}.{hint}")
    weights = choices[weights_name] if weights_name else choices.DEFAULT
    with fetching(f"torchvision:{name}", _INSTEAD):
        network = models.get_model(name, weights=weights if pretrained else None, **kwargs)
    steps = weights.transforms()
    size = steps.crop_size[0]
    text = f"torchvision's for {name}@{weights.name}: resize {steps.resize_size[0]}, crop {size}"
    label = f"{name}@{weights.name}" if weights_name else name
    outputs = kwargs.get("num_classes", len(weights.meta["categories"]))
    return Classifier(
        network, outputs, Preprocessing(T.Compose([without_long_ends, steps]), text=text), label
    )
