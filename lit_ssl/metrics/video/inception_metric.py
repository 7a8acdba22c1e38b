"""Video Inception Score as a torchmetrics metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_ssl.errors import InputError, by_name
from lit_ssl.metrics.video.clip_features import ClipFeatures, check_flag
from lit_ssl.metrics.video.inception import InceptionScore, are_probabilities, inception_score
from lit_ssl.metrics.video.preparation import for_c3d, read_mean_clip
from lit_ssl.metrics.video.protocols import inception_protocol

__all__ = ["VideoInceptionScore"]


class VideoInceptionScore(ClipFeatures):
    """Inception Score of generated videos; higher is better.

    Published numbers on UCF101 are of a C3D fine-tuned on it, whose file you give; nothing is
    downloaded. Two protocols are in use and differ a lot: ``tgan2`` scores 2,048 clips in one part
    (and is repeated with ten sets of new clips: mean ± std over these), ``stylegan_v`` in ten
    parts after a fixed shuffle, which gives lower scores.

    Args:
        feature_extractor: The classifier, as for ``load_extractor``; it gives logits or
            probabilities, which ``compute`` tells apart. With ``tgan2`` it gets C3D's input,
            float ``[B, 3, 16, 112, 112]``; with ``stylegan_v`` uint8 ``[B, 3, T, H, W]``.
        splits: parts; None: as the protocol has.
        protocol: ``"tgan2"`` or ``"stylegan_v"``.
        mean_clip: ``tgan2`` only: file of the mean clip of C3D's training set.
        num_classes: C, what the classifier tells apart.
        clip_length: frames that every clip must have.
        max_items: clips that count; None: all.
        kwargs: Passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: The mean clip is missing with ``tgan2``, or given without.

    Source: arXiv 1606.03498; pfnet-research/tgan2 at f892bc4; universome/stylegan-v at 3fecd69.
    """

    higher_is_better = True
    columns = "num_classes"

    def __init__(
        self,
        feature_extractor: str | Path | nn.Module,
        splits: int | None = None,
        protocol: str = "tgan2",
        mean_clip: str | Path | None = None,
        num_classes: int = 101,
        clip_length: int | None = 16,
        max_items: int | None = 2048,
        **kwargs: Any,
    ) -> None:
        self.protocol = inception_protocol(protocol)
        if splits is not None and splits < 1:
            raise InputError(f"splits must be at least 1, not {splits}")
        if self.protocol.prepared != (mean_clip is not None):
            need = "needs mean_clip, a file" if self.protocol.prepared else "takes no mean_clip"
            raise InputError(
                f"protocol {protocol!r} {need}: tgan2 subtracts the mean clip of C3D's training set"
                " here, networks of stylegan_v do it themselves"
            )
        super().__init__(
            ("fake",), (), feature_extractor, num_classes, max_items, clip_length, **kwargs
        )
        self.splits = self.protocol.splits if splits is None else splits
        self.mean_clip = None if mean_clip is None else read_mean_clip(mean_clip)

    @by_name
    def update(self, video: Tensor, real: bool = False) -> None:
        """Add generated clips.

        Args:
            video: uint8 ``[B, T, 3, H, W]``, all of one T, H and W.
            real: Whether they are real: such clips are passed over, so that the score can stand in
                one ``MetricCollection`` with distances.

        Raises:
            ValueError: Shapes or the classifier's outputs are not as expected; nothing is added
                then.
        """
        if not check_flag("real", real):
            self.add_clips("fake", video)

    def prepare(self, video: Tensor) -> Tensor:
        """Bring clips into C3D's form where the protocol does; uint8 ``[B, 3, T, H, W]`` else."""
        return video if self.mean_clip is None else for_c3d(video, self.mean_clip)

    def compute(self) -> InceptionScore:
        """The score over all processes, on the CPU.

        Raises:
            ValueError: There are fewer clips than parts, or outputs are NaN or infinite.
        """
        rows = self.rows("fake")
        self.check_counts(fake=len(rows))
        self.warn_if_few(self.protocol.num_clips, fake=len(rows))
        return inception_score(rows, self.splits, self.protocol)

    def card(self) -> dict[str, Any]:
        """What makes the number what it is, for ``score_card``."""
        rows = self.rows("fake")
        return {
            "protocol": self.protocol.name,
            "source": self.protocol.source,
            "splits": self.splits,
            "shuffled": self.protocol.shuffled,
            "classifier_gives": "probabilities" if are_probabilities(rows) else "logits",
            "num_clips_of_protocol": self.protocol.num_clips,
            **self.extractor_card(),
        }
