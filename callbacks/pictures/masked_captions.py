"""Pictures of what a model guesses in place of masked words."""

from __future__ import annotations

from itertools import islice
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_ssl.callbacks.pictures.caption_drawing import CaptionPicture, draw_captions
from lit_ssl.callbacks.pictures.caption_samples import CaptionSample, caption_picture, take_samples
from lit_ssl.callbacks.pictures.view_grid import unnormalised
from lit_ssl.contracts.batches import describe, parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.vision_language import guesses_words
from lit_ssl.errors import InputAttributeError, InputError, InputTypeError, by_name
from lit_ssl.trainer.passes import evaluation_mode
from lit_ssl.trainer.pictures import keep_picture
from lit_ssl.trainer.private import ends_now, validate_the_end
from lit_ssl.trainer.run import run_folder
from lit_ssl.trainer.validation import tell_schedule

__all__ = ["MaskedCaptions"]

_FOLDER = "masked_captions"
_NEEDED = ("images", "input_ids", "attention_mask", "word_ids")


class MaskedCaptions(pl.Callback):
    """Draws captions with masked words, what is guessed in their place, and where words lie.

    For a module that guesses words (``lit_ssl.contracts.vision_language.GuessesWords``) and
    data with a ``text_tokenizer``. Each row of the picture is a pair of the first validation
    loader, the same ones every time:

    - the image and, small, that of the next row;
    - the caption, with the words of the module's fixed mask in boxes, and how probable it is that
      caption and image belong together, for both images;
    - each masked word with the most probable guess and its probability (the product over the pieces
      of the word), with the image and with the other one: where both agree, the image did not
      matter;
    - for up to three words (content words where the batch brings ``candidates``, the longest of
      them) the patches that the plan of word–patch alignment sends them to, as multiples of an even
      share. Only the alignment loss (``wpa_weight`` of VLPretraining) trains it. Left out, with a
      warning, where the tokens of the image are not a class token and a grid of square patches.

    Captions without a masked word (content word where the batch brings ``candidates``), and further
    captions of one image, are passed over. The picture
    is written to ``masked_captions/step_NNNNNNNN.png`` in the run's folder and shown in every
    logger that takes images (TensorBoard, Weights & Biases); ``trainer.validate`` and
    ``trainer.test`` write ``validate.png`` and ``test.png``. Letters that the font of matplotlib
    lacks (without matplotlib: all but Latin ones) are drawn as empty boxes.

    Nothing of the training changes, random numbers included.

    Args:
        num_samples: Rows of the picture, >= 1.
        every_n_epochs: During fit, draw in the validations of epochs n, 2n, … and at the end, >= 1.

    Raises:
        ValueError: If a value lies outside its range.
    """

    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    is_off: ClassVar[bool] = False
    family: ClassVar[str] = ""

    def __init__(self, num_samples: int = 6, every_n_epochs: int = 1) -> None:
        if num_samples < 1 or every_n_epochs < 1:
            raise InputError(
                "MaskedCaptions needs num_samples and every_n_epochs >= 1, got "
                f"{num_samples}, {every_n_epochs}"
            )
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self._samples: list[CaptionSample] = []  # of the last validation, on rank zero
        self._last_step = -1  # at which it drew; −1: not in this call
        self._told = False  # that maps are left out

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check module and data before the first batch."""
        if stage == "predict":
            return
        guesses_words(pl_module)
        if getattr(data_source(trainer), "text_tokenizer", None) is None:
            raise InputAttributeError(
                f"needs the data's text_tokenizer, to write words, and "
                f"{type(data_source(trainer)).__name__} has none: add it, or remove the callback"
            )
        self._samples, self._last_step, self._told = [], -1, False
        if stage == "fit":
            validate_the_end(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be drawn."""
        tell_schedule(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to choose."""
        self._samples = []

    on_test_start = on_validation_start

    @by_name
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Choose captions of the batch, until there are enough."""
        missing = self.num_samples - len(self._samples)
        if not trainer.is_global_zero or dataloader_idx or not missing or trainer.sanity_checking:
            return
        inputs, numbers, _ = parts_of(batch)
        if not isinstance(inputs, dict) or numbers is None or not all(n in inputs for n in _NEEDED):
            raise InputTypeError(
                f"needs batches ({{{', '.join(_NEEDED)}}}, image numbers), got {describe(batch)}"
            )
        with isolate_rng(), torch.no_grad():
            mask = guesses_words(pl_module).fixed_mask(inputs)
        known = [sample.number for sample in self._samples]
        self._samples += islice(take_samples(inputs, numbers, mask, known), missing)

    on_test_batch_end = on_validation_batch_end

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
        self._samples = []

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        folder = run_folder(trainer, [_FOLDER])
        if not trainer.is_global_zero:
            return
        if not self._samples:
            rank_zero_warn(
                "MaskedCaptions draws nothing: no caption of the evaluated set has a masked word"
            )
            return
        command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
        step = trainer.global_step
        title = f"step {step:,}" if command == "fit" else f"{command}, weights of step {step:,}"
        drawn = draw_captions(self._pictures(trainer, pl_module), title)
        if folder is None:
            return
        name = f"step_{step:08d}" if command == "fit" else command
        path = folder / _FOLDER / f"{name}.png"
        keep_picture(trainer, path, _FOLDER, torch.from_numpy(drawn).permute(2, 0, 1))

    def _pictures(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[CaptionPicture]:
        source = data_source(trainer)
        module = guesses_words(pl_module)

        def pixels(images: Tensor) -> np.ndarray:
            shown = unnormalised(images.detach().float().cpu(), source)
            shown = shown if shown.shape[1] == 3 else shown[:, :1].expand(-1, 3, -1, -1)
            return (shown[0] * 255).round().byte().permute(1, 2, 0).numpy()

        others = [*self._samples[1:], self._samples[0]] if len(self._samples) > 1 else [None]
        pictures = []
        with (
            isolate_rng(),
            torch.no_grad(),
            evaluation_mode(pl_module),
            trainer.precision_plugin.forward_context(),
        ):
            for sample, other in zip(self._samples, others, strict=True):
                tokenizer = source.text_tokenizer
                pictures.append(caption_picture(module, sample, other, tokenizer, pixels))
        if not any(picture.maps for picture in pictures) and not self._told:
            self._told = True
            rank_zero_warn(
                "MaskedCaptions leaves out where words lie in the image: the image tokens of "
                f"{type(pl_module).__name__} are not a class token and a grid of square patches"
            )
        return pictures
