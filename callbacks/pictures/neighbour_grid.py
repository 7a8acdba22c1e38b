"""Images and their nearest neighbours among the training images."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from PIL import Image

from lit_ssl.callbacks.evaluators.features import Split, shard_features
from lit_ssl.callbacks.pictures.base import (
    SPLIT_WORDS,
    SplitPicture,
    class_name,
    class_names,
    finite_rows,
    when,
)
from lit_ssl.callbacks.pictures.split_images import SplitImages, spread_rows
from lit_ssl.contracts.data import check_bank
from lit_ssl.contracts.modules import feature_function
from lit_ssl.drawing.palette import RIGHT, WRONG
from lit_ssl.drawing.rows import Row, draw_rows
from lit_ssl.drawing.sheet import Tile
from lit_ssl.errors import InputError
from lit_ssl.metrics.sharded_neighbours import sharded_neighbours

__all__ = ["NeighbourGrid"]


class NeighbourGrid(SplitPicture):
    """Some evaluated images, each with its nearest training images by the cosine of features.

    The training images are those of ``bank_dataloader()``, under the evaluation transform. Where
    labels are known, neighbours of the same class have a green frame and others an orange one;
    below are the class and the cosine. Written as ``neighbour_grid/…png`` in the run's folder (see
    ``lit_ssl.callbacks.pictures.base.SplitPicture``).

    Args:
        num_images: Evaluated images, of as many classes as possible, >= 1.
        k: Neighbours of each, >= 1.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``.
        seed: Of the choice of images.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(
        self,
        num_images: int = 8,
        k: int = 8,
        every_n_epochs: int = 10,
        feature_method: str = "forward",
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if num_images < 1 or k < 1:
            raise InputError(f"NeighbourGrid needs num_images and k >= 1, not {num_images} and {k}")
        self.num_images = num_images
        self.k = k
        self.feature_method = feature_method
        self.seed = seed

    @property
    def name(self) -> str:
        """Of the picture."""
        end = f"_{self.feature_method}" if self.feature_method != "forward" else ""
        return f"neighbour_grid{end}"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask for the features and the training images before the first batch.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """
        feature_function(pl_module, self.feature_method)
        check_bank(trainer)

    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the grid."""
        of_queries, of_bank = SplitImages(trainer, split), SplitImages(trainer, "bank")
        kept = finite_rows(
            self, shard_features(trainer, pl_module, "bank", self.feature_method), "bank"
        )
        asked = finite_rows(
            self, shard_features(trainer, pl_module, split, self.feature_method), split
        )
        if kept is None or asked is None:
            return None
        bank, queries = kept.features, asked.features
        chosen = spread_rows(queries.labels, self.num_images, self.seed)
        part = torch.tensor(sorted(chosen))
        k = min(self.k, len(bank))
        similarity, found = torch.empty(len(part), k), torch.empty(len(part), k, dtype=torch.int64)
        for piece in sharded_neighbours(bank, queries.pick(part), k):
            similarity[piece.queries] = piece.similarity.cpu()
            found[piece.queries] = piece.rows.cpu()
        if not trainer.is_global_zero:
            return None
        order = [part.tolist().index(row) for row in chosen]
        similarity, found = similarity[order], found[order]
        pictures = of_queries.pictures(pl_module, asked.rows[chosen].tolist())
        distinct = found.unique().tolist()
        shown = of_bank.pictures(pl_module, kept.rows[distinct].tolist())
        neighbours = dict(zip(distinct, shown, strict=True))
        names = class_names(trainer)
        rows, same, known = [], 0, 0
        for number, row in enumerate(chosen):
            label = int(queries.labels[row])
            tiles = []
            for cosine, other in zip(
                similarity[number].tolist(), found[number].tolist(), strict=True
            ):
                theirs = int(bank.labels[other])
                is_known = label >= 0 and theirs >= 0
                known, same = known + is_known, same + (is_known and theirs == label)
                frame = (RIGHT if theirs == label else WRONG) if is_known else None
                caption = "\n".join(filter(None, [class_name(theirs, names), f"{cosine:.3f}"]))
                tiles.append(Tile(neighbours[other], caption, frame))
            rows.append(Row(tiles, Tile(pictures[number], class_name(label, names))))
        title = (
            f"{len(chosen)} of {len(queries):,} {SPLIT_WORDS[split]} (drawn by seed {self.seed}) "
            f"and the nearest of {len(bank):,} training images by cosine, {when(trainer)}"
        )
        if known:
            title += f"; of the same class (green): {same} of {known}"
        title += asked.note + kept.note
        return draw_rows(rows, title=title, columns=["image", "nearest"])
