"""Export an encoder as safetensors that timm loads by itself, and check that it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from lit_ssl.checkpoints.encoder_to_export import (
    Exportable,
    difference,
    features_of,
    find_exportable,
    match_exportable,
    other_features,
)
from lit_ssl.checkpoints.prefixes import StateDict
from lit_ssl.checkpoints.whole_folder import check_new_file
from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.models.exported import load_exported

__all__ = ["export_checkpoint", "export_encoder", "write_safetensors"]


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
            that is a name or a network of this package; of files of ``lit-ssl export`` theirs.
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
    encoder = find_exportable(checkpoint, model_name, class_path, prefix, model_args)
    return write_safetensors(encoder, out)


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
    _check_name(Path(out))
    found = match_exportable(encoder, model_name, model_args, mean, std, method, by_class_token)
    return write_safetensors(found, out)


def write_safetensors(encoder: Exportable, out: str | Path) -> str:
    """Write an encoder as ``export_encoder`` does.

    Args:
        encoder: what to write.
        out: file to write, ``.safetensors``; one that exists is not written over.

    Returns:
        The Python expression that loads the file.

    Raises:
        InputError: if what would be loaded computes other features than the encoder; if the file is
            there, or cannot be written.
    """
    from safetensors.torch import save

    out = Path(out)
    _check_name(out)
    content = save(encoder.state(), {"format": "pt", **encoder.metadata()})

    def write(file: BinaryIO) -> None:
        file.write(content)
        file.flush()
        distance = difference(
            features_of(load_exported(file.name), encoder.network), encoder.features
        )
        if distance:
            raise InputError(other_features(encoder.name, distance))
        check_new_file(out)  # of another process, meanwhile

    write_file(out, write, binary=True)
    if not encoder.is_of_timm:
        return f"lit_ssl.models.load_exported({str(out)!r})"
    options = "".join(f", {key}={value!r}" for key, value in encoder.args.items())
    return (
        f"timm.create_model({encoder.name!r}, checkpoint_path={str(out)!r}, num_classes=0{options})"
    )


def _check_name(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise InputError(
            f"{out}: the name must end in .safetensors, by which timm knows the format."
        )
    check_new_file(out)
