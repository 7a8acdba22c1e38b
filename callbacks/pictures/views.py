"""Pictures of what the network really sees."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.callbacks.pictures.view_grid import draw_dropped, unnormalised, view_grid
from lit_ssl.contracts.batches import split_batch
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError
from lit_ssl.trainer.pictures import keep_picture
from lit_ssl.trainer.run import run_folder


class ViewLogger(pl.Callback):
    """Draws the first batch of every n-th epoch exactly as it reached the network.

    Each row of the picture is one sample. The columns are the views in the order of the batch; with
    ``kept_patches`` in the outputs of ``training_step`` the first is the target, the next are the
    masked anchors with their dropped patches painted over (grey; blue where images have no
    colour), the rest are called focal. The picture is written to ``views/epoch_NNNN.png`` in the
    run's folder and shown in every logger that takes images (TensorBoard, Weights & Biases).
    Batches of plain images work too.

    ``kept_patches``: indices ``[R * B, n]`` for R masked views of B samples, view-major (row
    ``v * B + b``), or ``[n]`` for all alike; the module's ``patch_size`` gives the patch in pixels.
    The masked views follow one target view, unless there is a mask for every view.

    Args:
        num_samples: Rows of the picture, >= 1.
        every_n_epochs: Draw in epochs 0, n, 2n, …, >= 1.
        max_views: Columns at most, >= 1.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(self, num_samples: int = 8, every_n_epochs: int = 10, max_views: int = 12) -> None:
        if num_samples < 1 or every_n_epochs < 1 or max_views < 1:
            raise InputError(
                "ViewLogger needs num_samples, every_n_epochs and max_views >= 1, got "
                f"{num_samples}, {every_n_epochs}, {max_views}"
            )
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self.max_views = max_views

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw, if this is the first batch of an epoch that is due."""
        if batch_idx != 0 or trainer.current_epoch % self.every_n_epochs != 0:
            return
        folder = run_folder(trainer, ["views"])
        if not trainer.is_global_zero:
            return
        kept = outputs.get("kept_patches") if isinstance(outputs, dict) else None
        picture = view_grid(self._columns(trainer, pl_module, batch, kept))
        if folder is None:
            return
        path = folder / "views" / f"epoch_{trainer.current_epoch:04d}.png"
        keep_picture(trainer, path, "views", picture)

    def _columns(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, kept: Tensor | None
    ) -> list[tuple[str, Tensor]]:
        inputs = split_batch(batch)[0]
        groups = [inputs] if isinstance(inputs, Tensor) else inputs
        if isinstance(groups, dict) or any(group.ndim not in (4, 5) for group in groups):
            raise InputError(
                "ViewLogger draws images [B, C, H, W], and got inputs of another kind: leave it out"
            )
        size = len(groups[0])
        shown = min(size, self.num_samples)
        views = [
            unnormalised(view[:shown].detach().float().cpu(), data_source(trainer))
            for group in groups
            for view in (group.unbind(dim=1) if group.ndim == 5 else [group])
        ]
        columns: list[tuple[str, Tensor]] = [
            ("image" if len(views) == 1 else f"view {v + 1}", view) for v, view in enumerate(views)
        ]
        patch = getattr(pl_module, "patch_size", None)
        if kept is not None and patch is not None:
            patch_size = (patch, patch) if isinstance(patch, int) else tuple(patch)
            if kept.ndim == 1:  # one mask for all anchors: the large views but the target
                anchors = groups[0].shape[1] - 1 if groups[0].ndim == 5 else 0
                kept = kept.expand(max(1, anchors) * size, -1)
            masks = kept.cpu().view(-1, size, kept.shape[-1])
            columns = _masked_columns(views, masks, patch_size, shown)
        elif kept is not None:
            rank_zero_warn(
                f"ViewLogger cannot draw kept_patches: module {type(pl_module).__name__} has no "
                "patch_size (an int or a pair, in pixels)"
            )
        return columns[: self.max_views]


def _masked_columns(
    views: list[Tensor], masks: Tensor, patch_size: tuple[int, int], shown: int
) -> list[tuple[str, Tensor]]:
    """Columns of a batch with masks ``[R, B, n]``."""
    first = 0 if len(masks) == len(views) else 1
    columns = [("target", view) for view in views[:first]]
    for number, mask in enumerate(masks, start=1):
        view = views[first + number - 1]
        drawn = draw_dropped(view, mask[:shown], patch_size)
        columns.append((f"masked {number}" if len(masks) > 1 else "masked", drawn))
    rest = views[first + len(masks) :]
    return columns + [(f"focal {number}", view) for number, view in enumerate(rest, start=1)]
