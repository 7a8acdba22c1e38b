"""Pictures and moving pictures for loggers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import lightning.pytorch as pl
from lightning.pytorch.loggers import CometLogger, MLFlowLogger
from PIL import Image
from torch import Tensor

from lit_ssl.files import write_file
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.run import tensorboards

__all__ = ["KeptPicture", "keep_picture", "kept_pictures", "log_clip", "log_picture"]

_LOGGED = "the pictures of loggers"


class KeptPicture(NamedTuple):
    """A picture that a run has written.

    Attributes:
        name: As loggers show it; pictures of other steps of the run may have the same.
        path: Its PNG.
    """

    name: str
    path: Path


_kept: WeakKeyDictionary[pl.Trainer, list[tuple[ref[pl.LightningModule], KeptPicture]]]
_kept = WeakKeyDictionary()


def kept_pictures(trainer: pl.Trainer) -> list[KeptPicture]:
    """The pictures that a trainer has written of its present module, on rank zero.

    Args:
        trainer: The running trainer.

    Returns:
        In the order in which they were first written, each once; those that are still there.
    """
    kept = [
        picture
        for module, picture in _kept.get(trainer, [])
        if module() is trainer.lightning_module and picture.path.is_file()
    ]
    return list(dict.fromkeys(kept))


def keep_picture(trainer: pl.Trainer, path: Path, name: str, picture: Tensor) -> None:
    """Write a picture as PNG, and show it in every logger that takes images.

    A disk that is full costs the picture and not the training.

    Args:
        trainer: The running trainer, on rank zero.
        path: File of this run's own.
        name: Of the picture.
        picture: uint8 ``[3, H, W]``.
    """
    image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
    with may_be_lost(trainer, f"pictures in {path.parent}"):
        write_file(path, lambda file: image.save(file, "PNG"), binary=True)
        made = _kept.setdefault(trainer, [])
        module = trainer.lightning_module
        if module is not None:  # else no run would show it
            made.append((ref(module), KeptPicture(name, path)))
    log_picture(trainer, name, picture)


def log_picture(trainer: pl.Trainer, name: str, picture: Tensor) -> None:
    """Show a picture in every logger that takes images; call it on rank zero.

    Args:
        trainer: The running trainer.
        name: Of the picture.
        picture: uint8 ``[3, H, W]``.
    """
    with may_be_lost(trainer, _LOGGED):
        _log_picture(trainer, name, picture)


def _log_picture(trainer: pl.Trainer, name: str, picture: Tensor) -> None:
    step = trainer.global_step
    for board in tensorboards(trainer):
        board.add_image(name, picture, step)
    loggers: list[Any] = trainer.loggers
    image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
    for logger in loggers:
        if callable(log_image := getattr(logger, "log_image", None)):  # as of WandbLogger
            log_image(key=name, images=[image], step=step)
        elif isinstance(logger, MLFlowLogger):  # these have no call of Lightning's for it
            logger.experiment.log_image(logger.run_id, image, key=name, step=step)
        elif isinstance(logger, CometLogger):
            logger.experiment.log_image(image, name=name, step=step)


def log_clip(trainer: pl.Trainer, name: str, clip: Tensor, fps: float) -> None:
    """Show a moving picture in every logger that takes images; call it on rank zero.

    TensorBoard plays it among its images.

    Args:
        trainer: The running trainer.
        name: Of the picture.
        clip: uint8 ``[T, 3, H, W]``.
        fps: Frames per second.
    """
    with may_be_lost(trainer, _LOGGED):
        _log_clip(trainer, name, clip, fps)


def _log_clip(trainer: pl.Trainer, name: str, clip: Tensor, fps: float) -> None:
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
