"""Which vision transformers have a class token that ``ClassTokenViT`` computes as timm does."""

from __future__ import annotations

from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer

__all__ = ["class_token_problem"]

# Where a subclass may compute something else, such as a second token.
_FORWARD = ("_pos_embed", "forward_features", "pool", "forward_head", "forward")


def class_token_problem(vit: VisionTransformer, any_pooling: bool = False) -> str | None:
    """Why the class token that ``ClassTokenViT`` computes is not the feature of a network of timm.

    Args:
        vit: the network.
        any_pooling: whether another pooling is no problem.

    Returns:
        The reason; None if it is the same.
    """
    kind = type(vit)
    own = [n for n in _FORWARD if getattr(kind, n, None) is not getattr(VisionTransformer, n, None)]
    embed = vit.patch_embed
    size = getattr(embed, "img_size", None)  # a convolutional stem has none
    sides = zip(size, embed.grid_size, embed.patch_size, strict=True) if size else ()
    if own:
        return f"{kind.__name__} has a {own[0]} of its own, which is not computed here"
    if vit.cls_token is None:
        return "this one has no class token; choose one with class_token=True"
    if isinstance(embed, HybridEmbed) or any(s // patch != n for s, n, patch in sides):
        return f"patches that come out of a network ({type(embed).__name__}) are not computed here"
    if getattr(embed, "dynamic_img_pad", False):
        return "it pads images (dynamic_img_pad), which is not done here"
    if getattr(vit.patch_drop, "prob", 0):
        return "it drops patches by itself (patch_drop_rate), which is not done here: use masks"
    if vit.global_pool != "token" and not any_pooling:
        return f"it pools with global_pool={vit.global_pool!r}; only 'token' is computed here"
    return None
