"""How PAWS predicts: an image, the labelled images that it is like, and their weights."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from PIL import Image

from lit_ssl.callbacks.evaluators.base import labelled_only
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
from lit_ssl.contracts.data import num_classes_of, support_split
from lit_ssl.contracts.modules import embedding_method, feature_function
from lit_ssl.drawing.palette import RIGHT, WRONG
from lit_ssl.drawing.rows import Row, draw_rows
from lit_ssl.drawing.sheet import Tile
from lit_ssl.errors import InputError
from lit_ssl.metrics.sharded_neighbours import sharded_neighbours, sharded_support_totals

__all__ = ["SupportAssignments"]


class SupportAssignments(SplitPicture):
    """Some evaluated images, the supports that weigh most for each, and the class predicted.

    Soft nearest neighbours, as PAWS predicts: a support has the weight
    ``softmax(cos / temperature)`` over all supports, and a class the weights of its supports.
    Supports are the images of the data module's ``support_dataloader()``, if it has one, else those
    of ``bank_dataloader()``. The image has a green frame where the class is right and an orange one
    where it is wrong; a support, where it is of the image's class or not. Written as
    ``support_assignments/…png`` in the run's folder (see
    ``lit_ssl.callbacks.pictures.base.SplitPicture``).

    Args:
        num_images: Evaluated images, of as many classes as possible, >= 1.
        num_supports: Supports of each, >= 1.
        temperature: τ of the softmax over similarities, > 0.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``; None:
            ``embed`` of modules that have it (PAWS: all of the network), else ``forward``.
        seed: Of the choice of images.

    Raises:
        ValueError: If a value lies outside its range.

    Source: PAWS, arXiv 2104.13963, equation 1.
    """

    def __init__(
        self,
        num_images: int = 8,
        num_supports: int = 8,
        temperature: float = 0.1,
        every_n_epochs: int = 10,
        feature_method: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if num_images < 1 or num_supports < 1 or not temperature > 0:
            raise InputError(
                "SupportAssignments needs num_images and num_supports >= 1 and temperature > 0, "
                f"not {num_images}, {num_supports} and {temperature}"
            )
        self.num_images = num_images
        self.num_supports = num_supports
        self.temperature = temperature
        self.feature_method = feature_method
        self.seed = seed

    @property
    def name(self) -> str:
        """Of the picture."""
        return "support_assignments"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask for classes, the features and the supports before the first batch.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """
        num_classes_of(trainer, None)
        feature_function(pl_module, self.feature_method or embedding_method(pl_module))
        support_split(trainer)

    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the images and their supports."""
        method = self.feature_method or embedding_method(pl_module)
        classes = num_classes_of(trainer, None)
        source = support_split(trainer)
        of_queries, of_supports = SplitImages(trainer, split), SplitImages(trainer, source)
        kept = finite_rows(self, shard_features(trainer, pl_module, source, method), source)
        asked = finite_rows(self, shard_features(trainer, pl_module, split, method), split)
        if kept is None or asked is None:
            return None
        known = kept.rows[kept.features.labels >= 0]  # rows in the split
        supports = labelled_only(kept.features, classes, source)
        queries = asked.features
        chosen = spread_rows(queries.labels, self.num_images, self.seed)
        part = torch.tensor(sorted(chosen))
        k = min(self.num_supports, len(supports))
        picked = queries.pick(part)
        weight, found = torch.empty(len(part), k), torch.empty(len(part), k, dtype=torch.int64)
        for piece in sharded_neighbours(supports, picked, k):
            weight[piece.queries] = piece.similarity.cpu() / self.temperature
            found[piece.queries] = piece.rows.cpu()
        probabilities = torch.empty(len(part), classes)
        for totals in sharded_support_totals(supports, picked, classes, self.temperature):
            probabilities[totals.queries] = totals.probabilities.cpu()
            weight[totals.queries] = (weight[totals.queries] - totals.log_total.cpu()).exp()
        if not trainer.is_global_zero:
            return None
        pictures = of_queries.pictures(pl_module, asked.rows[chosen].tolist())
        distinct = found.unique()
        shown = of_supports.pictures(pl_module, known[distinct].tolist())
        picture_of = dict(zip(distinct.tolist(), shown, strict=True))
        names = class_names(trainer)
        rows, right, labelled = [], 0, 0
        for row, picture in zip(chosen, pictures, strict=True):
            number = part.tolist().index(row)
            label = int(queries.labels[row])
            probability, predicted = probabilities[number].max(dim=0)
            is_right = int(predicted) == label
            labelled, right = labelled + (label >= 0), right + (label >= 0 and is_right)
            tiles = []
            for share, support in zip(weight[number].tolist(), found[number].tolist(), strict=True):
                theirs = int(supports.labels[support])
                frame = None if label < 0 else (RIGHT if theirs == label else WRONG)
                caption = f"{class_name(theirs, names)}\n{100 * share:.3g} %"
                tiles.append(Tile(picture_of[support], caption, frame))
            frame = None if label < 0 else (RIGHT if is_right else WRONG)
            lines = [
                f"predicted: {class_name(int(predicted), names)}",
                f"{100 * probability.item():.1f} %",
                f"these {k}: {100 * weight[number].sum().item():.3g} %",
            ]
            rows.append(Row(tiles, Tile(picture, class_name(label, names), frame), lines))
        title = (
            f"{len(chosen)} of {len(queries):,} {SPLIT_WORDS[split]} (drawn by seed {self.seed}), "
            f"the supports that weigh most among {len(supports):,}, and the class that all of them "
            f"predict, τ {self.temperature:g}, {when(trainer)}"
        )
        if labelled:
            title += f"; right (green): {right} of {labelled}"
        title += asked.note + kept.note
        return draw_rows(rows, title=title)
