"""Export an encoder as safetensors that timm loads by itself, and check that it does."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.checkpoints.classes import ForeignClassError, Names
from lit_ssl.checkpoints.files import read_file
from lit_ssl.checkpoints.modules import find_class, load_module
from lit_ssl.checkpoints.origins import weights_of
from lit_ssl.checkpoints.prefixes import StateDict
from lit_ssl.errors import InputError, listed
from lit_ssl.files import write_file
from lit_ssl.models.backbones.vit import ClassTokenViT
from lit_ssl.models.exported import (
    build_network,
    example_inputs,
    input_size,
    is_of_timm,
    load_exported,
)
from lit_ssl.models.nac.circuit import CircuitOutput
from lit_ssl.models.nac.described import CIRCUITS
from lit_ssl.version import __version__

__all__ = ["export_checkpoint", "export_encoder"]

# Arguments of timm.create_model that choose weights or a classifier, not the network.
_NOT_ARCHITECTURE = ("pretrained", "checkpoint_path", "num_classes", "drop_path_rate", "drop_rate")
_ROUNDING = 1e-3  # of the largest feature, at least 1


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    model_name: str | None = None,
    class_path: str | None = None,
    prefix: str | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> str:
    """Write the encoder of a checkpoint, or of another file of weights, with timm's key names.

    Nothing in the file is executed, and it chooses no code: of checkpoints of other classes than
    this package's a person names the class, whose module tells the encoder.

    Args:
        checkpoint: file that a run wrote, or any other of
            ``lit_ssl.checkpoints.origins.read_weights``.
        out: file to write, ``.safetensors``; one that exists is not written over.
        model_name: name of the encoder, of timm or of this package; None: ``hparams.backbone``, if
            that is a name or a network of this package.
        class_path: class of the module, to take its ``encoder``; None: that of this package which
            the checkpoint names.
        prefix: of the encoder's names in the file; None: by the origin, or the one that fits.
        model_args: arguments of the encoder; None: those of the run, ``hparams.backbone_kwargs``.

    Returns:
        The Python expression that loads the file.

    Raises:
        InputError: if the checkpoint cannot be read or does not tell enough, or if the encoder is
            not the network of that name, or computes other features.
    """
    content = read_file(checkpoint, "checkpoint")
    found = content.get("hyper_parameters")
    hparams: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    stored = hparams.get("_class_path")
    encoder: nn.Module | StateDict | None = None
    if class_path is not None:
        encoder = _encoder_of_module(checkpoint, find_class(class_path), hparams)
    elif stored is not None and not str(stored).startswith("lit_ssl."):
        Names(checkpoint, how="if you trust it, name it yourself, --class {name}").find(stored)
    elif "pytorch-lightning_version" in content and prefix is None:
        encoder = _without_backbone(content, checkpoint, hparams)
    name, args = _network_of(hparams)
    name, args = model_name or name, args if model_args is None else model_args
    if name is None:
        raise InputError(
            f"the backbone of {checkpoint} is no timm name: give it, --model-name NAME."
        )
    by_class_token = False
    if encoder is None:
        network = build_network(name, _architecture(name, args))
        weights = weights_of(content, checkpoint, network, prefix)
        encoder, by_class_token = weights.encoder, weights.by_class_token
    data = content.get("datamodule_hyper_parameters")
    how = "export_encoder takes mean and std in Python"
    names = Names(checkpoint, [] if class_path is None else [class_path], how)
    mean, std = _normalisation(data if isinstance(data, Mapping) else {}, names)
    method = class_path or hparams.get("_class_path", "")
    options: dict[str, Any] = {"mean": mean, "std": std, "method": method}
    return export_encoder(encoder, out, name, args, **options, by_class_token=by_class_token)


def _without_backbone(
    content: Mapping[str, Any], path: str | Path, hparams: Mapping[str, Any]
) -> nn.Module | None:
    """The encoder of a module that keeps it elsewhere; None where weights tell the backbone."""
    try:
        weights_of(content, path)
    except InputError as error:
        if "_class_path" in hparams:
            return _encoder_of_module(path, Names(path).find(hparams["_class_path"]), hparams)
        raise InputError(
            f"{path} was made in Python: name its class, --class package.Class."
        ) from error
    return None


def _encoder_of_module(path: str | Path, kind: type, hparams: Mapping[str, Any]) -> nn.Module:
    """The encoder of a module of another package; where it pools by class token, with that."""
    module = load_module(path, kind, hparams)
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        name = f"{kind.__module__}.{kind.__name__}"
        raise InputError(f"{name} has no module `encoder` to export.")
    around = (m for m in module.modules() if isinstance(m, ClassTokenViT) and m.vit is encoder)
    return next(around, encoder)


def _network_of(hparams: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Name and arguments of the network of a run; of its classes only this package's are built."""
    circuit = hparams.get("net")
    backbone = hparams.get("backbone") if circuit is None else circuit
    if isinstance(backbone, Mapping) and str(backbone.get("class_path")).startswith("lit_ssl."):
        name = str(backbone["class_path"]).rpartition(".")[2]
        args = backbone.get("init_args")
        args = args if isinstance(args, Mapping) else {}
        return name, args if circuit is None else {
            **args,
            "num_classes": hparams.get("num_classes", 0),
        }
    args = hparams.get("backbone_kwargs")
    return backbone if isinstance(backbone, str) else None, args if isinstance(
        args, Mapping
    ) else {}


def _architecture(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    if name in CIRCUITS:  # whose classifier is part of what a module computes
        return dict(args)
    return {key: value for key, value in args.items() if key not in _NOT_ARCHITECTURE}


def export_encoder(
    encoder: nn.Module | StateDict,
    out: str | Path,
    model_name: str,
    model_args: Mapping[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    method: str = "",
    by_class_token: bool = False,
) -> str:
    """Write a network, or the one inside a wrapper, as safetensors, and check what loads again.

    The metadata of the file hold ``timm_model`` (or ``lit_ssl_model``, of networks that timm does
    not have), ``model_args`` (JSON), ``input_size`` (JSON, ``[C, H, W]``), ``mean`` and ``std``
    (JSON, one value per channel, of images in [0, 1]), ``method`` and ``lit_ssl_version``.

    Args:
        encoder: the network, or its weights by its own names.
        out: file to write, ``.safetensors``; one that exists is not written over.
        model_name: its name, of timm or of this package.
        model_args: what the network needs besides the name, e.g. ``img_size``.
        mean: mean of each channel that the network was trained with.
        std: standard deviation of each channel.
        method: class path of the method that trained it.
        by_class_token: whether weights are those of a ViT whose class token was trained.

    Returns:
        The Python expression that loads the file: with timm, or, of networks that timm does not
        have, with this package.

    Raises:
        InputError: if the encoder does not have the weights of that network, or what would be
            loaded computes other features than the encoder; if the file is there.
    """
    from safetensors.torch import save

    out = Path(out)
    if out.suffix != ".safetensors":
        raise InputError(
            f"{out}: the name must end in .safetensors, by which timm knows the format."
        )
    if out.exists():
        raise InputError(f"{out} exists: give another name, or remove it first")
    states = [encoder] if isinstance(encoder, dict) else [m.state_dict() for m in encoder.modules()]
    network, args, features = _matching_network(
        encoder, states, model_name, _architecture(model_name, model_args or {}), by_class_token
    )
    size = input_size(network)
    if len(mean) != (size or [0])[0]:  # ImageNet's three values, but grey images
        mean, std = (), ()
    metadata = {
        "format": "pt",
        "timm_model" if is_of_timm(model_name) else "lit_ssl_model": model_name,
        "model_args": json.dumps(args),
        "input_size": json.dumps(size),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "method": method,
        "lit_ssl_version": __version__,
    }
    state = {k: v.detach().clone().contiguous() for k, v in network.state_dict().items()}
    content = save(state, metadata)

    def write(file: BinaryIO) -> None:
        file.write(content)
        file.flush()
        difference = _difference(_features(load_exported(file.name), network), features)
        if difference:
            raise InputError(_other_features(model_name, difference))

    write_file(out, write, binary=True)
    if not is_of_timm(model_name):
        return f"lit_ssl.models.load_exported({str(out)!r})"
    options = "".join(f", {key}={value!r}" for key, value in args.items())
    return (
        f"timm.create_model({model_name!r}, checkpoint_path={str(out)!r}, num_classes=0{options})"
    )


def _matching_network(
    encoder: nn.Module | StateDict,
    states: list[StateDict],
    name: str,
    args: dict[str, Any],
    by_class_token: bool,
) -> tuple[nn.Module, dict[str, Any], Tensor]:
    """The network of this name that gives the encoder's features, its arguments, and the features.

    Methods pool by the class token; where timm averages by default, the pooling belongs to the
    arguments.
    """
    network = build_network(name, args)
    trials = [(network, args)]
    if is_of_timm(name) and "global_pool" not in args:
        pooled = {**args, "global_pool": "token"}
        with suppress(InputError, AssertionError):  # not every network has one
            trials.append((build_network(name, pooled), pooled))
    fitting = [(net, a, s) for net, a in trials if (s := _find(states, net)) is not None]
    if not fitting:
        odd = sorted(states[0].keys() ^ network.state_dict().keys())
        raise InputError(f"the encoder is no {name}: their weights differ, e.g. {listed(odd, 3)}.")
    differences = []
    for network, args, state in fitting:
        _load(network, state, name)
        expected = _expected(encoder, network, state, by_class_token)
        features = _features(network, network)
        difference = _difference(features, features if expected is None else expected)
        if not difference:
            return network, args, features
        differences.append(difference)
    raise InputError(_other_features(name, min(differences)))


def _find(states: list[StateDict], reference: nn.Module) -> StateDict | None:
    """The state that has the weight names of the reference."""
    names = reference.state_dict().keys()
    return next((state for state in states if state.keys() == names), None)


def _load(network: nn.Module, state: StateDict, name: str) -> None:
    for key, value in network.state_dict().items():
        if state[key].shape != value.shape:
            raise InputError(
                f"the encoder is no {name}: {key} has shape {list(state[key].shape)}, not "
                f"{list(value.shape)}; its arguments belong into hparams.backbone_kwargs."
            )
    network.load_state_dict(state)


def _expected(
    encoder: nn.Module | StateDict, network: nn.Module, state: StateDict, by_class_token: bool
) -> Tensor | None:
    """Features of the encoder itself; None where only its weights are known.

    Args:
        encoder: as given.
        network: a network of the same weights.
        state: these weights.
        by_class_token: of weights: whether their class token was trained.
    """
    if isinstance(encoder, dict):
        if not by_class_token or not isinstance(network, VisionTransformer):
            return None
        return _features(ClassTokenViT(network, any_pooling=True), network)
    copied = copy.deepcopy(encoder).cpu().float()
    shape = _features(network, network).shape
    with suppress(Exception):  # a wrapper may take other inputs, or give something else
        features = _features(copied, network)
        if features.shape == shape:
            return features
    inner = next(m for m in copied.modules() if m.state_dict().keys() == state.keys())
    return _features(inner, network)


@torch.no_grad()
def _features(network: nn.Module, like: nn.Module) -> Tensor:
    """What a network gives for the inputs of another, in eval mode; of a circuit its scores."""
    given = network.eval()(example_inputs(like))
    if isinstance(given, CircuitOutput):
        return given.features if given.logits is None else given.logits
    return given


def _difference(features: Tensor, expected: Tensor) -> float:
    """The largest difference; 0 where it is only rounding."""
    if features.shape != expected.shape or not (features.isfinite() & expected.isfinite()).all():
        return math.inf
    largest = (features - expected).abs().max().item()
    return largest if largest > _ROUNDING * expected.abs().max().clamp(min=1.0).item() else 0.0


def _other_features(name: str, difference: float) -> str:
    how = f"by up to {difference:.2g}" if difference < math.inf else "in shape, or are not finite"
    return (
        f"not exported: what {name} computes with these weights is not what the encoder gave in "
        f"training (features differ {how}); it pools otherwise (global_pool), or is another network"
    )


def _normalisation(
    hparams: Mapping[str, Any], names: Names
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of the data module: as given, else its class's, else ImageNet's."""
    inner = hparams.get("dataset")
    if isinstance(inner, Mapping) and "class_path" in inner:  # composed of another data module
        found = {"_class_path": inner["class_path"], **inner.get("init_args", {})}
        return _normalisation(found, names)
    mean, std = hparams.get("mean"), hparams.get("std")
    class_path = hparams.get("_class_path")
    if class_path and not (mean and std):
        try:
            data_class = names.find(class_path, "data")
        except ForeignClassError as error:
            warnings.warn(
                f"{error}; ImageNet's mean and std are noted instead of those it has", stacklevel=2
            )
        else:
            mean = mean or getattr(data_class, "default_mean", None)
            std = std or getattr(data_class, "default_std", None)
    return mean or IMAGENET_DEFAULT_MEAN, std or IMAGENET_DEFAULT_STD
