"""Subsets of the training images: fractions, numbers per class, long tails, lists in files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.lists import find_listed
from lit_ssl.datamodules.selection.long_tail import long_tail_counts
from lit_ssl.datamodules.selection.stratified_split import choose_per_class, proportional_counts
from lit_ssl.errors import InputError, listed

__all__ = ["SUBSET_CHOICES", "Subset"]

SUBSET_CHOICES = ("fraction", "per_class", "exponential", "power_law", "file")


@dataclass
class Subset:
    """Which training images to use. Exactly one of the first five.

    Args:
        fraction: Share of the images, in (0, 1], drawn from each class in proportion to its size
            and at least one from each.
        per_class: Number of images drawn from each class, >= 1.
        exponential: Long tail ``n_c = n_max * f ** (-c / (C - 1))`` over the C classes; this is f,
            the size of the largest class by that of the smallest, >= 1.
        power_law: Long tail ``n_c = n_max * (c + 1) ** -a``; this is a, >= 0.
        file: Text file (plain, .gz or .xz) with one training image a line: either its index (0 is
            the first image of the official training set), or its file name, as in ImageNet's
            low-shot lists, or its path below the training folder, with or without the name of that
            folder. A label after the name, as in the lists of ImageNet-LT, is ignored. Lists of
            PAWS come with the package: ``paws/cifar10_4000_split152`` (and 73, 91, 321, 401),
            ``paws/imagenet_1percent``, ``paws/imagenet_10percent``.
        seed: Seed of the draw; no effect with ``file``.
        min_per_class: Images that a long tail leaves to each class, >= 1.
        permute_classes: Let the seed choose which classes of a long tail are the large ones; else
            the first are.
    """

    fraction: float | None = None
    per_class: int | None = None
    exponential: float | None = None
    power_law: float | None = None
    file: str | None = None
    seed: int = 0
    min_per_class: int = 1
    permute_classes: bool = False

    def __post_init__(self) -> None:
        given = [name for name in SUBSET_CHOICES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"A subset needs exactly one of {', '.join(SUBSET_CHOICES[:-1])} and"
                f" {SUBSET_CHOICES[-1]}, got {' and '.join(given) or 'none'}"
            )
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InputError(f"subset.fraction must be in (0, 1], got {self.fraction}")
        if self.per_class is not None and self.per_class < 1:
            raise InputError(f"subset.per_class must be at least 1, got {self.per_class}")
        if self.exponential is not None and not 1 <= self.exponential < float("inf"):
            raise InputError(f"subset.exponential must be at least 1, got {self.exponential}")
        if self.power_law is not None and not 0 <= self.power_law < float("inf"):
            raise InputError(f"subset.power_law must be at least 0, got {self.power_law}")
        if self.min_per_class < 1:
            raise InputError(f"subset.min_per_class must be at least 1, got {self.min_per_class}")
        if not self._long_tailed and (self.min_per_class != 1 or self.permute_classes):
            raise InputError(
                "subset.min_per_class and subset.permute_classes belong to a long tail: set"
                f" exponential or power_law, not {given[0]}"
            )

    @property
    def _long_tailed(self) -> bool:
        return self.exponential is not None or self.power_law is not None

    def select(
        self,
        rows: Rows,
        allowed: np.ndarray,
        class_name: Callable[[int], str],
        inputs: str = "images",
    ) -> np.ndarray:
        """Choose from the training rows.

        Args:
            rows: The complete official training set, to which indices and names in a file refer.
            allowed: int64, ascending: the images that are not held out for validation.
            class_name: Name of a class, for messages.
            inputs: What rows are, for messages.

        Returns:
            int64 indices into ``rows``, ascending, a subset of ``allowed``.

        Raises:
            ValueError: A class has fewer than ``per_class`` or ``min_per_class`` images, a long
                tail is asked of images without labels, or the file names images that do not exist,
                are ambiguous or are held out for validation.
            FileNotFoundError: The file does not exist.
        """
        if self.file is not None:
            return _select_listed(self.file, rows, allowed, inputs)
        labels = rows.labels[allowed]
        if self.per_class is not None:
            _check_class_sizes(labels, self.per_class, class_name, inputs)
            count = self.per_class
            return allowed[choose_per_class(labels, lambda _: count, self.seed)]
        if self._long_tailed:
            order_seed = self.seed if self.permute_classes else None
            counts = long_tail_counts(
                labels,
                self.exponential,
                self.power_law,
                self.min_per_class,
                order_seed,
                class_name,
                inputs,
            )
            return allowed[choose_per_class(labels, counts.__getitem__, self.seed)]
        assert self.fraction is not None
        counts = proportional_counts(labels, round(self.fraction * len(labels)))
        return allowed[choose_per_class(labels, lambda name: max(1, counts[name]), self.seed)]


def _check_class_sizes(
    labels: np.ndarray, wanted: int, class_name: Callable[[int], str], inputs: str
) -> None:
    names, sizes = np.unique(labels, return_counts=True)
    small = [
        f"{class_name(int(n))} ({size})"
        for n, size in zip(names, sizes, strict=True)
        if size < wanted
    ]
    if small:
        raise InputError(
            f"subset.per_class={wanted}, but {len(small)} classes have fewer training"
            f" {inputs}: {listed(small)}. Lower per_class, or use fraction"
        )


def _select_listed(path: str, rows: Rows, allowed: np.ndarray, inputs: str) -> np.ndarray:
    chosen = find_listed(path, rows, inputs)
    is_allowed = np.zeros(len(rows), dtype=bool)
    is_allowed[allowed] = True
    held_out = chosen[~is_allowed[chosen]]
    if len(held_out):
        raise InputError(
            f"{len(held_out)} of the {len(chosen)} {inputs} in {path} are held out for validation."
            " Set val_size: 0 (and no val_file) to train on all that are listed"
        )
    return chosen
