"""Pictures for loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from PIL import Image
from torch import Tensor

from lit_ssl.trainer.run import tensorboards

__all__ = ["log_picture"]


def log_picture(trainer: pl.Trainer, name: str, picture: Tensor) -> None:
    """Show a picture in every logger that takes images; call it on rank zero.

    Args:
        trainer: The running trainer.
        name: Of the picture.
        picture: uint8 ``[3, H, W]``.
    """
    step = trainer.global_step
    for board in tensorboards(trainer):
        board.add_image(name, picture, step)
    loggers: list[Any] = trainer.loggers
    for logger in loggers:
        if callable(log_image := getattr(logger, "log_image", None)):  # as of WandbLogger
            image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
            log_image(key=name, images=[image], step=step)
