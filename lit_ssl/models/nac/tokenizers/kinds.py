"""Which tokenizers read which kind of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from lit_ssl.errors import InputTypeError

__all__ = ["Kind", "check_kind"]

Kind = Literal["images", "points", "sequences", "pairs of images with a text"]

_READERS: dict[Kind, str] = {
    "images": "ConvNeXtTokenizer or PatchTokenizer",
    "points": "PointTokenizer",
    "sequences": "ByteTokenizer or SymbolTokenizer",
    "pairs of images with a text": "ImagePairTextTokenizer",
}


def check_kind(module: nn.Module, inputs: Any, kind: Kind) -> None:
    """Refuse inputs of another kind than a tokenizer reads, and say which tokenizer reads them.

    Inputs of no known kind pass: a tokenizer knows better what is wrong with them.

    Args:
        module: the tokenizer.
        inputs: what it got.
        kind: what it reads.

    Raises:
        InputTypeError: for inputs of another kind.
    """
    got = _kind_of(inputs)
    if got in (None, kind):
        return
    what = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else list(inputs.shape)
    raise InputTypeError(
        f"{type(module).__name__} reads {kind}, and the data are {got}, {what}: choose the "
        f"tokenizer {_READERS[got]}, or other data"
    )


def _kind_of(inputs: Any) -> Kind | None:
    if isinstance(inputs, Tensor):
        if inputs.ndim == 3:
            return "points" if inputs.shape[2] == 3 else None
        return "images" if inputs.ndim == 4 else None
    if not isinstance(inputs, Mapping):
        return None
    if "images" in inputs:
        return "pairs of images with a text"
    return "sequences" if "input_ids" in inputs else None
