"""Vision transformers with a convolutional stem, as named in MSN's reference code."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = ["ConvStem", "deit_small_convstem", "vitc_4gf"]

_WIDTHS = (48, 96, 192, 384)


class ConvStem(nn.Module):
    """Four strided 3×3 convolutions with BatchNorm and ReLU, then a 1×1 one, in place of patches.

    Args:
        img_size: pixels per side that the position table is made for.
        patch_size: 16: the four convolutions halve the image four times.
        in_chans: input channels.
        embed_dim: width of the tokens.
        **kwargs: what timm's VisionTransformer passes to any patch embedding; unused.

    Raises:
        InputError: if the patch size is not 16.

    Source: facebookresearch/msn (``vitc_4gf``); the design of arXiv 2106.14881.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if patch_size != 16:
            raise InputError(f"a convolutional stem has patches of 16 pixels, not {patch_size}")
        self.patch_size = (16, 16)
        self.grid_size = (height // 16, width // 16)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        channels = in_chans
        for out in _WIDTHS:
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        self.proj = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` → ``[B, H/16 * W/16, embed_dim]``.

        Args:
            images: H and W multiples of 16.
        """
        return self.proj(images).flatten(2).transpose(1, 2)


def _convstem(mlp_ratio: float, kwargs: dict[str, Any]) -> VisionTransformer:
    unused = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    own = {key: value for key, value in kwargs.items() if key not in unused}
    arguments = {"embed_dim": 384, "depth": 11, "num_heads": 6, "mlp_ratio": mlp_ratio}
    return VisionTransformer(**{**arguments, "embed_layer": ConvStem, **own})


@register_model
def vitc_4gf(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 384, 11 blocks, MLP ratio 3, convolutional stem: 17.4 M parameters.

    Args:
        pretrained: not used; timm asks for it.
        **kwargs: of timm's vision transformer, such as ``img_size``.
    """
    return _convstem(3.0, kwargs)


@register_model
def deit_small_convstem(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 384, 11 blocks, MLP ratio 6, convolutional stem: 27.1 M parameters.

    Args:
        pretrained: not used; timm asks for it.
        **kwargs: of timm's vision transformer, such as ``img_size``.
    """
    return _convstem(6.0, kwargs)
