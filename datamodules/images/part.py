"""Some images of another data module, with their classes numbered anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError, InputTypeError, listed
from lit_ssl.transforms import EvalTransform

__all__ = ["ImagePart", "check_classes"]


class ImagePart(ImageDataModule):
    """Images of some classes of another data module; everything else is as that one has it.

    Transforms, batch size, workers and seed are those of ``data``, and its rows are taken as it
    uses them, after its hold-out and subset. Label i is the i-th of ``classes``.

    Args:
        data: Any image data module with labels.
        drop_last: Leave out the last, smaller batch of a training epoch. None: as ``data`` does.
        classes_per_batch: As of ``ImageDataModule``.
        repeats: As of ``ImageDataModule``.

    Raises:
        InputError: ``data`` is no image data module, has several evaluation sets, or an order of
            its own.
    """

    def __init__(
        self,
        data: ImageDataModule,
        *,
        drop_last: bool | None = None,
        classes_per_batch: int | None = None,
        repeats: int = 1,
    ) -> None:
        if not isinstance(data, ImageDataModule):
            raise InputTypeError(
                f"{type(self).__name__} takes an image data module, not {type(data).__name__}: give"
                " it the one that reads the images"
            )
        if more := getattr(data, "reported_sets", ()):
            raise InputError(
                f"{type(self).__name__} has one evaluation set: leave out {listed(more)} of"
                f" {type(data).__name__}"
            )
        if getattr(data, "shuffle", "rows") != "rows":  # of shards
            raise InputError(
                f"{type(self).__name__} mixes its images itself: leave out shuffle of"
                f" {type(data).__name__}"
            )
        self.data = data  # before the hyper-parameters are saved, which leave it out
        super().__init__(
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            train_transform=data.train_transform,
            augment=data.augment,
            decode=data.decode,
            on_corrupt=data.on_corrupt,
            seed=data.seed,
            pin_memory=data.pin_memory,
            prefetch_factor=data.prefetch_factor,
            drop_last=data.drop_last if drop_last is None else drop_last,
            canvas_size=data.canvas_size,
            mean=data.mean,
            std=data.std,
            classes_per_batch=classes_per_batch,
            repeats=repeats,
        )
        self.in_channels = data.in_channels

    # What a part gives

    @property
    @abstractmethod
    def classes(self) -> np.ndarray:
        """Numbers of the classes in ``data``, in the order of the labels here: int64 ``[K]``."""

    @abstractmethod
    def picked(self, split: Split) -> np.ndarray | None:
        """Return which rows of a split of ``data``, as it uses them: int64, ascending.

        Their labels have to be among ``classes``. None: there is no such split here, and the other
        one stands in.

        Args:
            split: which split.
        """

    # The data module

    def whole(self, split: Split) -> Rows | None:
        """Return all rows of a split of ``data``, after checking their labels.

        Args:
            split: which split.

        Returns:
            None where ``data`` has no such split.
        """
        self.data.say_found(split)
        return self.data.rows(split)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        return [self.data.class_names[number] for number in self.classes]

    def prepare_data(self) -> None:
        """Prepare the data set."""
        self.data.prepare_data()

    def default_eval_transform(self) -> EvalTransform:
        """Return the evaluation transform of ``data``."""
        return self.data.eval_transform

    def load_rows(self, split: Split) -> Rows | None:
        """Return the chosen images of a split of ``data``, with labels of their own."""
        picked = self.picked(split)
        rows = None if picked is None else self.whole(split)
        if picked is None or rows is None:
            return None
        part = rows.select(picked)
        labels = np.full(max(int(self.classes.max()), int(part.labels.max(initial=0))) + 1, -1)
        labels[self.classes] = np.arange(len(self.classes))
        return Rows(part.source, {**part.columns, "label": labels[part.labels]})

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Return the rows: ``data`` has opened them."""
        return rows

    def positions(self, subset: Subset | Mapping[str, Any]) -> np.ndarray:
        """Return which training rows, as they are used, a subset picks.

        Args:
            subset: Names or indices in a file refer to the official training set of ``data``; those
                of images that are not here are left out. Everything else is drawn from the images
                here.

        Returns:
            int64, ascending: positions in ``labels("train")``.

        Raises:
            InputError: None of the listed images is here.
        """
        chosen = Subset(**subset) if isinstance(subset, Mapping) else subset
        if chosen.file is None:
            return super().positions(chosen)
        picked = self.picked("train")
        assert picked is not None
        found = np.flatnonzero(np.isin(picked, self.data.positions(chosen)))
        if not len(found):
            raise InputError(
                f"none of the images in {chosen.file} is among the {len(picked)} training images of"
                f" {type(self).__name__}: list some of its classes"
            )
        return found


def check_classes(classes: Sequence[int], class_names: Sequence[str], name: str) -> np.ndarray:
    """Return numbers of classes, checked: int64.

    Args:
        classes: The numbers.
        class_names: Names of all classes.
        name: What the numbers are called in messages.

    Raises:
        InputError: There are none, one comes twice, or is no number of a class.
    """
    if not len(classes) or len(set(classes)) != len(classes):
        raise InputError(f"{name} must name each class once, and at least one, got {list(classes)}")
    if other := [number for number in classes if not isinstance(number, Integral)]:
        raise InputError(f"{name} must be whole numbers, got {listed(other)}")
    if wrong := [number for number in classes if not 0 <= number < len(class_names)]:
        raise InputError(
            f"{name} has {listed(wrong)}, but the {len(class_names)} classes have the numbers 0 to"
            f" {len(class_names) - 1}"
        )
    return np.asarray(classes, dtype=np.int64)
