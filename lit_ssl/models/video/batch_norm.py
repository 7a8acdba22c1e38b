"""Batch normalisation whose gain and shift follow from a condition."""

from __future__ import annotations

from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = ["ConditionalBatchNorm2d"]

_START = 0.02


class ConditionalBatchNorm2d(nn.Module):
    """Conditional batch normalisation.

        out = BN(x) · (1 + W_g c) + W_b c          BN without affine, W_g and W_b without bias

    Both weights start normal with standard deviation 0.02, so that gains start near 1; they are not
    spectrally normalised in our networks, since that would undo the small start.
    ``Trainer(sync_batchnorm=True)`` converts what is inside.

    Frames of a video are folded into the batch, row b · T + t for frame t of video b; then there is
    one condition for each video, which all of its frames share.

    Args:
        channels: C of the input.
        condition_dim: size of a condition.
        momentum: of the running statistics, as in ``nn.BatchNorm2d``.
        eps: added to the variance.

    Source: arXiv 1809.11096, appendix B; arXiv 1707.00683.
    """

    def __init__(
        self, channels: int, condition_dim: int, momentum: float = 0.1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False)
        self.gain = nn.Linear(condition_dim, channels, bias=False)
        self.shift = nn.Linear(condition_dim, channels, bias=False)
        nn.init.normal_(self.gain.weight, std=_START)
        nn.init.normal_(self.shift.weight, std=_START)

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        """Normalise.

        Args:
            inputs: ``[N, C, H, W]``, N a multiple of B.
            condition: ``[B, condition_dim]``.

        Returns:
            ``[N, C, H, W]``.

        Raises:
            ValueError: if N is not a multiple of B.
        """
        frames, rest = divmod(len(inputs), len(condition))
        if rest:
            raise InputError(
                f"{len(inputs)} frames cannot be shared by {len(condition)} conditions: give one "
                "condition for each video, and videos of equal length"
            )
        gain, shift = self.gain(condition), self.shift(condition)
        if frames > 1:  # not repeat(): the frames of a video lie next to each other
            gain, shift = (x.repeat_interleave(frames, dim=0) for x in (gain, shift))
        return self.bn(inputs) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]
