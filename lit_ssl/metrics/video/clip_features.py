"""Features of clips, set by set, that processes put together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_ssl.distributed import process_rank, world_size
from lit_ssl.errors import InputError, InputRuntimeError, InputTypeError
from lit_ssl.metrics.video.features import load_extractor
from lit_ssl.metrics.video.preparation import check_clips

__all__ = ["ClipFeatures", "check_flag"]


class ClipFeatures(Metric):
    """A metric of features of clips, from any number of processes with any share of them.

    Each process keeps its features, float64, with their places: the i-th clip of process r has
    place ``i W + r``, which is its number in the data where W processes share it as loaders do. So
    the first ``max_items`` are the same clips whatever W is. 2,048 clips with 400 features take
    6.5 MB. A process computes up to ``max_items`` itself, for it cannot know how many others have.

    Args:
        sets: Names of the sets.
        kept: those that ``reset`` does not forget, and that checkpoints hold.
        feature_extractor: as for ``load_extractor``.
        num_features: that it must give, F.
        max_items: clips of each set that count, in their order; None: all.
        clip_length: frames that a clip must have; None: any, the same for all.
        kwargs: Passed to ``torchmetrics.Metric``.

    Raises:
        TypeError: A number is no integer.
        ValueError: It is below 1.
    """

    full_state_update = False
    is_differentiable = False
    columns = "num_features"  # what callers know the number of features by
    clip_size: Tensor
    processes: Tensor

    def __init__(
        self,
        sets: Sequence[str],
        kept: Sequence[str],
        feature_extractor: str | Path | nn.Module,
        num_features: int,
        max_items: int | None,
        clip_length: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (
            (self.columns, num_features),
            ("max_items", max_items),
            ("clip_length", clip_length),
        ):
            if isinstance(value, bool) or not isinstance(value, Integral | None):
                raise InputTypeError(f"{name} must be an integer, not {value!r}")
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        # in a tuple, so that its weights are no part of this module
        self._extractor = (load_extractor(feature_extractor),)
        self.num_features = num_features
        self.max_items = max_items
        self.clip_length = clip_length
        self.sets, self.kept = tuple(sets), tuple(kept)
        for name in self.sets:
            is_kept = name in self.kept
            self.add_state(f"{name}_features", [], dist_reduce_fx="cat", persistent=is_kept)
            self.add_state(f"{name}_places", [], dist_reduce_fx="cat", persistent=is_kept)
        zero = torch.zeros((), dtype=torch.int64)
        # of the last clips, [T, H, W]; and the number of processes that shared them
        self.add_state(
            "clip_size", zero.repeat(3), dist_reduce_fx=_common_size, persistent=bool(kept)
        )
        self.add_state("processes", zero, dist_reduce_fx="max", persistent=bool(kept))
        # a MetricCollection lets metrics of equal states share them: not where these differ
        own = torch.tensor([max_items or 0, len(self.kept)])
        self.add_state("own_options", own, dist_reduce_fx="max")
        self.register_load_state_dict_post_hook(_take_share)
        self.reset()

    def reset(self) -> None:
        """Forget all clips but those of the sets that are kept."""
        before = {
            f"{name}_{part}": list(getattr(self, f"{name}_{part}"))  # reset empties the list itself
            for name in self.kept
            for part in ("features", "places")
        }
        size, processes = self.clip_size, self.processes
        super().reset()
        for name in self.sets:
            # begins with empty tensors, without which a process that has no clip sends nothing
            for part, shape, dtype in (
                ("features", (0, self.num_features), torch.float64),
                ("places", (0,), torch.int64),
            ):
                empty = torch.empty(shape, dtype=dtype, device=self.device)
                setattr(self, f"{name}_{part}", before.get(f"{name}_{part}") or [empty])
        if any(len(tensor) for tensors in before.values() for tensor in tensors):
            self.clip_size, self.processes = size, processes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: a batch has no distance.

        Args:
            *args: anything.
            **kwargs: anything.

        Raises:
            RuntimeError: Always.
        """
        raise InputRuntimeError(
            f"{type(self).__name__} has no value for one batch: call update, and compute at the end"
        )

    def add_clips(self, name: str, video: Tensor) -> None:
        """Keep the features of clips; what is beyond ``max_items`` is passed over.

        Args:
            name: of the set.
            video: uint8 ``[B, T, 3, H, W]``.

        Raises:
            ValueError: Shapes are not those expected, or not those of the clips before.
        """
        check_clips(video)
        self._check_size(video)
        places: list[Tensor] = getattr(self, f"{name}_places")
        count = sum(map(len, places))
        room = len(video) if self.max_items is None else max(0, self.max_items - count)
        video = video[:room].to(self.device)
        if not len(video):
            return
        features = self._extractor[0](self.prepare(video.transpose(1, 2)))
        if features.shape[1] != self.num_features:
            raise InputError(
                f"{self._extractor[0].name} gives {features.shape[1]} features for each clip,"
                f" {self.columns} is {self.num_features}: set it to the former if this is the"
                " network that is meant"
            )
        self.processes = torch.full_like(self.processes, world_size())
        numbers = torch.arange(count, count + len(video), device=self.device)
        places.append(numbers * world_size() + process_rank())
        getattr(self, f"{name}_features").append(features.detach().to(self.device).double())

    def prepare(self, video: Tensor) -> Tensor:
        """What the network gets of clips, uint8 ``[B, 3, T, H, W]``: themselves.

        Args:
            video: The clips.
        """
        return video

    def rows(self, name: str) -> Tensor:
        """Features of a set over all processes, in order and cut: float64 ``[N, F]`` on the CPU.

        Args:
            name: Of the set, ``real`` or ``fake``.

        Raises:
            ValueError: Some are not finite.
        """
        features, places = self._joined(f"{name}_features"), self._joined(f"{name}_places")
        rows = features[places.argsort(stable=True)][: self.max_items]
        if broken := int((~rows.isfinite()).any(dim=1).sum()):
            raise InputError(
                f"{type(self).__name__}: the features of {broken:,} of {len(rows):,} {name} clips"
                f" are NaN or infinite; look at these videos, and at {self._extractor[0].name}"
            )
        return rows

    def check_counts(self, **counts: int) -> None:
        """Refuse sets of fewer than two clips.

        Args:
            **counts: Number of clips of each set, by its name.

        Raises:
            ValueError: One is; it says which.
        """
        if few := {name: count for name, count in counts.items() if count < 2}:
            have = " and ".join(f"{count} {name}" for name, count in few.items())
            raise InputError(
                f"{type(self).__name__} needs at least 2 clips of each set, got {have}: call"
                " update for both before compute"
            )

    def warn_if_few(self, expected: int, **counts: int) -> None:
        """Warn where a set has fewer clips than published numbers are measured on.

        Args:
            expected: Number of clips of each set in what is published.
            **counts: Number of clips of each set, by its name.
        """
        few = [f"{count:,} {name}" for name, count in counts.items() if count < expected]
        if few:
            warnings.warn(
                f"{type(self).__name__} of {' and '.join(few)} clips: published numbers are of"
                f" {expected:,}, and fewer clips shift it, so do not compare with them",
                stacklevel=3,
            )

    def extractor_card(self) -> dict[str, Any]:
        """The network and the size of the clips, for a card."""
        frames, height, width = self.clip_size.tolist()
        return {
            "extractor": self._extractor[0].card(),
            "clip_length": frames or None,
            "resolution_before_resize": [height, width] if frames else None,
            "max_items": self.max_items,
        }

    def _check_size(self, video: Tensor) -> None:
        frames, height, width = size = [video.shape[1], *video.shape[3:]]
        if self.clip_length not in (None, frames):
            raise InputError(
                f"got clips of {frames} frames, clip_length is {self.clip_length}; distances of"
                " clips of other lengths do not compare"
            )
        before = self.clip_size.tolist()
        if any(before) and before != size:
            raise InputError(
                f"got clips of {frames} frames of {height} x {width} after {before[0]} of"
                f" {before[1]} x {before[2]}: bring all sets to one size first"
            )
        self.clip_size = torch.tensor(size, device=self.device)

    def _joined(self, name: str) -> Tensor:
        value: list[Tensor] | Tensor = getattr(self, name)  # one tensor where it was gathered
        return torch.cat([t.cpu() for t in ([value] if isinstance(value, Tensor) else value)])


def check_flag(name: str, value: object) -> bool:
    """Refuse anything but True and False, such as the name of a set.

    Args:
        name: What the option is called.
        value: What it was set to.

    Returns:
        The value.

    Raises:
        TypeError: It is another kind of object.
    """
    if not isinstance(value, bool):
        raise InputTypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _common_size(sizes: Tensor) -> Tensor:
    """Size of the clips of all processes, ``[W, 3]`` to ``[3]``; zeros are of those without any."""
    found = sizes[sizes.any(dim=1)].unique(dim=0)
    if len(found) > 1:
        have = ", ".join("{} frames of {} x {}".format(*size) for size in found.tolist())
        raise InputError(f"processes have clips of different sizes ({have}): bring all to one")
    return found[0] if len(found) else sizes[0]


def _take_share(metric: ClipFeatures, incompatible_keys: object) -> None:
    """Keep of a checkpoint, which one process wrote, what belongs to this one."""
    if not metric.kept:
        return
    for name in ("clip_size", "processes"):
        setattr(metric, name, getattr(metric, name).to(metric.device))
    writers = int(metric.processes)
    if writers > 1:
        warnings.warn(
            f"the checkpoint holds the {' and '.join(metric.kept)} clips of one of {writers}"
            f" processes only: {type(metric).__name__} forgets them, give them all again",
            stacklevel=2,
        )
        metric.processes = torch.zeros_like(metric.processes)
    for name in metric.kept:
        for part in ("features", "places"):
            tensors = getattr(metric, f"{name}_{part}")
            if writers > 1 or process_rank() > 0:
                tensors = [tensors[0][:0]]
            setattr(metric, f"{name}_{part}", [t.to(metric.device) for t in tensors])
