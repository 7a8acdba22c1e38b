"""Tokens of images: two stages of a ConvNeXt, or linear patches."""

from __future__ import annotations

import numpy as np
import torch
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputTypeError, did_you_mean
from lit_ssl.models.nac.tokenizers.kinds import check_kind
from lit_ssl.models.nac.tokenizers.tokens import (
    Tokens,
    check_positive,
    same_noise,
    with_positions,
)

__all__ = ["PRESETS", "ConvNeXtTokenizer", "PatchTokenizer", "check_images", "convnext_stages"]

# Blocks of the first three stages.
PRESETS = {
    "tiny": (3, 3, 9),
    "mini": (3, 3, 6),
    "micro": (3, 3, 3),
    "nano": (1, 1, 1),
    "pico": (1, 1, 0),
    "femto": (1, 0, 0),
    "atto": (0, 0, 0),
}


class ConvNeXtTokenizer(nn.Module):
    """The first stages of a ConvNeXt, and learned positions that are concatenated.

    Stage ``i`` has ``state_dim / 4 * 2**i`` channels; its first layer is a 4 × 4 convolution with
    stride 4 and LayerNorm (stage 0), or LayerNorm and a 2 × 2 convolution with stride 2. With the
    defaults, images of 64 × 64 pixels give 64 tokens of 192 + 64, by 1.239 M parameters.

    Args:
        state_dim: D of the circuit, divisible by 4; only sets the widths.
        preset: blocks of the stages: ``tiny`` (3, 3, 9), ``mini`` (3, 3, 6), ``micro`` (3, 3, 3),
            ``nano`` (1, 1, 1), ``pico`` (1, 1, 0), ``femto`` (1, 0, 0), ``atto`` (0, 0, 0).
        num_stages: how many of them, 1 to 3.
        image_size: height and width, divisible by 4, 8 or 16 for 1, 2 or 3 stages. The grid of
            positions has this size, so images have to have it.
        position_dim: channels of the positions, drawn from N(0, 1); >= 1.
        in_channels: channels of the images.
        drop_path: probability that the last block is left out, in [0, 1); falls linearly to 0 at
            the first one.

    Raises:
        ValueError: for an unknown preset, or sizes that do not divide.

    Source: the official code of NAC (arXiv 2210.08031).
    """

    def __init__(
        self,
        state_dim: int = 384,
        preset: str = "tiny",
        num_stages: int = 2,
        image_size: int = 64,
        position_dim: int = 64,
        in_channels: int = 3,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(
            "ConvNeXtTokenizer",
            image_size=image_size,
            position_dim=position_dim,
            in_channels=in_channels,
        )
        self.backbone, stride = convnext_stages(
            state_dim, preset, num_stages, in_channels, drop_path
        )
        if image_size % stride:
            raise InputError(
                f"ConvNeXtTokenizer with {num_stages} stages needs an image_size that {stride} "
                f"divides, got {image_size}: resize the images or take fewer stages"
            )
        self.image_size, self.in_channels = image_size, in_channels
        self.positions = nn.Parameter(torch.randn((image_size // stride) ** 2, position_dim))
        self.token_dim = state_dim // 4 * 2 ** (num_stages - 1) + position_dim

    def forward(self, images: Tensor) -> Tokens:
        """``[B, C, H, W]`` → tokens in the order of rows of the image.

        Args:
            images: of the size and channels that the tokenizer was built for.
        """
        check_kind(self, images, "images")
        check_images(self, images, 4)
        values = self.backbone(images).flatten(2).transpose(1, 2)
        return Tokens(with_positions(values, self.positions))

    def example(self, batch_size: int = 1) -> Tensor:
        """Random images.

        Args:
            batch_size: B.

        Returns:
            Float ``[B, C, H, W]``, the same each time.
        """
        return random_images(self, batch_size)


class PatchTokenizer(nn.Module):
    """Linear projections of patches, and learned positions that are concatenated.

    Args:
        image_size: height and width of the images.
        patch_size: of the patches; divides ``image_size``.
        in_channels: channels of the images.
        embed_dim: channels of the projection, >= 1.
        position_dim: channels of the positions, drawn from N(0, 1); >= 1.

    Raises:
        ValueError: if a size lies below 1 or does not divide.

    Source: ours, for small images.
    """

    def __init__(
        self,
        image_size: int = 28,
        patch_size: int = 4,
        in_channels: int = 1,
        embed_dim: int = 32,
        position_dim: int = 16,
    ) -> None:
        super().__init__()
        check_positive(
            "PatchTokenizer",
            image_size=image_size,
            patch_size=patch_size,
            in_channels=in_channels,
            embed_dim=embed_dim,
            position_dim=position_dim,
        )
        if image_size % patch_size:
            raise InputError(
                f"PatchTokenizer needs a patch_size that divides image_size {image_size}, got "
                f"{patch_size}"
            )
        self.image_size, self.in_channels = image_size, in_channels
        self.project = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.randn((image_size // patch_size) ** 2, position_dim))
        self.token_dim = embed_dim + position_dim

    def forward(self, images: Tensor) -> Tokens:
        """``[B, C, H, W]`` → tokens in the order of rows of the image.

        Args:
            images: of the size and channels that the tokenizer was built for.
        """
        check_kind(self, images, "images")
        check_images(self, images, 4)
        values = self.project(images).flatten(2).transpose(1, 2)
        return Tokens(with_positions(values, self.positions))

    def example(self, batch_size: int = 1) -> Tensor:
        """Random images.

        Args:
            batch_size: B.

        Returns:
            Float ``[B, C, H, W]``, the same each time.
        """
        return random_images(self, batch_size)


def convnext_stages(
    state_dim: int, preset: str, num_stages: int, in_channels: int, drop_path: float = 0.0
) -> tuple[nn.Sequential, int]:
    """The first stages of a ConvNeXt, and the pixels per side of one output position.

    Args:
        state_dim: four times the channels of the first stage; the others double them.
        preset: see [`ConvNeXtTokenizer`][lit_ssl.models.ConvNeXtTokenizer].
        num_stages: 1 to 3.
        in_channels: channels of the images.
        drop_path: of the last block; falls linearly to 0 at the first one.

    Raises:
        InputError: for an unknown preset, or a value outside its range.
    """
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}.{did_you_mean(preset, PRESETS)}")
    if state_dim < 4 or state_dim % 4:
        raise InputError(f"state_dim must be a multiple of 4, got {state_dim}")
    if not 1 <= num_stages <= 3 or not 0 <= drop_path < 1:
        raise InputError(
            "num_stages must lie in 1 to 3 and drop_path in [0, 1), got "
            f"{num_stages} and {drop_path:g}"
        )
    depths = PRESETS[preset][:num_stages]
    rates = iter(np.linspace(0, drop_path, max(sum(depths), 1)).tolist())
    channels, stages = in_channels, nn.Sequential()
    for stage, depth in enumerate(depths):
        width = state_dim // 4 * 2**stage
        if stage == 0:
            down = [nn.Conv2d(channels, width, 4, stride=4), LayerNorm2d(width)]
        else:
            down = [LayerNorm2d(channels), nn.Conv2d(channels, width, 2, stride=2)]
        blocks = [ConvNeXtBlock(width, drop_path=next(rates)) for _ in range(depth)]
        stages.append(nn.Sequential(*down, *blocks))
        channels = width
    for module in stages.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return stages, 4 * 2 ** (num_stages - 1)


def check_images(module: nn.Module, images: Tensor, ndim: int) -> None:
    """Refuse images of another size than a module was built for, ``[..., C, H, W]``.

    Args:
        module: has ``image_size`` and ``in_channels``.
        images: what it got.
        ndim: dimensions that they should have.

    Raises:
        InputTypeError: if they are no tensor.
        InputError: if they have another shape.
    """
    who, size = type(module).__name__, module.image_size
    expected = (module.in_channels, size, size)
    if not isinstance(images, Tensor):
        raise InputTypeError(f"{who} reads images, got {type(images).__name__}")
    if images.ndim != ndim or images.shape[-3:] != expected:
        raise InputError(
            f"{who} was built for images [{'B, C, H, W' if ndim == 4 else 'B, 2, C, H, W'}] with "
            f"C, H, W = {', '.join(map(str, expected))}, got {list(images.shape)}: set its "
            "image_size and in_channels to those of the data, or resize the images there"
        )


def random_images(module: nn.Module, *sizes: int) -> Tensor:
    """Random images ``[*sizes, C, H, W]`` of the size that a module was built for.

    Args:
        module: has ``image_size`` and ``in_channels``.
        *sizes: the dimensions before C.
    """
    generator, device = same_noise(module)
    side = module.image_size
    shape = (*sizes, module.in_channels, side, side)
    return torch.randn(shape, generator=generator).to(device)  # type: ignore[arg-type]
