"""Where a vision transformer looks."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.callbacks.pictures.base import SPLIT_WORDS, SplitPicture, when
from lit_ssl.callbacks.pictures.split_images import SplitImages, as_pictures
from lit_ssl.contracts.modules import feature_function
from lit_ssl.drawing.overlay import heat_over
from lit_ssl.drawing.rows import Row, draw_rows
from lit_ssl.drawing.sheet import Tile
from lit_ssl.errors import InputError
from lit_ssl.models.attention_maps import class_attention, find_vit

__all__ = ["AttentionMaps", "encoder_of"]


class AttentionMaps(SplitPicture):
    """Attention of the class token of a vision transformer, over some evaluated images.

    For each image: the mean over the heads of the last block, the rollout through all blocks
    (Abnar and Zuidema: residual connections count as half of each block), and each head. The
    lightest patch is the one with most attention, and its share stands below; darker ones have less
    in proportion. The network is that of the module's ``encoder`` (of MSN the target network), one
    of timm's transformers with a class token. Written as ``attention_maps/…png`` in the run's
    folder (see ``lit_ssl.callbacks.pictures.base.SplitPicture``).

    Args:
        num_images: Evaluated images, >= 1.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.
        feature_method: Method of the module by which images go through the network.
        seed: Of the choice of images.

    Raises:
        ValueError: If a value lies outside its range.

    Source: arXiv 2005.00928; attention per head as in DINO, arXiv 2104.14294, figure 1.
    """

    def __init__(
        self,
        num_images: int = 8,
        every_n_epochs: int = 10,
        feature_method: str = "forward",
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if num_images < 1:
            raise InputError(f"AttentionMaps needs num_images >= 1, not {num_images}")
        self.num_images = num_images
        self.feature_method = feature_method
        self.seed = seed

    @property
    def name(self) -> str:
        """Of the picture."""
        return "attention_maps"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask for a vision transformer before the first batch.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """
        feature_function(pl_module, self.feature_method)
        find_vit(encoder_of(pl_module))

    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the maps."""
        images = SplitImages(trainer, split)
        drawn = np.random.default_rng(self.seed).permutation(len(images))[: self.num_images]
        chosen = np.sort(drawn).tolist()
        vit: Any = find_vit(encoder_of(pl_module))
        forward = feature_function(pl_module, self.feature_method)
        # On every process, since the network may be spread over them.
        batches = images.apply(
            pl_module, chosen, lambda batch: (batch, *class_attention(vit, batch, forward))
        )
        inputs, of_heads, rollouts = (torch.cat(parts) for parts in zip(*batches, strict=True))
        if not trainer.is_global_zero:
            return None
        height, width = vit.patch_embed.patch_size
        heads = of_heads.shape[1]
        rows = []
        for image, last, rollout in zip(
            as_pictures(trainer, inputs), of_heads, rollouts, strict=True
        ):
            covered = image.crop((0, 0, last.shape[2] * width, last.shape[1] * height))
            tiles = [
                Tile(heat_over(covered, one.numpy()), f"{100 * one.max().item():.1f} %")
                for one in (last.mean(dim=0), rollout, *last)
            ]
            rows.append(Row(tiles, Tile(image)))
        columns = ["image", "mean", "rollout", *(f"head {n + 1}" for n in range(heads))]
        title = (
            f"Attention of the class token, {len(chosen)} of {len(images):,} {SPLIT_WORDS[split]} "
            f"(drawn by seed {self.seed}), {when(trainer)}. Mean and heads: last block; rollout: "
            "all blocks; lightest: most attention, its share below"
        )
        return draw_rows(rows, title=title, columns=columns)


def encoder_of(pl_module: pl.LightningModule) -> torch.nn.Module:
    """The network of a module that is drawn: its ``encoder``, or all of it.

    Args:
        pl_module: The module.
    """
    found = getattr(pl_module, "encoder", None)
    return found if isinstance(found, torch.nn.Module) else pl_module
