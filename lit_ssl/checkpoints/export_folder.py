"""Export an encoder as a folder for timm or this package, ready for the hub, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from lit_ssl.checkpoints.encoder_to_export import (
    Exportable,
    difference,
    features_of,
    other_features,
)
from lit_ssl.checkpoints.export import write_safetensors
from lit_ssl.errors import InputError
from lit_ssl.files import write_json
from lit_ssl.version import __version__

__all__ = ["fill_timm_folder"]


def fill_timm_folder(encoder: Exportable, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``.

    The configuration has the form that timm reads from the hub (``hf-hub:``) and, since 1.0.26,
    from folders with safetensors (``local-dir:``); then timm loads the folder, and its features are
    compared with the encoder's.
    Networks that timm does not have are named to this package alone.

    Args:
        encoder: what to write.
        folder: an empty folder.

    Raises:
        InputError: if what is loaded computes other features.
    """
    write_safetensors(encoder, folder / "model.safetensors")
    if not encoder.is_of_timm:
        about: dict[str, Any] = {"library_name": "lit_ssl", "lit_ssl_version": __version__}
        about |= {"lit_ssl_model": encoder.name, "model_args": encoder.args}
        write_json(folder / "config.json", {**about, **_images(encoder)})
        return
    config = _config(encoder)
    write_json(folder / "config.json", config)
    source = {**config["pretrained_cfg"], "file": str(folder / "model.safetensors")}
    try:  # as by its names for repositories and folders, of which old versions read no safetensors
        loaded = timm.create_model(
            config["architecture"], pretrained=True, pretrained_cfg=source, **config["model_args"]
        )
    except Exception as error:  # timm and its readers have errors of many kinds
        reason = " ".join(str(error).split())
        raise InputError(
            f"this version of timm ({timm.__version__}) does not load the folder ({reason:.200}): "
            "install one that lit-ssl's requirements name"
        ) from error
    features = features_of(loaded, encoder.network)
    if distance := difference(features, encoder.features):
        raise InputError(other_features(encoder.name, distance))


def _config(encoder: Exportable) -> dict[str, Any]:
    network: Any = encoder.network
    built_with = dict(getattr(network, "pretrained_cfg", {}))
    return {
        "architecture": encoder.name,
        "num_classes": 0,
        "num_features": int(network.num_features),
        **({"global_pool": pool} if isinstance(pool := _pool(network), str) else {}),
        "model_args": encoder.args,
        "pretrained_cfg": {
            "custom_load": False,
            **_images(encoder),
            "fixed_input_size": bool(built_with.get("fixed_input_size", False)),
            "num_classes": 0,
            "pool_size": None,
            # else timm would fit the first layer to other channels than those of the file
            "first_conv": built_with.get("first_conv") if encoder.size[0] == 3 else None,
            "classifier": built_with.get("classifier"),
        },
    }


def _pool(network: Any) -> Any:
    return getattr(network, "global_pool", None)


def _images(encoder: Exportable) -> dict[str, Any]:
    """What timm's transforms need to know of images."""
    if not encoder.size:
        return {}
    about: dict[str, Any] = {"input_size": encoder.size, "crop_mode": "center"}
    if encoder.resizing is not None:
        about["interpolation"] = encoder.resizing.interpolation
        about["crop_pct"] = min(1.0, min(encoder.size[1:]) / encoder.resizing.resize)
    else:
        about |= {"interpolation": "bilinear", "crop_pct": 1.0}
    if encoder.mean:
        about |= {"mean": list(encoder.mean), "std": list(encoder.std)}
    return about
