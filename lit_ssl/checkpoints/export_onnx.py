"""Export an encoder as ONNX, and check what onnxruntime computes with it."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from lit_ssl.checkpoints.encoder_to_export import Exportable, difference, other_features
from lit_ssl.checkpoints.whole_folder import check_new_file
from lit_ssl.errors import InputError, InputImportError
from lit_ssl.files import write_file
from lit_ssl.models.nac.circuit import CircuitOutput

__all__ = ["OPSET", "check_onnx", "write_onnx"]

OPSET = 18  # what the exporter of torch 2.6 and later writes without converting
_BATCHES = (1, 2, 5)
_MOST = 2**31 - 2**22  # bytes: a file of protobuf has at most 2 GiB
_NAMES = ("images", "features")
_NEW = (2, 9)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def check_onnx(out: Path) -> None:
    """Say before a long export what would end it.

    Args:
        out: the file to write.

    Raises:
        InputError: if the packages are missing, the file is there, or none can be.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputImportError(
            f"ONNX needs the packages onnx, onnxruntime and onnxscript ({error}): pip install "
            "'lit-ssl[onnx]'"
        ) from error
    check_new_file(out)


def write_onnx(encoder: Exportable, out: str | Path) -> float:
    """Write an encoder as ONNX: float32, batches of any size, images of the size of its training.

    The input is ``images`` ``[batch, C, H, W]``, normalised; the output ``features``
    ``[batch, D]``. The metadata of the file are those of ``export_encoder``. Before the file takes
    its place, onnxruntime computes features of batches of 1, 2 and 5 images with it.

    Args:
        encoder: what to write.
        out: file to write; one that exists is not written over.

    Returns:
        The largest difference of a feature from those of the network.

    Raises:
        InputError: if the packages are missing, the network takes other inputs than images or has
            parts that ONNX cannot have, it would not fit into one file, or onnxruntime computes
            other features.
    """
    out = Path(out)
    check_onnx(out)
    if not encoder.size:
        raise InputError(
            f"{encoder.name} takes other inputs than images, and files of ONNX are written of "
            "networks over images only: export it as .safetensors"
        )
    if encoder.features.ndim != 2:
        raise InputError(
            f"{encoder.name} gives {list(encoder.features.shape)} and not one vector for an image: "
            "export it as .safetensors"
        )
    if sum(value.nbytes for value in encoder.network.state_dict().values()) > _MOST:
        raise InputError(
            f"the weights of {encoder.name} need more than 2 GiB, which is the most that one file "
            "of ONNX holds: export it as .safetensors"
        )
    content = _exported(encoder)
    found = [0.0]

    def write(file: BinaryIO) -> None:
        file.write(content)
        file.flush()
        found[0] = _checked(encoder, file.name)
        check_new_file(out)  # of another process, meanwhile

    write_file(out, write, binary=True)
    return found[0]


class _Vectors(nn.Module):
    """A network by one name for its input and with one output: of a circuit its scores."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found = self.network(images)
        if isinstance(found, CircuitOutput):
            return found.features if found.logits is None else found.logits
        return found


def _exported(encoder: Exportable) -> bytes:
    import onnx

    network = _Vectors(encoder.network).eval()
    args = (torch.randn(2, *encoder.size),)
    names: dict[str, Any] = {
        "input_names": _NAMES[:1],
        "output_names": _NAMES[1:],
        "opset_version": OPSET,
    }
    try:
        with _quiet():
            if _is_new():
                shapes = {_NAMES[0]: {0: torch.export.Dim("batch", min=1)}}
                program: Any = torch.onnx.export(
                    network, args, dynamo=True, dynamic_shapes=shapes, verbose=False, **names
                )
                model = program.model_proto
            else:
                file: Any = io.BytesIO()
                axes = {name: {0: "batch"} for name in _NAMES}
                torch.onnx.export(network, args, file, dynamo=False, dynamic_axes=axes, **names)
                model = onnx.load_from_string(file.getvalue())
    except Exception as error:  # the exporter has errors of many kinds, all for the same reason
        raise InputError(
            f"{encoder.name} cannot be written as ONNX ({_reason(error)}): export it as "
            ".safetensors"
        ) from error
    onnx.helper.set_model_props(model, encoder.metadata())
    model.producer_name = "lit_ssl"
    return model.SerializeToString()


def _is_new() -> bool:
    """Whether torch's exporter by graphs is the one to use: before, it was at odds with onnxscript.

    The tracing one, which is right for the older versions of torch, is on its way out of new ones.
    """
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= _NEW


def _reason(error: BaseException) -> str:
    """The first line of what was in the way: the exporter says around it how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{lines[0]:.200}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of its own versions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _checked(encoder: Exportable, path: str) -> float:
    """The largest difference of features, over batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for batch in _BATCHES:
        images = torch.randn(batch, *encoder.size, generator=generator)
        with torch.no_grad():
            expected = _Vectors(encoder.network)(images)
        found = torch.from_numpy(session.run([_NAMES[1]], {_NAMES[0]: images.numpy()})[0])
        if distance := difference(found, expected):
            raise InputError(other_features(f"{encoder.name} in ONNX", distance))
        largest = max(largest, (found - expected).abs().max().item())
    return largest
