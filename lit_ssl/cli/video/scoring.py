"""The scores that ``lit-ssl video-score`` measures in one pass over the clips."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.metrics.video.card import fvd_name
from lit_ssl.metrics.video.distances import FrechetVideoDistance, VideoDistance
from lit_ssl.metrics.video.inception_metric import VideoInceptionScore
from lit_ssl.metrics.video.intervals import Distance, bootstrap_interval, self_distance
from lit_ssl.metrics.video.kernel import polynomial_mmd
from lit_ssl.metrics.video.motion import motion_per_video
from lit_ssl.metrics.video.random_features import RandomFeatureDistance

__all__ = ["Scores"]


class Scores:
    """FVD and KVD with an extractor, the Inception Score with a classifier, and what needs neither.

    Args:
        args: of the command line.

    Raises:
        InputError: A file holds no network, or there is no such device.
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.device = _device(args.device)
        self.features: FrechetVideoDistance | None = None
        self.inception: VideoInceptionScore | None = None
        if args.extractor is not None:
            self.features = FrechetVideoDistance(
                args.extractor, args.num_features, args.protocol, args.clip_length, args.max_items
            ).to(self.device)
        if args.classifier is not None:
            self.inception = VideoInceptionScore(
                args.classifier,
                protocol=args.inception_protocol,
                mean_clip=args.mean_clip,
                num_classes=args.num_classes,
                clip_length=args.clip_length,
                max_items=args.max_items,
            ).to(self.device)
        self.random = RandomFeatureDistance(max_items=args.max_items).to(self.device)
        self.motion: dict[bool, list[Tensor]] = {True: [], False: []}

    def update(self, video: Tensor, real: bool) -> None:
        """Add clips, uint8 ``[B, T, 3, H, W]``.

        Args:
            video: the clips; motion is that of clips with two frames or more.
            real: which of the two sets they are of.
        """
        if video.shape[1] > 1:
            self.motion[real].append(motion_per_video(video))
        for metric in filter(None, (self.features, self.random)):
            metric.update(video, real=real)
        if self.inception is not None and not real:
            self.inception.update(video)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Value, interval and card of each score, by its name for a table."""
        found: dict[str, dict[str, Any]] = {}
        if self.features is not None:
            metric, num_clips = self.features, len(self.features.rows("fake"))
            name = fvd_name(num_clips, self.args.clip_length, self.args.stride)
            found["FVD"] = {
                "name": name,
                **self._distance(metric, metric.distance),
                **metric.card(),
            }
            metric.compute()  # warns of few clips
            card = VideoDistance.card(metric)  # a kernel has no covariance
            found["KVD"] = {**self._distance(metric, polynomial_mmd), **card}
        if self.inception is not None:
            score = self.inception.compute()
            found["Inception Score"] = {
                "value": float(score.mean),
                "std": float(score.std) if self.inception.splits > 1 else None,
                "num_fake": score.num_clips,
                **self.inception.card(),
            }
        found["random-feature distance"] = {
            **self._distance(self.random, self.random.distance),
            **self.random.card(),
        }
        for real, kind in ((True, "real"), (False, "generated")):
            if self.motion[real]:
                motion = torch.cat(self.motion[real])
                found[f"motion, {kind}"] = {
                    "value": float(motion.mean()),
                    "unit": "grey levels from frame to frame",
                    "std_over_videos": float(motion.std(correction=0)),
                }
        return found

    def _distance(self, metric: VideoDistance, distance: Distance) -> dict[str, Any]:
        real, fake = metric.features()
        found: dict[str, Any] = {
            "value": float(distance(real, fake)),
            "num_real": len(real),
            "num_fake": len(fake),
            "self_distance": None,
            "interval_95": None,
        }
        if len(real) >= 4:
            found["self_distance"] = self_distance(distance, real, self.args.seed)
            found["self_distance_num"] = len(real) // 2
        if self.args.bootstrap:
            replicates, seed = self.args.bootstrap, self.args.seed
            interval = bootstrap_interval(distance, real, fake, replicates, seed=seed)
            found["interval_95"] = [interval.low, interval.high]
            found |= {"bootstrap_std": interval.std, "bootstrap_replicates": replicates}
        return found


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"--device {name} cannot be used here ({why})") from error
