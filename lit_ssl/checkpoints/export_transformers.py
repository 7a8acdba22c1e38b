"""Export an encoder as a folder of transformers, and check what its class computes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_ssl.checkpoints.encoder_to_export import Exportable, difference, other_features
from lit_ssl.checkpoints.transformers_names import Counterpart, counterpart
from lit_ssl.errors import InputError, InputImportError
from lit_ssl.files import write_file, write_json
from lit_ssl.models.exported import example_inputs

__all__ = ["check_transformers", "fill_transformers_folder"]

_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers


def check_transformers() -> None:
    """Say before a long export that transformers is missing.

    Raises:
        InputError: if it is.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputImportError(
            "a folder of transformers needs the package transformers: pip install 'lit-ssl[hf]'"
        ) from error


def fill_transformers_folder(encoder: Exportable, folder: Path) -> Counterpart:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

    The weights have the names that all versions of transformers read. Then the class loads the
    folder, and its features are compared with the encoder's.

    Args:
        encoder: what to write.
        folder: an empty folder.

    Returns:
        The class, and the expression for the features.

    Raises:
        InputError: if no class computes what the encoder computes, or transformers is missing.
    """
    check_transformers()
    import transformers
    from safetensors.torch import save

    found = counterpart(encoder.network)
    kind: Any = getattr(transformers, found.kind)
    config = kind.config_class(**found.config)
    config.architectures = [found.kind]
    config.save_pretrained(folder)
    content = save(found.state, {"format": "pt", **encoder.metadata()})
    write_file(folder / "model.safetensors", lambda file: file.write(content), binary=True)
    write_json(folder / "preprocessor_config.json", _preprocessing(encoder))
    with _quiet():
        model, said = kind.from_pretrained(folder, output_loading_info=True)
    wrong = [*said["missing_keys"], *said["unexpected_keys"], *said["mismatched_keys"]]
    if wrong:  # a version of transformers whose names are others again
        raise InputError(
            f"this version of transformers ({transformers.__version__}) reads {found.kind} by "
            f"other names (e.g. {wrong[0]}): install one that lit-ssl's requirements name"
        )
    if distance := difference(_features(model, found, encoder), encoder.features):
        raise InputError(other_features(found.kind, distance))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a bar for weights that are read in a moment."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _features(model: Any, found: Counterpart, encoder: Exportable) -> Tensor:
    with torch.no_grad():
        output = model.eval()(example_inputs(encoder.network))
    if found.kind == "ResNetModel":
        return output.pooler_output.flatten(1)
    return output.last_hidden_state[:, 0]


def _preprocessing(encoder: Exportable) -> dict[str, Any]:
    """Settings of an image processor that does what this package does in evaluation."""
    _, height, width = encoder.size
    resizing = encoder.resizing
    how = "bilinear" if resizing is None else resizing.interpolation
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": encoder.size[0] == 3,
        "do_resize": True,
        "size": {"shortest_edge": min(height, width) if resizing is None else resizing.resize},
        "resample": _RESAMPLE[how],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": bool(encoder.mean),
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }
