"""Whether a model that guesses masked words looks at the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.callbacks.evaluators.other_images import OtherImages
from lit_ssl.contracts.batches import describe, parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.evaluation_sets import evaluation_sets
from lit_ssl.contracts.vision_language import GuessesWords, can_match, guesses_words, texts_of
from lit_ssl.distributed import gather_stack
from lit_ssl.errors import InputError, InputTypeError, by_name
from lit_ssl.trainer.private import validate_the_end
from lit_ssl.trainer.validation import tell_schedule

__all__ = ["Grounding"]

_KINDS = ("grounding", "grounding_content", "itm")
_IMAGES = ("image_embeds", "image_mask")
# What goes with the rows of a batch besides its texts; no name of an input.
_CHOSEN, _OF, _RIGHT = "chosen words", "of how many", "right with the image"


class Grounding(pl.Callback):
    """Accuracy of guessed words and of matching, with the true image and with another one.

    Runs on every validation and test batch of a module that guesses words
    (``lit_ssl.contracts.vision_language.GuessesWords``), and logs, for ``val/`` and ``test/``:

    - ``grounding_true``, ``grounding_rolled``: share of masked tokens that are guessed right, with
      the caption's image and with another one. Masked are the words of the module's fixed mask,
      whatever rate and strategy it is trained with. ``grounding``: their difference, in [−1, 1];
      near 0 the words are guessed from the text alone;
    - ``grounding_content_true``, ``…_rolled``, ``grounding_content``: the same over those tokens
      that the batch calls ``candidates`` (content words), where it brings them;
    - ``itm_true``: share of captions that are said to belong to their image; ``itm_rolled``: share
      that are said not to belong to another one. A module that gives the same answer to all has
      1 in one of them and 0 in the other; one without a head for matching has neither.

    The other image is that of the nearest earlier caption of another image (of the first captions:
    the first other one that comes), so it does not depend on the batch size. Each process takes it
    from its own rows: with other numbers of processes the other images are others, and the values
    with them differ by chance. Sums are over all processes. A process whose rows are all of one
    image leaves them out of all values, and the run says so.

    Images are embedded once per batch. It costs two passes for the words and two for the matching.
    Nothing of the training changes, random numbers included; the check of Lightning's before a
    training logs nothing.

    Source: accuracy with and without the image, as a gauge, is ours.
    """

    runs_in_validation: ClassVar[bool] = True  # told by tell_schedule
    every_n_epochs: ClassVar[int] = 1
    is_off: ClassVar[bool] = False
    family: ClassVar[str] = "grounding"

    def __init__(self) -> None:
        self._streams: list[OtherImages] = []  # of each set
        self._rows: list[int] = []  # captions of each set
        self._lost = torch.zeros(0)  # int64 [sets]: numbers that are none
        self._counts = torch.zeros(0)  # int64 [sets, kinds, 3]: of how many, right, right rolled

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the module before the first batch."""
        if stage == "predict":
            return
        guesses_words(pl_module)
        if stage == "fit":
            validate_the_end(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never be evaluated."""
        tell_schedule(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._begin(trainer, pl_module, "val")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._begin(trainer, pl_module, "test")

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
        """Count what is right in a batch."""
        if trainer.sanity_checking:
            return
        inputs, numbers, _ = parts_of(batch)
        if not isinstance(inputs, dict) or "input_ids" not in inputs or numbers is None:
            raise InputTypeError(
                "needs batches of images with captions, ({images, input_ids, …}, image numbers), "
                f"got {describe(batch)}"
            )
        if dataloader_idx >= len(self._streams):
            raise InputError(
                f"needs a name for each of several loaders, and {len(self._streams)} have one: let "
                "the data module give evaluation_sets(split), one for each loader, in order"
            )
        with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            self._count(guesses_words(pl_module), inputs, numbers, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum over processes and log."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum over processes and log."""
        self._log(trainer, pl_module, "test")

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        sets = len(evaluation_sets(data_source(trainer), split))
        self._streams, self._rows = [OtherImages() for _ in range(sets)], [0] * sets
        shape = (sets, len(_KINDS), 3)
        self._counts = torch.zeros(shape, dtype=torch.int64, device=pl_module.device)
        self._lost = torch.zeros(sets, dtype=torch.int64, device=pl_module.device)

    def _count(
        self, module: GuessesWords, inputs: Mapping[str, Tensor], numbers: Tensor, place: int
    ) -> None:
        self._rows[place] += len(numbers)
        embedded = module.embed(inputs)
        images = {name: embedded[name] for name in _IMAGES}
        texts, chosen = texts_of(inputs), module.fixed_mask(inputs)
        own = {**texts, **images}
        nothing = torch.zeros_like(numbers)
        matched = module.match(own) if can_match(module) else nothing
        guessed = _guessed(module, own, chosen)
        self._lost[place] += _lost(matched, guessed)
        rows = {**texts, _CHOSEN: chosen}
        rows[_OF] = _by_kind(chosen, texts, nothing + can_match(module))
        rows[_RIGHT] = _by_kind(guessed == texts["input_ids"], texts, matched > 0)
        for texts, others in self._streams[place].add(rows, images, numbers):
            chosen, of, right = (texts.pop(name) for name in (_CHOSEN, _OF, _RIGHT))
            rolled = {**texts, **others}
            scores = module.match(rolled) if can_match(module) else None
            # 0 is no right answer twice
            apart = right[:, 2] if scores is None else scores <= 0
            guessed = _guessed(module, rolled, chosen)
            self._lost[place] += _lost(apart if scores is None else scores, guessed)
            right_rolled = _by_kind(guessed == texts["input_ids"], texts, apart)
            found = torch.stack([of, right, right_rolled], dim=2).sum(dim=0)
            self._counts[place] += found

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        if trainer.sanity_checking:
            return
        captions = [
            (rows, s.num_waiting) for rows, s in zip(self._rows, self._streams, strict=True)
        ]
        seen = gather_stack(torch.tensor(captions, device=pl_module.device)).sum(dim=0).tolist()
        counts = gather_stack(self._counts).sum(dim=0).tolist()
        lost = gather_stack(self._lost).sum(dim=0).tolist()
        self._streams = []
        for place, one in enumerate(evaluation_sets(data_source(trainer), split)):
            rows, left_out = seen[place]
            _tell(f"{split} set {one.name}".rstrip(), rows, left_out, words=counts[place][0][0])
            name = f"{one.name}_" if one.name else ""
            for key, value in _values(counts[place]).items():
                value = math.nan if lost[place] else value
                # All processes hold equal values; syncing them again only keeps Lightning from
                # warning.
                shown = key == "grounding"
                pl_module.log(f"{split}/{name}{key}", value, prog_bar=shown, sync_dist=True)


def _tell(what: str, rows: int, left_out: int, words: int) -> None:
    """Say what is not measured.

    Args:
        what: The set is called.
        rows: Its captions.
        left_out: How many of them have no other image.
        words: Masked tokens of the others.
    """
    if left_out:
        rank_zero_warn(
            f"Grounding leaves out {left_out:,} of {rows:,} captions of the {what}: all that their "
            "process has are of one image, and no other can take its place"
        )
    if rows > left_out and not words:
        rank_zero_warn(
            f"Grounding measures no words: the fixed mask chooses none in the {rows - left_out:,} "
            f"captions of the {what}"
        )


def _guessed(module: GuessesWords, inputs: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
    """What is guessed for the chosen tokens, int64 ``[B, L]``; −1 for others."""
    guesses = torch.full_like(inputs["input_ids"], -1)
    if chosen.any():
        guesses[chosen] = best_answer(module.guess(inputs, chosen))
    return guesses


def _lost(scores: Tensor, guessed: Tensor) -> Tensor:
    """How many scores and guesses come of numbers that are NaN or infinite."""
    return (~scores.isfinite()).sum() + (guessed == NO_ANSWER).sum()


def _by_kind(tokens: Tensor, inputs: Mapping[str, Tensor], pairs: Tensor) -> Tensor:
    """Numbers of some tokens, of content words among them, and of pairs: int64 ``[B, 3]``."""
    content = inputs.get("candidates")
    content = torch.zeros_like(tokens) if content is None else tokens & content.bool()
    return torch.stack([tokens.sum(dim=1), content.sum(dim=1), pairs.long()], dim=1)


def _values(counts: list[list[int]]) -> dict[str, float]:
    """What is logged of the counts of a set."""
    values: dict[str, float] = {}
    for kind, (number, right, rolled) in zip(_KINDS, counts, strict=True):
        if not number:
            continue
        values |= {f"{kind}_true": right / number, f"{kind}_rolled": rolled / number}
        if kind != "itm":
            values[kind] = (right - rolled) / number
    return values
