"""The encoder of a checkpoint as one network with what others need to know of it, checked."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.checkpoints.classes import ForeignClassError, Names
from lit_ssl.checkpoints.files import (
    described_network,
    described_training,
    located,
    read_file,
)
from lit_ssl.checkpoints.modules import find_class, load_module
from lit_ssl.checkpoints.origins import weights_of
from lit_ssl.checkpoints.prefixes import StateDict
from lit_ssl.errors import InputError, listed, quoted
from lit_ssl.files import read_bytes
from lit_ssl.json_text import JSONError, parse_json
from lit_ssl.models.backbones.hub_files import fetch
from lit_ssl.models.backbones.vit import ClassTokenViT
from lit_ssl.models.exported import build_network, example_inputs, input_size, is_of_timm
from lit_ssl.models.nac.circuit import CircuitOutput
from lit_ssl.models.nac.described import CIRCUITS
from lit_ssl.version import __version__

__all__ = [
    "Exportable",
    "Resizing",
    "difference",
    "features_of",
    "find_exportable",
    "match_exportable",
    "other_features",
]

# Arguments of timm.create_model that choose weights or a classifier, not the network.
_NOT_ARCHITECTURE = (
    "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir",
    "num_classes", "drop_path_rate", "drop_rate",
)  # fmt: skip
# Networks over images and texts → what else can be done with them.
_WITH_TEXTS = {
    "CoAttentionBackbone": "",
    "ViltBackbone": ", or load the module in Python, whose backbone.model.save_pretrained(FOLDER) "
    "writes a folder of transformers",
}
_CONFIG = "config.json"
_ROUNDING = 1e-3  # of the largest feature, at least 1
_MOST_PIXELS = 2048  # per side of evaluated images
_UNKNOWN = (
    "{} does not say how images were normalised: of colour images ImageNet's mean and std are noted"
)
_LARGEST = 1e6  # of a mean or standard deviation of images


class Resizing(NamedTuple):
    """How images are made ready for evaluation: resize the shorter side, cut out the centre.

    Attributes:
        resize: pixels of the shorter side.
        interpolation: "bilinear" or "bicubic".
    """

    resize: int
    interpolation: str


class Exportable(NamedTuple):
    """An encoder that is ready to be written.

    Attributes:
        network: with its weights, float32, on the CPU, in eval mode.
        name: of the network, of timm or of this package.
        args: its arguments besides the name.
        features: what it gives for ``example_inputs``.
        size: ``[C, H, W]`` of its images; empty for other inputs.
        mean: of each channel, of images in [0, 1]; empty where it is not known.
        std: of each channel; empty where it is not known.
        method: class path of the method that trained it; empty where it is not known.
        by_class_token: whether the method took the class token of a ViT.
        resizing: of evaluation; None where it is not known.
        recipe: what the checkpoint says of its training: ``model`` and ``data``
            (hyper-parameters), ``epoch``, ``step``; empty where it says nothing.
    """

    network: nn.Module
    name: str
    args: dict[str, Any]
    features: Tensor
    size: list[int]
    mean: Sequence[float]
    std: Sequence[float]
    method: str = ""
    by_class_token: bool = False
    resizing: Resizing | None = None
    recipe: Mapping[str, Any] = {}

    @property
    def is_of_timm(self) -> bool:
        """Whether timm builds the network by its name."""
        return is_of_timm(self.name)

    def metadata(self) -> dict[str, str]:
        """What files of weights hold beside them; ``export_encoder`` says what these are."""
        return {
            "timm_model" if self.is_of_timm else "lit_ssl_model": self.name,
            "model_args": json.dumps(self.args),
            "input_size": json.dumps(self.size),
            "mean": json.dumps(list(self.mean)),
            "std": json.dumps(list(self.std)),
            "method": self.method,
            "lit_ssl_version": __version__,
        }

    def state(self) -> StateDict:
        """The weights, each in a place of its own."""
        state = self.network.state_dict()
        return {name: value.detach().clone().contiguous() for name, value in state.items()}


def find_exportable(
    checkpoint: str | Path,
    model_name: str | None = None,
    class_path: str | None = None,
    prefix: str | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Exportable:
    """The encoder of a checkpoint, or of another file of weights; nothing in it is executed.

    Args:
        checkpoint: see ``export_checkpoint``.
        model_name: see ``export_checkpoint``.
        class_path: see ``export_checkpoint``.
        prefix: see ``export_checkpoint``.
        model_args: see ``export_checkpoint``.

    Raises:
        InputError: see ``export_checkpoint``.
    """
    file, checkpoint = located(checkpoint)
    content = read_file(file, "checkpoint")
    found = content.get("hyper_parameters")
    hparams: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    stored = hparams.get("_class_path")
    encoder: nn.Module | StateDict | None = None
    if class_path is not None:
        encoder = _encoder_of_module(file, find_class(class_path), hparams)
    elif stored is not None and not str(stored).startswith("lit_ssl."):
        Names(checkpoint, how="if you trust it, name it yourself, --class {name}").find(stored)
    elif "pytorch-lightning_version" in content and prefix is None:
        encoder = _without_backbone(content, checkpoint, hparams)
    name, args = _network_of(hparams)
    if name is None and not hparams:
        name, args = described_network(file)
    name, args = model_name or name, args if model_args is None else model_args
    if name is not None:
        name, args = _of_repository(name, args)
    if name is None:
        raise InputError(
            f"the backbone of {checkpoint} is no timm name: give it, --model-name NAME."
        )
    if name in _WITH_TEXTS:
        raise InputError(
            f"{checkpoint} holds a network over images and texts, which has no encoder to export: "
            "hand the checkpoint on" + _WITH_TEXTS[name]
        )
    by_class_token = False
    if encoder is None:
        network = build_network(name, _architecture(name, args))
        weights = weights_of(content, checkpoint, network, prefix)
        encoder, by_class_token = weights.encoder, weights.by_class_token
    found = content.get("datamodule_hyper_parameters")
    data: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    how = "export_encoder takes mean and std in Python"
    names = Names(checkpoint, [] if class_path is None else [class_path], how)
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN
    std: Sequence[float] = IMAGENET_DEFAULT_STD
    evaluation: _Evaluation | None = None
    doubts: list[str] = []  # about images
    if hparams or data:
        mean, std, evaluation = _preparation(data, names, doubts)
    method = class_path or hparams.get("_class_path", "")
    if not hparams and not data:
        method, own_mean, own_std = described_training(file)
        if own_mean:
            mean, std = own_mean, own_std
        else:
            doubts.append(_UNKNOWN.format(checkpoint))
    exportable = match_exportable(encoder, name, args, mean, std, str(method), by_class_token)
    for doubt in doubts if exportable.size else ():
        warnings.warn(doubt, stacklevel=2)
    recipe = {"model": hparams, "data": data}
    recipe |= {key: content[key] for key in ("epoch", "global_step") if key in content}
    exportable = exportable._replace(recipe=recipe if hparams else {})
    return exportable if evaluation is None else _with_evaluation(exportable, evaluation)


def match_exportable(
    encoder: nn.Module | StateDict,
    model_name: str,
    model_args: Mapping[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    method: str = "",
    by_class_token: bool = False,
) -> Exportable:
    """The network of a name with the weights of an encoder, which gives the encoder's features.

    Args:
        encoder: see ``export_encoder``.
        model_name: see ``export_encoder``.
        model_args: see ``export_encoder``.
        mean: see ``export_encoder``.
        std: see ``export_encoder``.
        method: see ``export_encoder``.
        by_class_token: see ``export_encoder``.

    Raises:
        InputError: if the encoder does not have the weights of that network, or that network
            computes other features than the encoder.
    """
    states = [encoder] if isinstance(encoder, dict) else [m.state_dict() for m in encoder.modules()]
    args = _architecture(model_name, model_args or {})
    network, args, features = _matching_network(encoder, states, model_name, args, by_class_token)
    size = input_size(network)
    if size and len(mean) == len(std) == 1:  # one for all channels
        mean, std = [*mean] * size[0], [*std] * size[0]
    if len(mean) != (size or [0])[0]:  # ImageNet's three values, but grey images
        mean, std = (), ()
    return Exportable(
        network.eval(), model_name, args, features, size, mean, std, method, by_class_token
    )


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


def _of_repository(name: str, args: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Of a network that was taken from a repository or folder in timm's form, timm's own name.

    Others would else have to have that repository, and read where the folder lies here.
    """
    scheme, _, place = name.partition(":")
    if scheme == "hf-hub":
        file = fetch(name, [_CONFIG]).path
    elif scheme == "local-dir":
        file = Path(place) / _CONFIG
    else:
        return name, args
    try:
        found = parse_json(read_bytes(file))
    except JSONError as error:
        raise InputError(f"{file} is no JSON: {error}") from error
    own = found.get("model_args") if isinstance(found, dict) else None
    known = found.get("architecture") if isinstance(found, dict) else None
    if not isinstance(known, str) or ":" in known:
        raise InputError(f"{file} names no architecture of timm: give it, --model-name NAME")
    return known, {**(own if isinstance(own, dict) else {}), **args}


def _architecture(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    if name in CIRCUITS:  # whose classifier is part of what a module computes
        return dict(args)
    return {key: value for key, value in args.items() if key not in _NOT_ARCHITECTURE}


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
        features = features_of(network, network)
        distance = difference(features, features if expected is None else expected)
        if not distance:
            return network, args, features
        differences.append(distance)
    raise InputError(other_features(name, min(differences)))


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
        return features_of(ClassTokenViT(network, any_pooling=True), network)
    copied = copy.deepcopy(encoder).cpu().float()
    shape = features_of(network, network).shape
    with suppress(Exception):  # a wrapper may take other inputs, or give something else
        features = features_of(copied, network)
        if features.shape == shape:
            return features
    inner = next(m for m in copied.modules() if m.state_dict().keys() == state.keys())
    return features_of(inner, network)


@torch.no_grad()
def features_of(network: nn.Module, like: nn.Module) -> Tensor:
    """What a network gives for the inputs of another, in eval mode; of a circuit its scores.

    Args:
        network: any network.
        like: the one that ``example_inputs`` asks; of the same inputs.
    """
    given = network.eval()(example_inputs(like))
    if isinstance(given, CircuitOutput):
        return given.features if given.logits is None else given.logits
    return given


def difference(features: Tensor, expected: Tensor) -> float:
    """The largest difference; 0 where it is only rounding, a thousandth of the largest feature.

    Args:
        features: of what would be loaded, ``[B, D]``.
        expected: of the encoder, ``[B, D]``.

    Returns:
        Infinity where shapes differ, or one of the features is not finite.
    """
    if features.shape != expected.shape or not (features.isfinite() & expected.isfinite()).all():
        return math.inf
    largest = (features - expected).abs().max().item()
    return largest if largest > _ROUNDING * expected.abs().max().clamp(min=1.0).item() else 0.0


def other_features(name: str, distance: float) -> str:
    """Why an encoder is not exported whose features would be others.

    Args:
        name: of the network that would be loaded.
        distance: what ``difference`` gave.
    """
    how = f"by up to {distance:.2g}" if distance < math.inf else "in shape, or are not finite"
    return (
        f"not exported: what {name} computes with these weights is not what the encoder gave in "
        f"training (features differ {how}); it pools otherwise (global_pool), or is another network"
    )


class _Evaluation(NamedTuple):
    """How the data module makes images ready for evaluation: ``crop`` pixels per side are left."""

    resizing: Resizing
    crop: int


def _with_evaluation(encoder: Exportable, evaluation: _Evaluation) -> Exportable:
    """The encoder with the size of images that it was evaluated with, where it takes that size.

    A convolutional network says nothing of its images: timm has those of its own weights.
    """
    size = [*encoder.size[:1], evaluation.crop, evaluation.crop]
    if not encoder.size or encoder.size == size:
        return encoder._replace(resizing=evaluation.resizing if encoder.size else None)
    takes_it = False
    with suppress(Exception), torch.no_grad():  # networks refuse other sizes each in its own way
        found = encoder.network(torch.zeros(1, *size))
        takes_it = found.shape[1:] == encoder.features.shape[1:]
    if takes_it:
        return encoder._replace(size=size, resizing=evaluation.resizing)
    return encoder


def _preparation(
    hparams: Mapping[str, Any], names: Names, doubts: list[str]
) -> tuple[Sequence[float], Sequence[float], _Evaluation | None]:
    """Mean, std and resizing of the data module: as given, else its class's; else ImageNet's.

    What is not known is added to ``doubts``.
    """
    inner = hparams.get("dataset")
    if isinstance(inner, Mapping) and "class_path" in inner:  # composed of another data module
        args = inner.get("init_args")
        args = args if isinstance(args, Mapping) else {}
        return _preparation({"_class_path": inner["class_path"], **args}, names, doubts)
    mean, std = hparams.get("mean"), hparams.get("std")
    resizing = _resizing(hparams.get("eval_transform"))
    class_path = hparams.get("_class_path")
    is_told = False
    if class_path and not (mean and std and resizing):
        try:
            data_class = names.find(class_path, "data")
        except ForeignClassError as error:
            if not (mean and std):
                is_told = True
                doubts.append(f"{error}; ImageNet's mean and std are noted instead of those it has")
        else:
            mean = mean or getattr(data_class, "default_mean", None)
            std = std or getattr(data_class, "default_std", None)
            # one that was made in Python is not among them
            if hparams.get("eval_transform", 0) is None:
                resizing = _usual_resizing(data_class, hparams)
    if not (mean and std) and not is_told:
        doubts.append(_UNKNOWN.format(names.path))
    mean, std = mean or IMAGENET_DEFAULT_MEAN, std or IMAGENET_DEFAULT_STD
    if not _are_of_channels(mean, std):
        doubts.append(
            f"{names.path}: mean {quoted(mean)} and std {quoted(std)} of its data are no numbers "
            "for each channel: none are noted"
        )
        mean, std = (), ()
    return mean, std, resizing


def _are_of_channels(mean: object, std: object) -> bool:
    """Whether they are as many finite numbers, the second ones positive."""
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple):
        return False
    values = [*mean, *std]
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return (
        are_numbers
        and len(mean) == len(std)
        and all(abs(value) < _LARGEST for value in values)
        and min(std, default=0.0) > 0
    )


def _resizing(transform: object) -> _Evaluation | None:
    """That of an ``EvalTransform`` in hyper-parameters; None for others."""
    if not isinstance(transform, Mapping):
        return None
    options = transform.get("init_args")
    path = str(transform.get("class_path"))
    if not isinstance(options, Mapping) or path.rpartition(".")[2] != "EvalTransform":
        return None
    crop = options.get("size")
    size = options.get("resize") or crop
    how = options.get("interpolation") or "bilinear"
    if not _is_size(crop) or not _is_size(size) or how not in ("bilinear", "bicubic"):
        return None
    return _Evaluation(Resizing(int(size), str(how)), int(crop))  # type: ignore[arg-type]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_PIXELS


def _usual_resizing(data_class: Any, hparams: Mapping[str, Any]) -> _Evaluation | None:
    """What a data module of images does where no transform is given.

    Args:
        data_class: of the data module.
        hparams: its hyper-parameters, which may say another size than that of its class.
    """
    kinds = data_class.__mro__ if isinstance(data_class, type) else ()
    owner = next((kind for kind in kinds if "default_eval_transform" in vars(kind)), None)
    if owner is None or "default_margin" not in vars(owner):  # it has a transform of its own
        return None
    crop = hparams.get("image_size") or data_class.default_size
    if not _is_size(crop):
        return None
    return _Evaluation(Resizing(round(crop * data_class.default_margin), "bilinear"), crop)
