"""Some classes of a data set as a data set of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lit_ssl.datamodules.images.part import ImagePart, check_classes
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.selection.partition import Split

__all__ = ["SomeClassesDataModule"]


class SomeClassesDataModule(ImagePart):
    """Some classes of any image data module: to train on these, and learn others later.

    All splits have images of these classes only, and labels count them from 0, so that accuracies
    are of a data set with so many classes; a ``Subset`` leaves validation and test images as they
    are. Images without a label are left out. Everything else is that of ``data``.

    Args:
        data: Any image data module; its rows are taken after its hold-out and subset.
        classes: Numbers of the classes in ``data``; label i here is the i-th of them. The others
            are free for a ``FewShotDataModule``.

    Raises:
        InputError: ``classes`` are none, come twice or are no numbers of classes.
    """

    def __init__(self, data: ImageDataModule, *, classes: Sequence[int]) -> None:
        super().__init__(data, classes_per_batch=data.classes_per_batch, repeats=data.repeats)
        self._given = tuple(classes)

    @cached_property
    def classes(self) -> np.ndarray:
        """Numbers of the classes in ``data``, int64 ``[K]``."""
        return check_classes(self._given, self.data.class_names, "classes")

    @property
    def validates_on_test(self) -> bool:
        """As of ``data``: whether validation sees the images that results are reported on."""
        return self.data.validates_on_test

    def picked(self, split: Split) -> np.ndarray | None:
        """Return the rows of these classes; None where the test images are validated on."""
        rows = self.whole(split)
        if split == "val" and rows is self.data.rows("test"):
            return None
        return None if rows is None else np.flatnonzero(np.isin(rows.labels, self.classes))
