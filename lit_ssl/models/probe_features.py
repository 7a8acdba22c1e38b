"""Features of a frozen backbone that linear probes look at, several kinds from one forward pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.class_token import class_token_problem
from lit_ssl.models.backbones.vit import ClassTokenViT

__all__ = ["ProbeFeatures"]

_TOKENS = re.compile(r"token-([1-9]\d*)(\+mean)?")


class ProbeFeatures:
    """Computes one or more kinds of features of images, all in one pass through the backbone.

    Kinds:

    - ``pooled``: what ``backbone(images)`` gives; any backbone;
    - ``token-n``: class tokens of the last n blocks, concatenated, before the final norm; ViTs
      with a class token;
    - ``mean``: mean of the patches of the last block, before the final norm; ViTs;
    - ``token-n+mean``: both, concatenated.

    Args:
        backbone: The network; not registered here, so that it keeps one owner.
        width: Number of features of ``pooled``.
        kinds: Kinds wanted, each once. None: ``token-1`` where there is a class token that
            [`ClassTokenViT`][lit_ssl.models.ClassTokenViT] computes, which is MSN's protocol, else
            ``pooled``.

    Raises:
        ValueError: If a kind is not known, comes twice or does not go with the backbone.

    Attributes:
        kinds: Kinds of features.
        widths: Number of features of each kind.
    """

    def __init__(self, backbone: nn.Module, width: int, kinds: Sequence[str] | None = None) -> None:
        self.backbone = backbone
        self.vit = _vision_transformer(backbone)
        has_token = self.vit is not None and class_token_problem(self.vit, True) is None
        self.kinds = list(kinds or (["token-1"] if has_token else ["pooled"]))
        if len(set(self.kinds)) < len(self.kinds):
            raise InputError(f"each kind of features may be there once, not {self.kinds}")
        parts = [_parse(kind) for kind in self.kinds]
        self._blocks = max(blocks for blocks, _ in parts)
        self._mean = any(mean for _, mean in parts)
        self._check(has_token)
        inner = self.vit.embed_dim if self.vit is not None else 0
        self.widths = [inner * (blocks + mean) or width for blocks, mean in parts]
        self._token_encoder = (
            ClassTokenViT(self.vit, any_pooling=True)
            if self.vit is not None and self._blocks
            else None
        )

    def networks(self) -> list[nn.Module]:
        """What is called of the backbone: all of it, up to the class token, or block by block."""
        if self._mean:
            assert self.vit is not None
            return list(self.vit.blocks)
        pooled = [self.backbone] if "pooled" in self.kinds else []
        return pooled if self._token_encoder is None else [*pooled, self._token_encoder]

    def _check(self, has_token: bool) -> None:
        name = type(self.backbone).__name__
        if (self._blocks or self._mean) and self.vit is None:
            raise InputError(
                f"features {self.kinds} are those of a vision transformer of timm; {name} has "
                "pooled only"
            )
        if self.vit is None:
            return
        if self._blocks and not has_token:
            problem = class_token_problem(self.vit, any_pooling=True)
            raise InputError(f"features {self.kinds} need a class token: {problem}")
        if self._blocks > len(self.vit.blocks):
            raise InputError(
                f"features token-{self._blocks}: this {name} has {len(self.vit.blocks)} blocks"
            )

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images ``[B, C, H, W]`` to one tensor ``[B, width]`` for each kind.

        Raises:
            ValueError: If the backbone does not give pooled features ``[B, width]``.
        """
        tokens, mean = self._of_blocks(images)
        found = []
        for kind, width in zip(self.kinds, self.widths, strict=True):
            blocks, with_mean = _parse(kind)
            if not blocks and not with_mean:
                found.append(self._pooled(images, width))
                continue
            parts = [] if not blocks else [tokens[:, -blocks:].flatten(1)]
            found.append(torch.cat([*parts, mean] if with_mean else parts, dim=1))
        return found

    def _pooled(self, images: Tensor, width: int) -> Tensor:
        features = self.backbone(images)
        if features.shape != (len(images), width):
            raise InputError(
                f"the backbone gives {list(features.shape)} for images {list(images.shape)}; "
                f"expected pooled features [{len(images)}, {width}]"
            )
        return features

    def _of_blocks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens ``[B, blocks, D]`` and the mean patch ``[B, D]``, empty where not needed."""
        none = images.new_empty(0)
        if self._mean:
            assert self.vit is not None
            layers: Any = self.vit.forward_intermediates(
                images,
                indices=max(self._blocks, 1),
                return_prefix_tokens=True,
                output_fmt="NLC",
                intermediates_only=True,
            )
            # without prefix tokens timm gives the patches alone
            pairs: list[tuple[Tensor, Tensor]] = [
                layer if isinstance(layer, tuple) else (layer, none) for layer in layers
            ]
            mean = pairs[-1][0].mean(dim=1)
            tokens = torch.stack([p[:, 0] for _, p in pairs], dim=1) if self._blocks else none
            return tokens, mean
        if self._token_encoder is None:
            return none, none
        joined = self._token_encoder(images, norm=False, blocks=self._blocks)
        return joined.unflatten(1, (self._blocks, -1)), none


def _vision_transformer(backbone: nn.Module) -> VisionTransformer | None:
    inner = backbone.vit if isinstance(backbone, ClassTokenViT) else backbone
    return inner if isinstance(inner, VisionTransformer) else None


def _parse(kind: str) -> tuple[int, bool]:
    """Number of class tokens, and whether the mean patch is wanted."""
    if kind in ("pooled", "mean"):
        return 0, kind == "mean"
    match = _TOKENS.fullmatch(kind)
    if match is None:
        raise InputError(
            f"there are no features {kind!r}: choose from pooled, token-n (n last blocks, such as "
            "token-1), mean and token-n+mean"
        )
    return int(match[1]), match[2] is not None
