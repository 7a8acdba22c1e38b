"""Two convolutions: a network that learns small digits in seconds on one core."""

from __future__ import annotations

from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = ["SmallCNN"]


class SmallCNN(nn.Module):
    """Two 5 × 5 convolutions with stride 2, ReLU: ``[B, in_chans, 28, 28]`` → ``[B, 256]``.

    Args:
        in_chans: channels of the images, >= 1.
        img_size: their height and width, >= 13.
        width: channels after the first convolution, >= 1; the second one doubles them.

    Raises:
        ValueError: if a value lies below its range.
    """

    def __init__(self, in_chans: int = 1, img_size: int = 28, width: int = 8) -> None:
        super().__init__()
        if in_chans < 1 or img_size < 13 or width < 1:
            raise InputError(
                "SmallCNN needs in_chans >= 1, img_size >= 13 and width >= 1, got "
                f"{in_chans}, {img_size} and {width}"
            )
        self.img_size = img_size
        self.conv1 = nn.Conv2d(in_chans, width, kernel_size=5, stride=2)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=5, stride=2)
        side = ((img_size - 5) // 2 + 1 - 5) // 2 + 1
        self.num_features = 2 * width * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images to features.

        Args:
            images: ``[B, C, H, W]``, of the size that the network was built for.

        Returns:
            ``[B, num_features]``.
        """
        return self.conv2(self.conv1(images).relu()).relu().flatten(1)
