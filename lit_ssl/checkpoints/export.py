"""Export an encoder as safetensors that timm loads by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm import create_model
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from lit_ssl.checkpoints.files import find_class, read_checkpoint
from lit_ssl.errors import InputError
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
    """Write the encoder of a Lightning checkpoint with timm's key names.

    Nothing in the checkpoint is executed (``weights_only=True``); the class of its module is
    imported.

    Args:
        checkpoint: file that a run wrote.
        out: file to write, ``.safetensors``.
        model_name: timm name of the encoder; None: ``hparams.backbone``, if that is a name.
        class_path: class of the module; None: as stored in checkpoints of ``lit-ssl fit``.

    Returns:
        The Python expression that loads the file with timm.

    Raises:
        InputError: if the checkpoint cannot be read or does not tell enough, or if the encoder is
            not the timm model of that name.
    """
    content = read_checkpoint(checkpoint)
    hparams = content.get("hyper_parameters", {})
    class_path = class_path or hparams.get("_class_path")
    if class_path is None:
        raise InputError(f"{checkpoint} was made in Python: name its class, --class package.Class.")
    module = _load_module(class_path, checkpoint, hparams.get("backbone_kwargs"))
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise InputError(f"{class_path} has no module `encoder` to export.")
    name = model_name or hparams.get("backbone")
    if not isinstance(name, str):
        raise InputError(
            f"the backbone of {checkpoint} is no timm name: give it, --model-name NAME."
        )
    mean, std = _normalisation(content.get("datamodule_hyper_parameters", {}))
    return export_encoder(
        encoder, out, name, hparams.get("backbone_kwargs"), mean, std, method=class_path
    )


def export_encoder(
    encoder: nn.Module,
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
        encoder: the network.
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
    reference, args = _reference(model_name, args, encoder)
    state = _matching_state(encoder, reference, model_name)
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


def _load_module(
    class_path: str, checkpoint: str | Path, backbone_kwargs: Mapping[str, Any] | None
) -> Any:
    module_class = find_class(class_path)
    if not hasattr(module_class, "load_from_checkpoint"):
        raise InputError(f"{class_path} is no LightningModule.")
    changed = {}
    if backbone_kwargs and backbone_kwargs.get("pretrained"):  # the weights are in the checkpoint
        changed["backbone_kwargs"] = {**backbone_kwargs, "pretrained": False}
    try:
        return module_class.load_from_checkpoint(
            checkpoint, map_location="cpu", weights_only=True, **changed
        )
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{class_path} cannot be built from {checkpoint}: {reason}") from error


def _reference(
    name: str, args: dict[str, Any], encoder: nn.Module
) -> tuple[nn.Module, dict[str, Any]]:
    """Build timm's model of this name, with arguments that give it the encoder's weight names.

    Methods pool by the class token; where timm averages by default, the final norm has another
    name, so the pooling belongs to the arguments.
    """
    try:
        reference = create_model(name, num_classes=0, **args)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"timm cannot build {name!r} with {args}: {error}") from error
    if _find(encoder, reference) is None and "global_pool" not in args:
        pooled = {**args, "global_pool": "token"}
        try:
            by_token = create_model(name, num_classes=0, **pooled)
        except (RuntimeError, TypeError, AssertionError):
            return reference, args
        if _find(encoder, by_token) is not None:
            return by_token, pooled
    return reference, args


def _find(encoder: nn.Module, reference: nn.Module) -> nn.Module | None:
    """The encoder, or the module inside it, that has the weight names of the reference."""
    names = set(reference.state_dict())
    return next((m for m in encoder.modules() if set(m.state_dict()) == names), None)


def _matching_state(encoder: nn.Module, reference: nn.Module, name: str) -> dict[str, Tensor]:
    wanted = reference.state_dict()
    found = _find(encoder, reference)
    if found is None:
        odd = sorted(set(encoder.state_dict()) ^ set(wanted))[:3]
        raise InputError(f"the encoder is no {name}: their weights differ, e.g. {', '.join(odd)}.")
    state = {key: value.detach().cpu().clone() for key, value in found.state_dict().items()}
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise InputError(
                f"the encoder is no {name}: {key} has shape {list(value.shape)}, not "
                f"{list(wanted[key].shape)}; its arguments belong into hparams.backbone_kwargs."
            )
    return {key: value.contiguous() for key, value in state.items()}


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
