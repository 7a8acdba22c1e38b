"""Prototypes and the images that are nearest to them."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
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
from lit_ssl.callbacks.pictures.split_images import SplitImages
from lit_ssl.contracts.modules import prototypes_of
from lit_ssl.drawing.rows import Row, draw_rows
from lit_ssl.drawing.sheet import Tile
from lit_ssl.errors import InputError

__all__ = ["PrototypeGallery"]

_CHUNK = 8192  # images whose similarities to all prototypes are held at once


class PrototypeGallery(SplitPicture):
    """The prototypes to which most evaluated images belong, each with its nearest images.

    An image belongs to the prototype with the largest cosine. Each row says which share of the
    images its prototype has and, where labels are known, which class is most frequent among them;
    the title, how many prototypes are used at all. For modules with ``prototypes`` and
    ``project(images)``, such as MSN and PMSN. Written as ``prototype_gallery/…png`` in the run's
    folder (see ``lit_ssl.callbacks.pictures.base.SplitPicture``).

    Args:
        num_prototypes: Rows, >= 1; fewer where fewer prototypes are used.
        images_per_prototype: Images in a row at most, >= 1.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(
        self,
        num_prototypes: int = 10,
        images_per_prototype: int = 8,
        every_n_epochs: int = 10,
    ) -> None:
        super().__init__(every_n_epochs)
        if num_prototypes < 1 or images_per_prototype < 1:
            raise InputError(
                "PrototypeGallery needs num_prototypes and images_per_prototype >= 1, not "
                f"{num_prototypes} and {images_per_prototype}"
            )
        self.num_prototypes = num_prototypes
        self.images_per_prototype = images_per_prototype

    @property
    def name(self) -> str:
        """Of the picture."""
        return "prototype_gallery"

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask for prototypes before the first batch.

        Args:
            trainer: The running trainer.
            pl_module: The module.
        """
        prototypes_of(pl_module)

    def draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> Image.Image | None:
        """Draw the gallery."""
        images = SplitImages(trainer, split)
        kept = finite_rows(self, shard_features(trainer, pl_module, split, "project"), split)
        if kept is None:
            return None
        found = kept.features
        projections = found.on_rank_zero()
        if projections is None:  # on another process
            return None
        prototypes = F.normalize(prototypes_of(pl_module).float(), dim=1)
        cosine, owner = torch.empty(len(found)), torch.empty(len(found), dtype=torch.int64)
        for start in range(0, len(found), _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = projections[part].to(prototypes.device)
            nearest = (F.normalize(rows, dim=1) @ prototypes.T).max(dim=1)
            cosine[part], owner[part] = nearest.values.cpu(), nearest.indices.cpu()
        sizes = owner.bincount(minlength=len(prototypes))
        used = int((sizes > 0).sum())
        largest = sizes.argsort(descending=True, stable=True)[: min(self.num_prototypes, used)]
        members = {}
        for number in largest.tolist():
            own = (owner == number).nonzero().flatten()
            order = cosine[own].argsort(descending=True, stable=True)
            members[number] = own[order]
        shown = [
            row for own in members.values() for row in own[: self.images_per_prototype].tolist()
        ]
        pictures = dict(
            zip(shown, images.pictures(pl_module, kept.rows[shown].tolist()), strict=True)
        )
        names = class_names(trainer)
        rows_drawn = []
        for number, own in members.items():
            lines = [f"prototype {number}", f"{100 * len(own) / len(found):.1f} % ({len(own):,})"]
            labels = found.labels[own]
            labels = labels[labels >= 0]
            if len(labels):
                counts = labels.bincount()
                most = int(counts.argmax())
                share = 100 * int(counts[most]) / len(labels)
                lines.append(f"{share:.0f} % {class_name(most, names)}")
            tiles = [
                Tile(
                    pictures[row],
                    "\n".join(
                        filter(
                            None,
                            [class_name(int(found.labels[row]), names), f"{cosine[row]:.3f}"],
                        )
                    ),
                )
                for row in own[: self.images_per_prototype].tolist()
            ]
            rows_drawn.append(Row(tiles, lines=lines))
        title = (
            f"{len(members)} of {len(prototypes):,} prototypes, those with most of {len(found):,} "
            f"{SPLIT_WORDS[split]}, and their nearest images by cosine, {when(trainer)}; "
            f"{used:,} prototypes have an image{kept.note}"
        )
        return draw_rows(rows_drawn, title=title)
