"""Where the class token of a vision transformer looks: its attention, and rolled out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.queried_block import QueriedAttention

__all__ = ["ClassAttention", "class_attention", "find_vit"]

_INSTEAD = "they are drawn of timm's vision transformers with a class token"


class ClassAttention(NamedTuple):
    """Attention of the class token to the h x w patches.

    The weights of a map sum to what is not given to the class token itself, registers and a
    distillation token.

    Attributes:
        last: of each head of the last block, float32 ``[B, H, h, w]``.
        rollout: through all blocks, float32 ``[B, h, w]``.
    """

    last: Tensor
    rollout: Tensor


def find_vit(network: nn.Module) -> nn.Module:
    """The vision transformer in a network whose attention can be drawn.

    Args:
        network: such a transformer, or what has one inside, e.g. the ``encoder`` of a method.

    Raises:
        InputError: if there is none, or several; if it has no class token, or blocks whose
            attention timm does not write out.
    """
    found = [part for part in network.modules() if _is_vit(part)]
    inner = [part for vit in found for part in vit.modules() if part is not vit]
    outer = [vit for vit in found if not any(vit is part for part in inner)]
    if not outer:
        raise InputError(
            f"{type(network).__name__} has no attention maps: {_INSTEAD}, and it has none in it"
        )
    if len(outer) > 1:
        raise InputError(
            f"{type(network).__name__} has {len(outer)} transformers in it: give the one to draw"
        )
    vit: Any = outer[0]
    if getattr(vit, "cls_token", None) is None:
        raise InputError(
            f"this {type(vit).__name__} has no attention maps: {_INSTEAD}, and it pools otherwise"
        )
    for block in vit.blocks:
        attn = getattr(block, "attn", None)
        if not isinstance(getattr(attn, "attn_drop", None), nn.Module) or not hasattr(
            attn, "fused_attn"
        ):
            raise InputError(
                f"this {type(vit).__name__} has no attention maps: its {type(block).__name__} "
                "computes attention in a way that does not write it out"
            )
    return vit


@torch.no_grad()
def class_attention(
    vit: nn.Module, images: Tensor, forward: Callable[[Tensor], Any] | None = None
) -> ClassAttention:
    """Attention of the class token in the forward pass of some images.

    Fused attention keeps no weights, so the blocks write theirs out meanwhile, with their own
    masks, norms of queries and keys, and positions; the last block of a
    [`ClassTokenViT`][lit_ssl.models.ClassTokenViT], which computes the class token alone, is asked
    for its weights beside that. One image is taken at a time, since the weights of a block are
    ``H * N²`` numbers.

    ::

        A_l = mean over heads of softmax(q_l k_lᵀ / √d)          # [N, N], block l of L
        rollout = Π_l (A_l / 2 + I / 2), the last block leftmost; its row of the class token

    Args:
        vit: see ``find_vit``; in evaluation mode.
        images: ``[B, C, H, W]``, normalised, B >= 1.
        forward: how the images go through the network; None: ``vit(images)``.

    Returns:
        Maps on the CPU.

    Raises:
        InputError: if the pass does not go through each block once, or its tokens form no grid.

    Source: rollout: Abnar and Zuidema, arXiv 2005.00928, section 3, equation 1.
    """
    last, rolled = [], []
    for image in images:
        with _written_out(vit) as seen:
            (forward or vit)(image[None])
        blocks = len(vit.blocks)  # type: ignore[arg-type]
        if seen.count != blocks or seen.last is None or seen.rollout is None:
            raise InputError(
                f"the network went {seen.count} times through the {blocks} blocks of its "
                "transformer, so that it has no attention maps"
            )
        prefix = int(vit.num_prefix_tokens)  # type: ignore[arg-type]
        grid = _grid(vit, image, seen.last.shape[-1] - prefix)
        last.append(seen.last[0, :, prefix:].unflatten(1, grid).cpu())
        rolled.append(seen.rollout[0, 0, prefix:].unflatten(0, grid).cpu())
    return ClassAttention(torch.stack(last), torch.stack(rolled))


class _Seen:
    """What is kept of the weights of the blocks, one after the other."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Tensor | None = None  # of the class token, [B, H, N]
        self.rollout: Tensor | None = None  # [B, N, N]

    def add(self, weights: Tensor) -> None:
        """Take the weights of the next block, ``[B, H, N, N]``."""
        with torch.autocast(weights.device.type, enabled=False):
            mixed = 0.5 * weights.float().mean(dim=1)
            mixed.diagonal(dim1=-2, dim2=-1).add_(0.5)
            self.rollout = mixed if self.rollout is None else mixed @ self.rollout
        self.last = weights[:, :, 0].float()
        self.count += 1


@contextmanager
def _written_out(vit: Any) -> Iterator[_Seen]:
    """Let every block hand over its weights in the pass inside."""
    seen = _Seen()

    def of_dropout(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.add(inputs[0])  # before any of them is dropped

    def of_queried(attn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        # Its own way keeps no weights, and may compute the first tokens alone.
        named = dict(zip(("x", "attn_mask", "is_causal", "queries"), args, strict=False)) | kwargs
        named.pop("queries", None)
        if not named.get("is_causal"):
            named.pop("is_causal", None)  # which timm has not always had
        Attention.forward(attn, **named)

    layers = [block.attn for block in vit.blocks]
    fused = [layer.fused_attn for layer in layers]
    hooks = []
    try:
        for layer in layers:
            layer.fused_attn = False
            hooks.append(layer.attn_drop.register_forward_hook(of_dropout))
            if isinstance(layer, QueriedAttention):
                hooks.append(layer.register_forward_hook(of_queried, with_kwargs=True))
        with torch.compiler.set_stance("force_eager"):  # what is compiled knows no new hooks
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for layer, was in zip(layers, fused, strict=True):
            layer.fused_attn = was


def _is_vit(part: nn.Module) -> bool:
    """Whether it is built as timm's transformers are: blocks, tokens before the patches."""
    is_timms = any(kind.__module__.startswith("timm.models.") for kind in type(part).__mro__)
    return (
        is_timms
        and isinstance(getattr(part, "blocks", None), nn.Sequential | nn.ModuleList)
        and hasattr(part, "patch_embed")
        and hasattr(part, "num_prefix_tokens")
    )


def _grid(vit: Any, image: Tensor, patches: int) -> tuple[int, int]:
    """Rows and columns of patches in an image."""
    height, width = image.shape[-2:]
    patch = vit.patch_embed.patch_size
    rows, columns = height // patch[0], width // patch[1]
    if rows * columns != patches:
        raise InputError(
            f"{patches} patches of an image of {height}×{width} pixels form no grid of patches of "
            f"{patch[0]}×{patch[1]}, so that they have no attention maps"
        )
    return rows, columns
