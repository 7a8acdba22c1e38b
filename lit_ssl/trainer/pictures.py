"""Pictures and moving pictures for loggers."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import lightning.pytorch as pl
from PIL import Image
from torch import Tensor

from lit_ssl.trainer.run import tensorboards

__all__ = ["log_clip", "log_picture"]


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


def log_clip(trainer: pl.Trainer, name: str, clip: Tensor, fps: float) -> None:
    """Show a moving picture in every logger that takes images; call it on rank zero.

    TensorBoard plays it among its images.

    Args:
        trainer: The running trainer.
        name: Of the picture.
        clip: uint8 ``[T, 3, H, W]``.
        fps: Frames per second.
    """
    step = trainer.global_step
    frames = [Image.fromarray(frame) for frame in clip.permute(0, 2, 3, 1).cpu().numpy()]
    file = BytesIO()
    options: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0}
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], **options)
    if boards := tensorboards(trainer):
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = clip.shape[-2:]
        size = {"height": height, "width": width, "colorspace": 3}
        image = Summary.Image(**size, encoded_image_string=file.getvalue())
        for board in boards:
            board.file_writer.add_summary(
                Summary(value=[Summary.Value(tag=name, image=image)]), step
            )
    loggers: list[Any] = trainer.loggers
    for logger in loggers:
        if callable(log_video := getattr(logger, "log_video", None)):  # as of WandbLogger
            file.seek(0)
            log_video(key=name, videos=[file], step=step, format=["gif"])
