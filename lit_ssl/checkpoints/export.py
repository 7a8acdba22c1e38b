"""Export an encoder as safetensors that timm loads by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from timm import create_model
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from lit_ssl.checkpoints.files import find_class, load_module, read_file
from lit_ssl.checkpoints.origins import StateDict, weights_of
from lit_ssl.errors import InputError, listed
from lit_ssl.models.backbones import conv_stem  # noqa: F401 - registers its names with timm
from lit_ssl.version import __version__

__all__ = ["export_checkpoint", "export_encoder"]

# Arguments of timm.create_model that choose weights or a classifier, not the network.
_NOT_ARCHITECTURE = ("pretrained", "checkpoint_path", "num_classes", "drop_path_rate", "drop_rate")


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    model_name: str | None = None,
    class_path: str | None = None,
) -> str:
    """Write the encoder of a checkpoint, or of another file of weights, with timm's key names.

    Nothing in the file is executed (``weights_only=True``). Of checkpoints of other classes than
    this package's, the class of their module is imported, which tells the encoder.

    Args:
        checkpoint: file that a run wrote, or any other of
            :func:`lit_ssl.checkpoints.origins.read_weights`.
        out: file to write, ``.safetensors``.
        model_name: timm name of the encoder; None: ``hparams.backbone``, if that is a name.
        class_path: class of the module, to take its ``encoder``; None: as stored in checkpoints of
            ``lit-ssl fit``.

    Returns:
        The Python expression that loads the file with timm.

    Raises:
        InputError: if the checkpoint cannot be read or does not tell enough, or if the encoder is
            not the timm model of that name.
    """
    content = read_file(checkpoint, "checkpoint")
    hparams = content.get("hyper_parameters", {})
    encoder = _encoder(content, checkpoint, class_path)
    name = model_name or hparams.get("backbone")
    if not isinstance(name, str):
        raise InputError(
            f"the backbone of {checkpoint} is no timm name: give it, --model-name NAME."
        )
    mean, std = _normalisation(content.get("datamodule_hyper_parameters", {}))
    method, args = class_path or hparams.get("_class_path", ""), hparams.get("backbone_kwargs")
    return export_encoder(encoder, out, name, args, mean=mean, std=std, method=method)


def _encoder(
    content: Mapping[str, Any], path: str | Path, class_path: str | None
) -> nn.Module | StateDict:
    """The encoder in a file: of other people's classes the module, else the weights."""
    hparams = content.get("hyper_parameters", {})
    stored = hparams.get("_class_path")
    if class_path is None and (stored is None or stored.startswith("lit_ssl.")):
        try:
            return weights_of(content, path).encoder
        except InputError:
            if "pytorch-lightning_version" not in content:
                raise
    class_path = class_path or stored
    if class_path is None:
        raise InputError(f"{path} was made in Python: name its class, --class package.Class.")
    encoder = getattr(load_module(path, class_path, hparams), "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise InputError(f"{class_path} has no module `encoder` to export.")
    return encoder


def export_encoder(
    encoder: nn.Module | StateDict,
    out: str | Path,
    model_name: str,
    model_args: Mapping[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    method: str = "",
) -> str:
    """Write a timm model, or the one inside a wrapper, as safetensors.

    The metadata of the file hold ``timm_model``, ``model_args`` (JSON), ``input_size`` (JSON,
    ``[C, H, W]``), ``mean`` and ``std`` (JSON, one value per channel, of images in [0, 1]),
    ``method`` and ``lit_ssl_version``.

    Args:
        encoder: the network, or its weights by timm's names.
        out: file to write, ``.safetensors``.
        model_name: its timm name.
        model_args: what ``timm.create_model`` needs besides the name, e.g. ``img_size``.
        mean: mean of each channel that the network was trained with.
        std: standard deviation of each channel.
        method: class path of the method that trained it.

    Returns:
        The Python expression that loads the file with timm.

    Raises:
        InputError: if the encoder does not have the weights of that model.
    """
    from safetensors.torch import save_file

    out = Path(out)
    if out.suffix != ".safetensors":
        raise InputError(
            f"{out}: the name must end in .safetensors, by which timm knows the format."
        )
    args = {k: v for k, v in (model_args or {}).items() if k not in _NOT_ARCHITECTURE}
    states = [encoder] if isinstance(encoder, dict) else [m.state_dict() for m in encoder.modules()]
    reference, args = _reference(model_name, args, states)
    state = _matching_state(states, reference, model_name)
    size = _input_size(reference)
    if len(mean) != size[0]:  # ImageNet's three values, but grey images
        mean, std = (), ()
    metadata = {
        "format": "pt",
        "timm_model": model_name,
        "model_args": json.dumps(args),
        "input_size": json.dumps(size),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "method": method,
        "lit_ssl_version": __version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out, metadata=metadata)
    options = "".join(f", {key}={value!r}" for key, value in args.items())
    return (
        f"timm.create_model({model_name!r}, checkpoint_path={str(out)!r}, num_classes=0{options})"
    )


def _reference(
    name: str, args: dict[str, Any], states: list[StateDict]
) -> tuple[nn.Module, dict[str, Any]]:
    """Build timm's model of this name, with arguments that give it the encoder's weight names.

    Methods pool by the class token; where timm averages by default, the final norm has another
    name, so the pooling belongs to the arguments.
    """
    try:
        reference = create_model(name, num_classes=0, **args)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"timm cannot build {name!r} with {args}: {error}") from error
    if _find(states, reference) is None and "global_pool" not in args:
        pooled = {**args, "global_pool": "token"}
        with suppress(RuntimeError, TypeError, AssertionError):  # not every network has one
            by_token = create_model(name, num_classes=0, **pooled)
            if _find(states, by_token) is not None:
                return by_token, pooled
    return reference, args


def _find(states: list[StateDict], reference: nn.Module) -> StateDict | None:
    """The state that has the weight names of the reference."""
    names = reference.state_dict().keys()
    return next((state for state in states if state.keys() == names), None)


def _matching_state(states: list[StateDict], reference: nn.Module, name: str) -> StateDict:
    wanted = reference.state_dict()
    found = _find(states, reference)
    if found is None:
        odd = sorted(states[0].keys() ^ wanted.keys())
        raise InputError(f"the encoder is no {name}: their weights differ, e.g. {listed(odd, 3)}.")
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise InputError(
                f"the encoder is no {name}: {key} has shape {list(value.shape)}, not "
                f"{list(wanted[key].shape)}; its arguments belong into hparams.backbone_kwargs."
            )
    return {key: value.detach().cpu().clone().contiguous() for key, value in found.items()}


def _input_size(model: nn.Module) -> list[int]:
    """``[C, H, W]`` of a timm model."""
    size = list(getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "img_size", None):
        size[1:] = list(embed.img_size)  # type: ignore[union-attr]
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None:
        size[0] = first.in_channels
    return [int(side) for side in size]


def _normalisation(hparams: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of the data module: as given, else its class's, else ImageNet's."""
    inner = hparams.get("dataset")
    if isinstance(inner, Mapping) and "class_path" in inner:  # composed of another data module
        return _normalisation({"_class_path": inner["class_path"], **inner.get("init_args", {})})
    mean, std = hparams.get("mean"), hparams.get("std")
    class_path = hparams.get("_class_path")
    if class_path and not (mean and std):
        data_class = find_class(class_path)
        mean = mean or getattr(data_class, "default_mean", None)
        std = std or getattr(data_class, "default_std", None)
    return mean or IMAGENET_DEFAULT_MEAN, std or IMAGENET_DEFAULT_STD
