"""What is asked of a representation method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lit_ssl.contracts.batches import inputs_of, refuse_clips
from lit_ssl.errors import InputAttributeError

__all__ = [
    "FeatureFunction",
    "embed_dim_of",
    "embedding_method",
    "feature_function",
    "features_and_labels",
    "features_of_inputs",
    "prototypes_of",
]

FeatureFunction = Callable[[Tensor], Tensor]


def feature_function(pl_module: pl.LightningModule, name: str) -> FeatureFunction:
    """The method of a module that maps images ``[B, C, H, W]`` to features ``[B, D]``.

    Args:
        pl_module: The module.
        name: Name of the method; ``forward`` means calling the module itself.

    Raises:
        AttributeError: If the module has no such method.
    """
    method = pl_module if name == "forward" else getattr(pl_module, name, None)
    if not callable(method):
        raise InputAttributeError(
            f"module {type(pl_module).__name__} has no method {name!r}: feature_method must "
            "name a method that maps images [B, C, H, W] to features [B, D]; use 'forward'?"
        )
    return method


def embedding_method(pl_module: pl.LightningModule, otherwise: str = "forward") -> str:
    """Method that gives what soft nearest neighbours compare: ``embed``, or else another.

    Args:
        pl_module: the method.
        otherwise: name of the method of one that has no ``embed``.
    """
    return "embed" if callable(getattr(pl_module, "embed", None)) else otherwise


def prototypes_of(pl_module: pl.LightningModule) -> Tensor:
    """The prototypes of a module, ``[K, D]``, with which ``project(images)`` is compared.

    ``project`` maps images ``[B, C, H, W]`` to ``[B, D]``; the prototype of an image is the one
    with the largest cosine.

    Args:
        pl_module: The module.

    Raises:
        AttributeError: If the module has no ``prototypes`` or no ``project``.
    """
    found = getattr(pl_module, "prototypes", None)
    if not isinstance(found, Tensor) or not callable(getattr(pl_module, "project", None)):
        raise InputAttributeError(
            f"needs a module with prototypes, such as MSN and PMSN, and {type(pl_module).__name__} "
            "has none: leave it out, or give the module prototypes [K, D] and project(images)"
        )
    return found.detach()


def embed_dim_of(pl_module: pl.LightningModule) -> int:
    """``embed_dim`` of a module: the width D of its features.

    Args:
        pl_module: the method.

    Raises:
        AttributeError: If it has none.
    """
    width = getattr(pl_module, "embed_dim", None)
    if width is None:
        raise InputAttributeError(
            f"module {type(pl_module).__name__} has no embed_dim: expected an attribute "
            "with the width D of the features that forward(images) returns; add it"
        )
    return int(width)


def features_and_labels(pl_module: Any, batch: Any, batch_idx: int) -> dict[str, Tensor]:
    """A ``validation_step`` and ``test_step``: of a labelled batch, what evaluators need.

    Args:
        pl_module: the method; ``pl_module(images)`` gives its features.
        batch: ``(images, labels, …)``: ``[B, C, H, W]`` and ``[B]``.
        batch_idx: not used.

    Returns:
        ``features`` ``[B, embed_dim]`` and ``labels`` ``[B]``.
    """
    images, labels = batch[:2]
    refuse_clips(images, type(pl_module).__name__)
    return {"features": pl_module(images), "labels": labels}


def features_of_inputs(pl_module: Any, batch: Any, batch_idx: int) -> Tensor:
    """A ``predict_step``: features ``[B, embed_dim]`` of ``images`` or ``(images, labels)``.

    Args:
        pl_module: the method; ``pl_module(images)`` gives its features.
        batch: images ``[B, C, H, W]``, alone or with labels behind them.
        batch_idx: not used.
    """
    images = inputs_of(batch)
    refuse_clips(images, type(pl_module).__name__)
    return pl_module(images)
