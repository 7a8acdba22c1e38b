"""Maps of features: PCA or UMAP, by class or with thumbnails."""

from __future__ import annotations

from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from lit_ssl.callbacks.evaluators.features import Split, shard_features
from lit_ssl.callbacks.pictures.base import SPLIT_WORDS, SplitPicture, class_names, when
from lit_ssl.callbacks.pictures.split_images import SplitImages
from lit_ssl.contracts.data import check_bank
from lit_ssl.contracts.modules import feature_function
from lit_ssl.drawing.scatter import draw_map, rows_apart
from lit_ssl.errors import InputError, check_choice
from lit_ssl.metrics.embedding_map import LEAST_ROWS_OF_UMAP, check_umap, pca_map, umap_map
from lit_ssl.trainer.passes import on_rank_zero

__all__ = ["EmbeddingMap"]


class EmbeddingMap(SplitPicture):
    """A map of the features of a split: each image is a point.

    With labels, points have the colour and the shape of their class, with a legend; without any,
    images stand in place of points where they do not cover each other. Of a large split a part is
    drawn, by seed, and the picture says so, and how much of the variance PCA shows. Written as
    ``embedding_map_pca/…png`` in the run's folder (see
    ``lit_ssl.callbacks.pictures.base.SplitPicture``).

    Args:
        method: ``pca``, or ``umap`` (extra ``umap``: slower by far, see ``docs/pictures.md``, and
            distances between groups mean little in it).
        split: ``evaluated`` (the validation or test images), or ``bank`` (the training images,
            evaluation transform).
        max_rows: Images on the map, >= 1.
        thumbnails: Images in place of points; None: where no image has a label.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``.
        seed: Of the choice of images, and of UMAP.

    Raises:
        ValueError: If a value lies outside its range.

    Source: UMAP: arXiv 1802.03426.
    """

    def __init__(
        self,
        method: Literal["pca", "umap"] = "pca",
        split: Literal["evaluated", "bank"] = "evaluated",
        max_rows: int = 5000,
        thumbnails: bool | None = None,
        every_n_epochs: int = 10,
        feature_method: str = "forward",
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        check_choice("method", method, ("pca", "umap"))
        check_choice("split", split, ("evaluated", "bank"))
        if max_rows < 1:
            raise InputError(f"EmbeddingMap needs max_rows >= 1, not {max_rows}")
        self.method = method
        self.split = split
        self.max_rows = max_rows
        self.thumbnails = thumbnails
        self.feature_method = feature_method
        self.seed = seed

    @property
    def name(self) -> str:
        """Of the picture: it tells maps of one run apart."""
        parts = ["embedding_map", self.method]
        parts += ["bank"] if self.split == "bank" else []
        parts += [self.feature_method] if self.feature_method != "forward" else []
        return "_".join(parts)

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask for the features, the training images and UMAP before the first batch.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """
        feature_function(pl_module, self.feature_method)
        if self.method == "umap":
            check_umap()
        if self.split == "bank":
            check_bank(trainer)

    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the map."""
        drawn_split: Split = "bank" if self.split == "bank" else split
        images = SplitImages(trainer, drawn_split)
        found = shard_features(trainer, pl_module, drawn_split, self.feature_method)
        drawn = np.random.default_rng(self.seed).permutation(len(found))[: self.max_rows]
        rows = torch.from_numpy(np.sort(drawn))
        features = found.pick(rows).on_rank_zero()
        few = 1 if self.method == "pca" else LEAST_ROWS_OF_UMAP
        finite = 0 if features is None else int(features.isfinite().all(dim=1).sum())
        finite = on_rank_zero(trainer, lambda: finite)
        if finite < few:
            rank_zero_warn(
                f"EmbeddingMap draws nothing: {self.method} needs {few} images with finite "
                f"features, and of {len(rows)} {SPLIT_WORDS[drawn_split]} {finite} have them"
            )
            return None
        if features is None:  # on another process
            return None
        kept = features.isfinite().all(dim=1)
        points, axes = self._laid_out(features[kept])
        rows, labels = rows[kept], found.labels[rows][kept]
        thumbnails = None
        if self.thumbnails or (self.thumbnails is None and not (labels >= 0).any()):
            apart = rows_apart(points, self.seed)
            shown = images.pictures(pl_module, rows[torch.from_numpy(apart)].tolist())
            thumbnails = dict(zip(apart.tolist(), shown, strict=True))
        what = SPLIT_WORDS[drawn_split]
        number = f"{len(rows):,} {what}"
        if len(drawn) < len(found):
            number = f"{len(drawn):,} of {len(found):,} {what} (drawn by seed {self.seed})"
        lost = len(drawn) - len(rows)
        return draw_map(
            points,
            labels.numpy(),
            class_names(trainer),
            title=f"{self.method.upper()} of the features ({features.shape[1]:,} numbers each) of "
            f"{number}, {when(trainer)}"
            + (f"; {lost:,} with NaN or infinite features are left out" if lost else "")
            + ("; images where there is room" if thumbnails else ""),
            axes=axes,
            thumbnails=thumbnails,
        )

    def _laid_out(self, features: torch.Tensor) -> tuple[np.ndarray, tuple[str, str]]:
        if self.method == "umap":
            with isolate_rng():
                return umap_map(features, self.seed).numpy(), ("UMAP 1", "UMAP 2")
        points, shares = pca_map(features)
        first, second = (f"{100 * share:.1f} %" for share in shares.tolist())
        axes = f"component 1: {first} of the variance", f"component 2: {second}"
        return points.numpy(), axes
