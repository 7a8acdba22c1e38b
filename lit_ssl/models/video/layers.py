"""Spectrally normalised layers with an orthogonal start."""

from __future__ import annotations

from torch import nn

from lit_ssl.models.video.spectral_norm import spectral_norm

__all__ = ["Convolution", "class_embedding", "sn_conv", "sn_embedding", "sn_linear"]

Convolution = nn.Conv2d | nn.Conv3d


def sn_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, ...] = 3,
    dims: int = 2,
    bias: bool = True,
) -> Convolution:
    """Convolution that keeps the size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd.
        dims: 2 for images, 3 for videos ``[B, C, T, H, W]``.
        bias: whether there is one, 0 at the start.
    """
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    conv = layer(in_channels, out_channels, kernel_size, padding="same", bias=bias)  # type: ignore[arg-type]
    nn.init.orthogonal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return spectral_norm(conv)


def sn_linear(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer with a bias, 0 at the start.

    Args:
        in_features: numbers in.
        out_features: numbers out.
    """
    linear = nn.Linear(in_features, out_features)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return spectral_norm(linear)


def class_embedding(num_classes: int, dim: int) -> nn.Embedding:
    """Embedding of classes with an orthogonal start, not normalised: BigGAN's, for generators.

    Args:
        num_classes: how many.
        dim: numbers per class.
    """
    embedding = nn.Embedding(num_classes, dim)
    nn.init.orthogonal_(embedding.weight)
    return embedding


def sn_embedding(num_classes: int, dim: int) -> nn.Embedding:
    """Embedding of classes, spectrally normalised.

    Args:
        num_classes: how many.
        dim: numbers per class.
    """
    return spectral_norm(class_embedding(num_classes, dim))
