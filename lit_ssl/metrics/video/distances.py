"""Distances between a set of real videos and a set of generated ones, as torchmetrics metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_ssl.errors import by_name
from lit_ssl.metrics.video.clip_features import ClipFeatures, check_flag
from lit_ssl.metrics.video.frechet import frechet_distance_from_features
from lit_ssl.metrics.video.kernel import polynomial_mmd
from lit_ssl.metrics.video.preparation import for_i3d
from lit_ssl.metrics.video.protocols import frechet_protocol

__all__ = ["FrechetVideoDistance", "KernelVideoDistance", "VideoDistance"]


class VideoDistance(ClipFeatures):
    """A distance of the features of real and of generated clips.

    Args:
        feature_extractor: as for ``load_extractor``.
        num_features: that it gives.
        protocol: ``"stylegan_v"`` or ``"tats"``.
        clip_length: frames that every clip must have; None: any, the same for all.
        max_items: clips of each set that count; None: all.
        reset_real_features: Whether ``reset`` forgets the real clips too. If not, checkpoints hold
            their features.
        kwargs: Passed to ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(
        self,
        feature_extractor: str | Path | nn.Module,
        num_features: int = 400,
        protocol: str = "stylegan_v",
        clip_length: int | None = 16,
        max_items: int | None = 2048,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        self.protocol = frechet_protocol(protocol)
        kept = () if reset_real_features else ("real",)
        super().__init__(
            ("real", "fake"),
            kept,
            feature_extractor,
            num_features,
            max_items,
            clip_length,
            **kwargs,
        )

    @by_name
    def update(self, video: Tensor, real: bool) -> None:
        """Add clips.

        Args:
            video: uint8 ``[B, T, 3, H, W]``; all clips of both sets have one T, H and W.
            real: Whether they are real, not generated.

        Raises:
            ValueError: Shapes or the features are not as expected; nothing is added then.
        """
        self.add_clips("real" if check_flag("real", real) else "fake", video)

    def prepare(self, video: Tensor) -> Tensor:
        """Resize and scale, where the protocol does; uint8 ``[B, 3, T, H, W]`` else."""
        return for_i3d(video) if self.protocol.resized else video

    def features(self) -> tuple[Tensor, Tensor]:
        """Real and generated features over all processes, ``[N, F]`` and ``[M, F]``, on the CPU.

        For intervals and halves (``bootstrap_interval``, ``self_distance``). With several processes
        all have to call it.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self.rows("real"), self.rows("fake")

    def compute(self) -> Tensor:
        """The distance over all processes, float64, 0-d, on the CPU.

        Raises:
            ValueError: A set has fewer than two clips, or features are NaN or infinite.
        """
        real, fake = self.rows("real"), self.rows("fake")
        self.check_counts(real=len(real), fake=len(fake))
        self.warn_about(len(real), len(fake))
        return self.distance(real, fake)

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """The distance of two sets of rows, ``[N, F]`` and ``[M, F]``.

        Args:
            real: Features of the real clips, float64 on the CPU.
            fake: Features of the generated clips, likewise.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    def warn_about(self, num_real: int, num_fake: int) -> None:
        """Warn where there are fewer clips than the protocol asks for.

        Args:
            num_real: Number of real clips.
            num_fake: Number of generated clips.
        """
        self.warn_if_few(self.protocol.num_clips, real=num_real, fake=num_fake)

    def card(self) -> dict[str, Any]:
        """What makes the number what it is, for ``score_card``."""
        how = self.protocol
        return {
            "protocol": how.name,
            "source": how.source,
            "preparation": "bilinear to 224 x 224, 2 x / 255 - 1"
            if how.resized
            else "uint8; the network resizes and scales",
            "num_clips_of_protocol": how.num_clips,
            **self.extractor_card(),
        }


class FrechetVideoDistance(VideoDistance):
    """Fréchet Video Distance (FVD); lower is better.

    The network decides what is measured: published numbers are of an I3D trained on Kinetics-400,
    whose file you give; nothing is downloaded. Protocols differ in weights, resizing and
    covariance, and do not compare; ``card`` says what was used.

    ========================  =====================================  ============================
    ..                        ``stylegan_v``                         ``tats`` (and DIGAN)
    ========================  =====================================  ============================
    the network gets          uint8 ``[B, 3, T, H, W]``, and         float in [−1, 1], bilinear
                              resizes and scales itself              to 224 × 224
    covariance divided by     N                                      N − 1
    a generator's uint8       ``to_uint8(video, "stylegan_v")``      ``to_uint8(video, "tats")``
    ========================  =====================================  ============================

    Features are added up in float64: float32, as in TATS' code, is off by 0.007 of 82 for 40 clips
    of 96 features. Arguments as of ``VideoDistance``.

    Source: arXiv 1812.01717; universome/stylegan-v at 3fecd69; songweige/TATS at 03bbce1.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
        >>> class Mean(nn.Module):
        ...     def forward(self, video):
        ...         return network(video.float())
        >>> fvd = FrechetVideoDistance(Mean(), num_features=3, clip_length=2)
        >>> real = torch.randint(256, (4, 2, 3, 8, 8)).byte()
        >>> fvd.update(real, real=True)
        >>> fvd.update(real.flip(0), real=False)
        >>> abs(fvd.compute().item()) < 1e-9
        True
    """

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Fréchet distance of two sets of rows, with the protocol's covariance."""
        return frechet_distance_from_features(real, fake, self.protocol.unbiased)

    def card(self) -> dict[str, Any]:
        """What makes the number what it is, for ``score_card``."""
        divisor = "N - 1" if self.protocol.unbiased else "N"
        numerics = {"covariance_divided_by": divisor, "arithmetic": "float64, eigh and svdvals"}
        return {**super().card(), **numerics}


class KernelVideoDistance(VideoDistance):
    """Kernel Video Distance (KVD): squared MMD, polynomial kernel of degree 3, unbiased.

    Around 0, also below it, for sets of one distribution, however few clips there are. Published
    values are of the same networks as FVD's. Arguments as of ``VideoDistance``.

    Source: arXiv 1812.01717, section 3.2; songweige/TATS at 03bbce1.
    """

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Squared MMD of two sets of rows."""
        return polynomial_mmd(real, fake)

    def warn_about(self, num_real: int, num_fake: int) -> None:
        """Nothing: an unbiased estimate does not shift with the number of clips."""
