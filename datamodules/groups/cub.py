"""CUB-200-2011 in groups by one of its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.datamodules.groups.images import GroupImageDataModule
from lit_ssl.datamodules.images.cub_files import CUBFiles
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError

__all__ = ["CUBGroupsDataModule"]


class CUBGroupsDataModule(GroupImageDataModule):
    """CUB-200-2011 with an attribute of the bird beside its class.

    The files are those of ``CUB200DataModule``, with ``attributes/``. The class is the species, or
    another attribute. Where the annotator could not see the part, an attribute is unknown (−1), and
    an image without a class is left out of all splits. Crossing species with an attribute makes 400
    groups, many of them small or empty; a ``target`` makes four.

    Args:
        root: The folder ``CUB_200_2011``, or the one that holds it.
        attribute: Name of the attribute, such as ``has_bill_shape::dagger``.
        target: Name of the attribute to classify; None classifies the species.
        crop_to_box: Read the box of the bird in place of the whole image.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``GroupImageDataModule``.

    Raises:
        InputError: Target and attribute are the same.
    """

    def __init__(
        self,
        *,
        root: str,
        attribute: str,
        target: str | None = None,
        crop_to_box: bool = False,
        image_size: int = 224,
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        if target == attribute:
            raise InputError(f"target and attribute must differ, both are {target!r}")
        super().__init__(num_workers=num_workers, **kwargs)
        self.default_size = image_size
        self.attribute = attribute
        self.target = target
        self.crop_to_box = crop_to_box
        self._files = CUBFiles(root)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the species, or without and with the target."""
        if self.target is None:
            return self._files.class_names
        return [f"not {self.target}", self.target]

    @property
    def attribute_names(self) -> Sequence[str]:
        """Without and with the attribute."""
        return [f"not {self.attribute}", self.attribute]

    def load_rows(self, split: Split) -> Rows | None:
        """Return the training or test images; there is no own validation split."""
        if split == "val":
            return None
        files = self._files
        rows = files.rows_of(split)
        attribute = files.attributes[:, files.attribute_number(self.attribute)]
        labels = files.labels
        if self.target is not None:
            labels = files.attributes[:, files.attribute_number(self.target)]
            seen = labels[rows] >= 0
            if not seen.all():
                rank_zero_info(
                    f"{split}: {int((~seen).sum()):,} of {len(rows):,} images are left out, whose"
                    f" {self.target} the annotators could not see"
                )
            rows = rows[seen]
        columns = {"label": labels[rows], "attribute": attribute[rows]}
        return Rows(files.images(rows, self.crop_to_box), columns)
