"""Classes crossed with an attribute: what data modules with groups share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import Dataset

from lit_ssl.datamodules.groups.known import choose_labelled, from_file
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.loading.weighted import WeightedEpochSampler
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.groups.cells import cells_of, checked_groups, group_counts, group_shares
from lit_ssl.groups.label_files import GroupLabels

__all__ = ["GroupedData"]


class GroupedData(RowsModule):
    """Rows that have a class y and an attribute a: the group y · A + a.

    Batches are ``(inputs, labels, groups)``; groups are int64 ``[B]``, −1 where the attribute is
    unknown, or float32 ``[B, G]`` where they are predicted probabilities. Attributes of training
    rows are known as far as ``group_label_fraction`` lets them be; validation and test rows keep
    theirs.

    Attributes:
        adjusted_average: Whether the average accuracy of this data set is by custom that of the
            groups, weighted by their true sizes in training.
        eval_group_names: Names of the groups that validation and test batches carry, where these
            are not the training groups but may overlap: then they are bool ``[B, len(names)]``.
    """

    adjusted_average: ClassVar[bool] = False
    eval_group_names: Sequence[str] | None = None
    group_format: ClassVar[str] = "{label}, {attribute}"

    def _init_groups(self, fraction: float, seed: int, file: str | None) -> None:
        if not 0 < fraction <= 1:
            raise InputError(f"group_label_fraction must be in (0, 1], got {fraction}")
        self.group_label_fraction = fraction
        self.group_label_seed = seed
        self.group_labels = file
        self._weights: np.ndarray | None = None
        self._replaced: np.ndarray | None = None
        self._reported = False

    # What a data set gives

    @property
    @abstractmethod
    def attribute_names(self) -> Sequence[str]:
        """Names of the attribute's values, in the order of their numbers."""

    # Groups

    @property
    def num_attributes(self) -> int:
        """Number A of values of the attribute."""
        return len(self.attribute_names)

    @property
    def num_groups(self) -> int:
        """Number G = C · A of groups."""
        return len(self.class_names) * self.num_attributes

    @property
    def group_names(self) -> list[str]:
        """Names of the groups: group y · A + a is class y with attribute a."""
        return [
            self.group_format.format(label=label, attribute=attribute)
            for label in self.class_names
            for attribute in self.attribute_names
        ]

    def attribute_array(self, split: Split) -> np.ndarray:
        """Return the attributes in the data, int64 ``[N]``, −1 where the data do not say.

        Args:
            split: which split.
        """
        return self.column("attribute", split)

    def true_group_array(self, split: Split) -> np.ndarray:
        """Return the groups in the data, for reports only: int64 ``[N]``, −1 where unknown.

        Args:
            split: which split.
        """
        return self._groups_of(split, self.attribute_array(split))

    def group_array(self, split: Split) -> np.ndarray:
        """Return the groups that a run may know: int64 ``[N]``, −1 unknown.

        In training these are the rows that ``group_label_fraction`` chooses or, with
        ``group_labels``, what this file says (the most probable where it holds probabilities).
        ``set_groups`` does not change them.

        Args:
            split: which split.
        """
        if split != "train":
            return self.true_group_array(split)
        return self._groups_of("train", self._training.attributes)

    def soft_group_array(self) -> np.ndarray | None:
        """Return the probabilities in ``group_labels`` by group, float32 ``[N, G]``, or None."""
        probabilities = self._training.probabilities
        if probabilities is None:
            return None
        return group_shares(self.labels("train"), probabilities, len(self.class_names))

    def known(self, split: Split) -> np.ndarray:
        """Return which rows of a split have a true attribute that the run may use: bool ``[N]``.

        Args:
            split: which split.
        """
        if split != "train":
            return self.attribute_array(split) >= 0
        return self._training.known

    @property
    def num_labelled(self) -> int:
        """Number of training rows with a true attribute that the run may use."""
        return int(self._training.known.sum())

    def group_counts(self, split: Split) -> np.ndarray:
        """Return the sizes of the groups in ``group_array(split)``: int64 ``[G]``.

        Args:
            split: which split.
        """
        return group_counts(self.group_array(split), self.num_groups)

    def set_groups(self, groups: np.ndarray | None) -> None:
        """Let training and bank batches carry other groups from the next pass of a loader on.

        Args:
            groups: int64 ``[N]`` in the order of the training rows, −1 unknown; or float32 ``[N,
                G]``, probabilities of the groups; None: those of ``group_array`` or
                ``soft_group_array``.

        Raises:
            ValueError: They do not belong to these rows: another number, or another class.
        """
        if groups is not None:
            shape = len(self.class_names), self.num_attributes
            groups = checked_groups(groups, self.labels("train"), *shape)
        self._replaced = groups

    def set_sampling(self, weights: np.ndarray | None) -> None:
        """Draw training rows with replacement from the next epoch on, as many as there are.

        The order stays a pure function of seed, epoch and weights; a run that resumes in the middle
        of an epoch has to set the same weights before it goes on.

        Args:
            weights: ``[N]``, >= 0: probabilities are proportional to them, rows with 0 never come.
                None: each row once an epoch.

        Raises:
            ValueError: Another number, a negative or infinite one, or only zeros.
        """
        if weights is not None:
            weights = np.array(weights, dtype=np.float64)
            count = len(self.labels("train"))
            valid = weights.shape == (count,) and np.isfinite(weights).all()
            if not valid or (weights < 0).any() or not weights.any():
                raise InputError(
                    f"Sampling weights must be {count} finite numbers >= 0, one for each training"
                    f" row and not all 0, got {list(weights.shape)} with values"
                    f" {np.unique(weights)[:5]}"
                )
        self._weights = weights

    # What batches carry, and in which order rows come

    def epoch_sampler(self, dataset: Dataset) -> WeightedEpochSampler:
        """Return the sampler that draws by the weights of ``set_sampling``."""
        replicas, rank = self.shard()
        return WeightedEpochSampler(
            dataset,
            lambda: self._weights,
            num_replicas=replicas,
            rank=rank,
            seed=self.run_seed(),
            drop_last=self.drop_last,
        )

    def targets(self, split: Split) -> tuple[np.ndarray, ...]:
        """Return labels and groups, as batches carry them."""
        labels = self.labels(split)
        if split != "train":
            return labels, self.eval_group_array(split)
        groups = self.soft_group_array() if self._replaced is None else self._replaced
        return labels, self.group_array("train") if groups is None else groups

    def eval_group_array(self, split: Split) -> np.ndarray:
        """Return what validation and test batches carry as groups.

        Args:
            split: which split.

        Returns:
            int64 ``[N]``, as ``group_array``; with ``eval_group_names`` bool ``[N, len(names)]``.
        """
        return self.group_array(split)

    # The attributes of training rows

    @cached_property
    def _training(self) -> GroupLabels:
        true = self.attribute_array("train")
        if self.group_labels is not None:
            return from_file(self.group_labels, true, self.num_attributes)
        return choose_labelled(true, self.group_label_fraction, self.group_label_seed)

    def _groups_of(self, split: Split, attributes: np.ndarray) -> np.ndarray:
        return cells_of(self.labels(split), attributes, self.num_attributes)

    def setup(self, stage: str | None = None) -> None:
        """Find the rows of a stage and, for training, say how many group labels there are."""
        super().setup(stage)
        if stage in ("fit", None):
            self._report_groups()

    def _report_groups(self) -> None:
        """Say once how many group labels the run uses, and warn of groups that training lacks."""
        if self._reported:
            return
        self._reported = True
        groups, known = self.group_array("train"), self.known("train")
        counts = group_counts(groups[known], self.num_groups)
        sizes = zip(self.group_names, counts.tolist(), strict=True)
        text = (
            f"Group labels: {int(known.sum()):,} of {len(known):,} training rows"
            f" ({'; '.join(f'{name}: {size:,}' for name, size in sizes)})"
        )
        if len(val := self.known("val")):
            text += f", {int(val.sum()):,} of {len(val):,} validation rows"
        rank_zero_info(f"{text}.")
        true = self.true_group_array("train")
        present = group_counts(true, self.num_groups)
        if (true >= 0).all() and not present.all():
            lacking = [self.group_names[group] for group in np.flatnonzero(present == 0)]
            rank_zero_warn(
                f"No training row is in the group {' or '.join(lacking)}: nothing can be learnt"
                " about it. Check the split and the subset; accuracy there is that of a guess"
            )
