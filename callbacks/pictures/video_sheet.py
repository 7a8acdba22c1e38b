"""Contact sheets and clips of the videos that a module makes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.video_generation import generates_videos
from lit_ssl.errors import InputError, InputImportError, by_name
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.passes import evaluation_mode
from lit_ssl.trainer.pictures import keep_picture, log_clip
from lit_ssl.trainer.private import ends_now, validate_the_end
from lit_ssl.trainer.run import run_folder
from lit_ssl.trainer.validation import tell_schedule
from lit_ssl.video.grid import video_grid
from lit_ssl.video.sheet import contact_sheet
from lit_ssl.video.writing import write_video

__all__ = ["VideoContactSheet"]

_FOLDER = "video_sheets"


class VideoContactSheet(pl.Callback):
    """Shows some videos that a module makes: the same noise and classes every time.

    For a module that makes videos
    (``lit_ssl.contracts.video_generation.GeneratesVideos``). A row of the sheet is a video,
    time goes to the right. Of a module with classes, video i is of class i modulo their number, and
    is named after it.

    Written into the run's folder, as ``video_sheets/step_NNNNNNNN.png`` and ``.mp4`` (the videos
    side by side); ``trainer.validate`` and ``trainer.test`` write ``validate`` and ``test``. Every
    logger that takes images shows the sheet, and the clip as a moving picture (TensorBoard: among
    its images; Weights & Biases: as a video).

    Nothing of the training changes, random numbers included.

    Args:
        num_videos: Videos, >= 1.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.
        fps: Frames per second of the clip, > 0.
        write_mp4: Whether to write the clip too; needs PyAV.

    Raises:
        ValueError: If a value lies outside its range.
    """

    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    is_off: ClassVar[bool] = False
    family: ClassVar[str] = ""

    def __init__(
        self,
        num_videos: int = 8,
        every_n_epochs: int = 1,
        fps: float = 8.0,
        write_mp4: bool = True,
    ) -> None:
        if num_videos < 1 or every_n_epochs < 1 or not fps > 0:
            raise InputError(
                "VideoContactSheet needs num_videos and every_n_epochs >= 1 and fps > 0, got "
                f"{num_videos}, {every_n_epochs}, {fps}"
            )
        self.num_videos = num_videos
        self.every_n_epochs = every_n_epochs
        self.fps = fps
        self.write_mp4 = write_mp4
        self._last_step = -1  # at which it drew; −1: not in this call

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the module, and that a clip can be written, before the first batch."""
        if stage == "predict":
            return
        generates_videos(pl_module)
        if self.write_mp4 and find_spec("av") is None:
            raise InputImportError(
                "needs PyAV to write clips: pip install 'lit-ssl[video]', or set write_mp4: false"
            )
        self._last_step = -1
        if stage == "fit":
            validate_the_end(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be drawn."""
        tell_schedule(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if it is due."""
        if trainer.sanity_checking:
            return
        is_nth = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if trainer.state.fn != "fit" or is_nth or ends_now(trainer):
            self._draw(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw an end that only a callback, such as EarlyStopping, has made one."""
        if self._last_step != trainer.global_step and any(trainer.num_val_batches):
            self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        folder = run_folder(trainer, [_FOLDER])
        if folder is None:
            return
        # on every process: a module may prepare itself together with the others
        videos, captions = self._videos(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        sheet = contact_sheet(videos, captions)
        command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
        name = f"step_{trainer.global_step:08d}" if command == "fit" else command
        path = folder / _FOLDER / f"{name}.png"
        keep_picture(trainer, path, _FOLDER, torch.from_numpy(sheet).permute(2, 0, 1))
        grid = video_grid(videos)
        log_clip(trainer, f"{_FOLDER}_moving", grid, self.fps)
        if self.write_mp4:
            with may_be_lost(trainer, f"videos in {path.parent}"):
                # the folder is this run's own
                write_video(path.with_suffix(".mp4"), grid, self.fps, overwrite=True)

    def _videos(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> tuple[Tensor, list[str]]:
        module = generates_videos(pl_module)
        classes = torch.arange(self.num_videos) % module.num_classes
        noise = torch.Generator().manual_seed(int(sample_seeds(Stream.WATCHED_VIDEOS, 0)[0]))
        with (
            isolate_rng(),
            torch.no_grad(),
            evaluation_mode(pl_module),
            trainer.precision_plugin.forward_context(),
        ):
            videos = module.sample(
                self.num_videos, y=classes.to(pl_module.device), generator=noise
            ).cpu()
        return videos, _names(data_source(trainer), module.num_classes, classes.tolist())


def _names(source: Any, num_classes: int, classes: list[int]) -> list[str]:
    """What rows are called; nothing where there is only one class."""
    if num_classes == 1:
        return []
    names = getattr(source, "class_names", None)
    if not names or len(names) != num_classes:
        return [str(number) for number in classes]
    return [str(names[number]) for number in classes]
