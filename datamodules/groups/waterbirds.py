"""Waterbirds in its official layout."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lit_ssl.datamodules.groups.images import GroupImageDataModule, SquareThenCrop
from lit_ssl.datamodules.reading.folders import find_file, missing_images
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.files import layout_error
from lit_ssl.tables import Table, read_table
from lit_ssl.transforms import EvalTransform

__all__ = ["WaterbirdsDataModule"]

_NAME = "Waterbirds"
_FOLDER = "waterbird_complete95_forest2water2"
_SPLITS = {"train": 0, "val": 1, "test": 2}
# Species that the official data counts among the waterbirds, but which are none.
_MISLABELLED = ("Eastern_Towhee", "Western_Meadowlark", "Western_Wood_Pewee")


class WaterbirdsDataModule(GroupImageDataModule):
    """Waterbirds: birds cut out of CUB before places; landbirds on water are rare in training.

    Expected: ``metadata.csv`` (img_filename, y, split, place) and the folders of species, as the
    official archive unpacks. y 1 is a waterbird, place 1 is water; 4,795 training images in groups
    of 3,498, 184, 56 and 1,057; validation and test images lie equally on both backgrounds.

    Args:
        root: That folder, or the one that holds it (``waterbird_complete95_forest2water2``).
        image_size: Height and width: images are resized to a square of 8/7 of it (256 for 224),
            then the centre is cut out.
        mislabelled: Eastern Towhee, Western Meadowlark and Western Wood Pewee are landbirds that
            the official data labels as waterbirds. "keep" leaves them, as published results do;
            "drop" leaves them out of all splits.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``GroupImageDataModule``.

    Raises:
        InputError: ``mislabelled`` has none of its values.
    """

    class_names = ("landbird", "waterbird")
    attribute_names = ("land", "water")
    adjusted_average = True
    group_format = "{label} on {attribute}"

    def __init__(
        self,
        *,
        root: str,
        image_size: int = 224,
        mislabelled: Literal["keep", "drop"] = "keep",
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        if mislabelled not in ("keep", "drop"):
            raise InputError(f"mislabelled must be 'keep' or 'drop', got {mislabelled!r}")
        super().__init__(num_workers=num_workers, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.mislabelled = mislabelled

    def default_eval_transform(self) -> EvalTransform:
        """Return resize to a square and centre crop."""
        return SquareThenCrop(
            self.default_size, resize=round(self.default_size * self.default_margin)
        )

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split."""
        table, names, codes = self._metadata
        rows = np.flatnonzero(codes["split"] == _SPLITS[split])
        if self.mislabelled == "drop":
            wrong = [any(species in names[row] for species in _MISLABELLED) for row in rows]
            rows = rows[~np.array(wrong, dtype=bool)]
        if not len(rows):
            return None
        chosen = [names[row] for row in rows]
        missing_images(table.path.parent, chosen, table.path, _NAME)
        columns = {"label": codes["y"][rows], "attribute": codes["place"][rows]}
        return Rows(FileImages(table.path.parent, chosen), columns)

    @cached_property
    def _metadata(self) -> tuple[Table, list[str], dict[str, np.ndarray]]:
        if not self.root.is_dir():
            raise layout_error(_NAME, self.root, f"{_FOLDER}/metadata.csv in {self.root}")
        path = find_file(self.root, ["metadata.csv"], _NAME, [_FOLDER])
        table = read_table(path, ["img_filename", "y", "split", "place"], _NAME)
        two = {"0": 0, "1": 1}
        codes = {
            "y": table.codes("y", two, "0 (landbird) or 1 (waterbird)"),
            "place": table.codes("place", two, "0 (land) or 1 (water)"),
            "split": table.codes("split", {**two, "2": 2}, "0 (train), 1 (val) or 2 (test)"),
        }
        return table, table.columns["img_filename"], codes
