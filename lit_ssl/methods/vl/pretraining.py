"""Pretraining on images with captions: masked words, matching, word–patch alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_ssl.answers import count_right
from lit_ssl.checkpoints.vision_language import VLWeights, has_own_decoder
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError, InputTypeError, by_name, check_numbers
from lit_ssl.losses import (
    MaskedLMLoss,
    WordPatchAlignment,
    draw_in_batch,
    draw_matching,
    gather_masked,
    matching_loss,
)
from lit_ssl.losses.matching import Matching
from lit_ssl.losses.mlm import IGNORED, CountOnHost
from lit_ssl.methods.rates import current_lr
from lit_ssl.methods.vl.base import VLModule
from lit_ssl.methods.vl.pairs import exchanged, joined, pair_inputs, with_images, with_others
from lit_ssl.models.vl.heads import MatchingHead, MLMHead
from lit_ssl.models.vl.output import EmbeddedImages, embedded_images
from lit_ssl.seeding import run_seed
from lit_ssl.text.masking.corruption import (
    check_replacement,
    corrupt,
    prediction_subset,
    replacement_units,
)
from lit_ssl.text.masking.fixed_mask import fixed_word_mask
from lit_ssl.text.masking.maskers import MaskerLike, checked_mask
from lit_ssl.text.masking.rates import RateSchedule
from lit_ssl.text.masking.step_random import step_generator
from lit_ssl.text.shares import check_rate
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import finished_batches, total_steps
from lit_ssl.trainer.private import trainer_of
from lit_ssl.trainer.run import is_logged
from lit_ssl.trainer.step_logs import log_loss, log_values

__all__ = ["MaskedWords", "VLPretraining"]


class MaskedWords(NamedTuple):
    """Text of a batch as the network sees it, and what it has to say.

    Attributes:
        ids: int64 ``[B, L]``.
        labels: int64 ``[B, L]``, −100 where nothing is to be predicted.
        number: how many are; asked for early, the host need not wait for the network.
    """

    ids: Tensor
    labels: Tensor
    number: CountOnHost | None = None


class VLPretraining(VLModule):
    """Learns images and captions from masked words and from which of them belong together.

    Of a batch of B pairs:

        masked, labels = corrupt(text, masker(text))
        y = a random half ones;  image' = image where y, else another one
        loss = mlm_weight · CE(mlm_head(net(masked, image)), labels)       # masked tokens only
             + itm_weight · CE(itm_head(net(text, image').pooled), y)
             + wpa_weight · (Σ distance(y = 1) − Σ distance(y = 0)) / B

    Both passes are one of 2B rows, images are embedded once, and only masked positions meet the
    vocabulary: the same losses in less time. Text is masked for the first loss only.

    Batches are ``(inputs, image numbers)`` with ``images``, ``input_ids``, ``attention_mask`` and
    ``word_ids``; see docs/design.md. Where batches bring ``other_images``, these are the other ones
    (ViLT draws them from all of the data); else images are exchanged within the batch, never among
    captions of one image. Masks are made on the device, from the seed of the run, the process and
    the number of the batch: the same ones after a resume and with any number of workers.

    Validation masks 15 % of the words, the same ones each time, whatever the training does:
    ``val/mlm_acc``, ``val/mlm_loss``; each text with its image and with that of the next row:
    ``val/itm_acc``, ``val/itm_loss``.

    Args:
        backbone: see ``VLModule``.
        masker: which tokens are masked: a masker of ``lit_ssl.text``, with its rate, or a
            function of yours like them.
        rate_schedule: masking rate by the share of the run that is done, in place of the masker's:
            [`LinearRate`][lit_ssl.text.LinearRate], …
        prediction_rate: share of the tokens that is predicted, at most the masking rate; None: all
            that are masked.
        mask_replace_prob: share of the masked tokens that becomes [MASK].
        random_replace_prob: share that becomes a random token; the rest stays.
        replace_per_unit: one such draw for all tokens of a span, collocation or word.
        mlm_weight: weight of masked language modelling, ≥ 0.
        itm_weight: weight of image–text matching, ≥ 0.
        wpa_weight: weight of word–patch alignment, ≥ 0; METER has none.
        tie_mlm_decoder: let the last layer of the MLM head share the word embeddings.
        global_mlm_mean: divide the MLM loss by the masked tokens of all processes.
        mask_id: id of [MASK]; None: what the data module says (``mask_id``).
        kwargs: arguments of ``VLModule``.

    Raises:
        InputError: for values outside their ranges, or that do not go together.

    Source: arXiv 2212.05195 (strategies and rates), 2102.03334 (losses; dandelin/ViLT),
    2111.02387 (two streams).
    """

    heads: tuple[str, ...] = ("mlm_head", "itm_head")

    def __init__(
        self,
        backbone: nn.Module,
        masker: MaskerLike,
        rate_schedule: RateSchedule | None = None,
        prediction_rate: float | None = None,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
        replace_per_unit: bool = False,
        mlm_weight: float = 1.0,
        itm_weight: float = 1.0,
        wpa_weight: float = 0.1,
        tie_mlm_decoder: bool = False,
        global_mlm_mean: bool = True,
        mask_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.save_hyperparameters(
            ignore=not_plain(backbone=backbone, masker=masker, rate_schedule=rate_schedule)
        )
        check_numbers(self.hparams)
        if not callable(masker):
            raise InputError(
                "masker must be a masker of lit_ssl.text, such as UniformMasker(0.6), or a function"
                f" like them, not {masker!r}"
            )
        weights = {"mlm_weight": mlm_weight, "itm_weight": itm_weight, "wpa_weight": wpa_weight}
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise InputError(f"{name} must be finite and >= 0, not {weight}")
        if not (mlm_weight or itm_weight):
            raise InputError("mlm_weight and itm_weight are both 0: nothing is learned")
        if wpa_weight and not itm_weight:
            raise InputError(
                "wpa_weight needs the pass of matching: set itm_weight, or wpa_weight: 0"
            )
        check_replacement(mask_replace_prob, random_replace_prob)
        if prediction_rate is not None:
            check_rate("prediction_rate", prediction_rate)
            if rate_schedule is None and not hasattr(masker, "rate"):
                raise InputError(
                    f"prediction_rate needs to know the masking rate, which "
                    f"{type(masker).__name__} has no attribute for: give rate_schedule"
                )
            if rate_schedule is None and prediction_rate > masker.rate:  # type: ignore[attr-defined]
                raise InputError(
                    f"prediction_rate is {prediction_rate}, but only a share of "
                    f"{masker.rate} is masked"  # type: ignore[attr-defined]
                )
        self.masker = masker
        self.rate_schedule = rate_schedule
        self.prediction_rate = prediction_rate
        self.mask_replace_prob = mask_replace_prob
        self.random_replace_prob = random_replace_prob
        self.replace_per_unit = replace_per_unit
        self.tie_mlm_decoder = tie_mlm_decoder
        self.mlm_weight, self.itm_weight, self.wpa_weight = mlm_weight, itm_weight, wpa_weight
        if mlm_weight:  # without its loss a head would have no gradient, which DDP stops at
            tied = self.backbone.word_embeddings if tie_mlm_decoder else None
            head = MLMHead(self.backbone.hidden_size, self.backbone.vocab_size, tied)
            self.mlm_head = self.new_head(head)
        if itm_weight:
            self.itm_head = self.new_head(MatchingHead(self.backbone.pooled_size))
        # callbacks ask which there are: lit_ssl.contracts.vision_language
        self.heads = tuple(name for name in type(self).heads if hasattr(self, name))
        self.mlm_loss = MaskedLMLoss(global_mlm_mean)
        self.local_mlm_loss = MaskedLMLoss(global_mean=False)
        self.alignment = WordPatchAlignment()
        self.mask_id = mask_id
        self._said_alone = False
        self.token_count = self.backbone.vocab_size  # ids that a random token may have

    @property
    def embed_dim(self) -> int:
        """Width of the vector of a pair."""
        return self.backbone.pooled_size

    def setup(self, stage: str) -> None:
        """Load weights; ask the data module for the id of [MASK]."""
        super().setup(stage)
        data = data_source(self.trainer)
        if self.mask_id is None and self.mlm_weight:
            self.mask_id = getattr(data, "mask_id", None)
            if self.mask_id is None:
                raise InputError(
                    f"{type(data).__name__} does not say which id [MASK] has (mask_id): give the "
                    "model mask_id"
                )
        self.token_count = getattr(data, "vocab_size", None) or self.token_count
        if stage == "fit":
            rank_zero_info(self._in_words())
            if self.itm_weight:
                from_data = getattr(data, "other_images", False)
                source = "all of the data (other_images)" if from_data else "the same batch"
                rank_zero_info(f"{type(self).__name__}: texts are matched with images of {source}")

    def load_head(self, name: str, weights: VLWeights) -> bool:
        """Load a head; a tied decoder must not put another one in place of the word embeddings.

        Args:
            name: of a head that the module has.
            weights: what ``pretrained`` holds.

        Returns:
            Whether the file has it.

        Raises:
            InputError: if the decoder is tied, and the file has one of its own.
        """
        if name == "mlm_head" and self.tie_mlm_decoder and has_own_decoder(weights):
            raise InputError(
                f"the {name} of {self.pretrained} has a decoder of its own, which a tied one would "
                "put in place of the word embeddings: leave out tie_mlm_decoder"
            )
        return super().load_head(name, weights)

    def _in_words(self) -> str:
        name = type(self).__name__
        if not self.mlm_weight:
            return f"{name}: no words are masked, since mlm_weight is 0"
        own: Any = getattr(self.masker, "rate", None)
        rate = own if self.rate_schedule is None else self.rate_schedule
        masker = getattr(self.masker, "__name__", type(self.masker).__name__)
        masks = f"{masker} masks at {'a rate of its own' if rate is None else f'the rate {rate}'}"
        if self.prediction_rate is not None:
            masks += f" and {self.prediction_rate} is predicted"
        return f"{name}: {masks}"

    # training

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features (pooled vectors of the pairs)."""
        inputs, numbers = pair_inputs(batch)
        size = len(inputs["input_ids"])
        generator = step_generator(
            run_seed(None), self.global_rank, finished_batches(self.trainer), self.device
        )
        words, matching, seen = None, None, {}
        if self.mlm_weight:
            mask, ids, labels = self._masked(inputs, generator, look=batch_idx == 0)
            words = MaskedWords(ids, labels, CountOnHost(labels))
            seen["mask_rate"] = mask.sum() / (inputs["word_ids"] >= 0).sum().clamp(min=1)
        if self.itm_weight:
            matching = self._matching(inputs, numbers, generator)
        loss, parts, pooled = self.compute_loss(inputs, words, matching)
        log_loss(self, loss, size)
        if is_logged(self.trainer):
            logged = {f"train/{name}": value for name, value in (seen | parts).items()}
            log_values(self, {**logged, "train/lr": current_lr(self.trainer)}, size)
        return {"loss": loss, "features": pooled.detach()}

    def compute_loss(
        self, inputs: Mapping[str, Tensor], words: MaskedWords | None, matching: Matching | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The losses of a batch of B pairs, both passes at once.

        Args:
            inputs: of the batch, with clean text.
            words: what is masked; None: no loss of words.
            matching: which texts get another image; None: no loss of matching.

        Returns:
            The weighted sum, its parts by name, and pooled vectors ``[B, P]`` of clean texts (or of
            masked ones, where there is no matching).
        """
        size = len(inputs["input_ids"])
        images, sources = self._images(inputs, matching)
        passes = []
        if words is not None:
            passes.append(with_images({**inputs, "input_ids": words.ids}, images, None, size))
        if matching is not None:
            passes.append(with_images(inputs, images, sources, size))
        out = self.backbone(joined(passes))
        pooled = out.pooled[-size:]
        loss, parts = torch.zeros((), device=pooled.device), {}
        if words is not None:
            states, targets = gather_masked(out.text[:size], words.labels, words.number)
            logits = self.mlm_head(states)
            parts["mlm_loss"] = self.mlm_loss(logits, targets)
            loss = loss + self.mlm_weight * parts["mlm_loss"]
            trainer = trainer_of(self)
            if trainer is None or is_logged(trainer):  # an argmax over the vocabulary
                parts["mlm_acc"] = count_right(logits, targets) / max(len(targets), 1)
            parts["num_predictions"] = torch.tensor(float(len(targets)))
        if matching is None:  # the pooler stays in the graph, since DDP waits for all gradients
            return loss + 0 * pooled.float().sum(), parts, pooled
        parts["itm_loss"] = matching_loss(self.itm_head(pooled), matching.labels)
        loss = loss + self.itm_weight * parts["itm_loss"]
        if self.wpa_weight:
            text, image, image_mask = (x[-size:] for x in (out.text, out.image, out.image_mask))
            aligned = self.alignment(
                text, image, inputs["attention_mask"], image_mask, matching.labels
            )
            parts["wpa_loss"] = aligned.loss
            loss = loss + self.wpa_weight * parts["wpa_loss"]
        return loss, parts, pooled

    def _masked(
        self, inputs: Mapping[str, Tensor], generator: torch.Generator, look: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask ``[B, L]``, corrupted ids and labels of a batch."""
        ids, words = inputs["input_ids"], inputs["word_ids"]
        rate = None
        if self.rate_schedule is not None:
            rate = self.rate_schedule(self.trainer.global_step / total_steps(self.trainer))
        maskable, units = words >= 0, inputs.get("unit_ids")
        mask = self.masker(ids, maskable, words, rate, generator, units, inputs.get("candidates"))
        if look or ids.device.type == "cpu":  # an accelerator would have to wait
            mask = checked_mask(mask, maskable)
        predicted = None
        if self.prediction_rate is not None:
            known = self.masker.rate if rate is None else rate  # type: ignore[attr-defined]
            predicted = prediction_subset(mask, known, self.prediction_rate, generator)
        shared = (
            replacement_units(self.masker, mask, words, units) if self.replace_per_unit else None
        )
        corrupted, labels = corrupt(
            ids, mask, self.mask_id, self.token_count, self.mask_replace_prob,
            self.random_replace_prob, generator, predicted=predicted, units=shared,
        )  # fmt: skip
        return mask, corrupted, labels

    def _matching(
        self, inputs: Mapping[str, Tensor], numbers: Tensor | None, generator: torch.Generator
    ) -> Matching:
        size = len(inputs["input_ids"])
        if "other_images" in inputs:
            return draw_matching(size, generator)
        if numbers is None:
            raise InputTypeError(
                "matching exchanges images within a batch, and must know which captions are of one "
                "image: batches are (inputs, image numbers)"
            )
        if size == 1 and not self._said_alone:
            self._said_alone = True
            rank_zero_warn(
                "VLPretraining: a batch of one pair has no other image, so that matching learns "
                "nothing from it: use a larger batch_size, or other_images: true of the data"
            )
        return draw_in_batch(numbers, generator)

    def _images(
        self, inputs: Mapping[str, Tensor], matching: Matching | None
    ) -> tuple[EmbeddedImages, Tensor | None]:
        """Embedded images, each once, and the rows of those that texts get in matching."""
        if matching is None:
            return embedded_images(self.backbone, inputs), None
        if "other_images" in inputs:
            both, sources = with_others(inputs, matching)
            return embedded_images(self.backbone, both), sources
        return embedded_images(self.backbone, inputs), matching.sources

    # evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log losses and accuracies of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log losses and accuracies of a test batch."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Pooled vectors ``[B, embed_dim]`` of pairs."""
        return self(pair_inputs(batch)[0]).pooled

    @by_name
    def _evaluate(self, split: str, batch: Any) -> None:
        inputs, numbers = pair_inputs(batch)
        inputs = self.embed(inputs)
        if self.mlm_weight:
            mask = self.fixed_mask(inputs)
            logits, targets = self.guess(inputs, mask), inputs["input_ids"][mask]
            count = mask.sum()
            loss = self.local_mlm_loss(logits, targets)
            hits = count_right(logits, targets) / count.clamp(min=1)
            self._log(split, count, mlm_loss=loss, mlm_acc=hits)
        if self.itm_weight:
            pairs, labels = exchanged(inputs, numbers)
            logits = self.itm_head(self.backbone(pairs).pooled)
            count = (labels != IGNORED).sum()
            hits = count_right(logits, labels.where(labels != IGNORED, -1)) / count.clamp(min=1)
            self._log(split, count, itm_loss=matching_loss(logits, labels), itm_acc=hits)

    def _log(self, split: str, count: Tensor, **values: Tensor) -> None:
        """Log means over ``count`` things, exact over batches and processes."""
        # a float, since Lightning takes the mean of these numbers over the processes, and would cut
        # that of integers off
        weight: Any = count.float()
        for name, value in values.items():
            shown = name.endswith("acc")
            self.log(f"{split}/{name}", value, batch_size=weight, sync_dist=True, prog_bar=shown)

    def on_validation_end(self) -> None:
        """Say what could not be measured."""
        self._tell_no_words("val")

    def on_test_end(self) -> None:
        """Say what could not be measured."""
        self._tell_no_words("test")

    def _tell_no_words(self, split: str) -> None:
        found = self.trainer.callback_metrics.get(f"{split}/mlm_acc")
        # a share of right guesses is one of none, unless the outputs are no numbers
        if found is not None and found.isnan() and not self.trainer.sanity_checking:
            rank_zero_warn(
                f"{split}/mlm_loss and {split}/mlm_acc are NaN: the fixed mask, 15 % of the words, "
                "chooses none in all of the captions, so evaluate on more of them; or outputs of "
                "the network are NaN"
            )

    # what callbacks ask for: lit_ssl.contracts.vision_language.GuessesWords

    def embed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs with ``image_embeds`` and ``image_mask`` in place of images.

        Args:
            inputs: images and text.
        """
        images = embedded_images(self.backbone, inputs)
        text = {k: v for k, v in inputs.items() if "image" not in k and "pixel" not in k}
        return {**text, "image_embeds": images.embeds, "image_mask": images.mask}

    def fixed_mask(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """15 % of the words, a function of the texts: bool ``[B, L]``.

        Args:
            inputs: with ``input_ids`` and ``word_ids``, int64 ``[B, L]``.
        """
        return fixed_word_mask(inputs["input_ids"], inputs["word_ids"])

    def guess(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Logits ``[n, V]`` of the masked tokens, each replaced by [MASK]; see the contract.

        Args:
            inputs: images, or what ``embed`` made of them, and text.
            mask: bool ``[B, L]``, the n tokens to guess.

        Raises:
            InputError: if the module has no MLM head.
        """
        if not self.mlm_weight:
            raise InputError("this module has no head for masked words, since mlm_weight is 0")
        assert self.mask_id is not None  # asked for in setup
        ids = inputs["input_ids"].masked_fill(mask, self.mask_id)
        return self.mlm_head(self.backbone({**inputs, "input_ids": ids}).text[mask])

    def match(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Log-odds ``[B]`` that text and image belong together.

        Args:
            inputs: images, or what ``embed`` made of them, and text.

        Raises:
            InputError: if the module has no matching head.
        """
        if not self.itm_weight:
            raise InputError("this module has no head for matching, since itm_weight is 0")
        logits = self.itm_head(self.backbone(inputs).pooled).float()
        return logits[:, 1] - logits[:, 0]

    def align(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Plan ``[B, N, L]`` of word–patch alignment.

        Args:
            inputs: images, or what ``embed`` made of them, and text, of pairs that belong together.

        Returns:
            How much of each of the N image tokens goes to each of the L tokens of the text.
        """
        out = self.backbone(inputs)
        matches = torch.ones(len(out.text), dtype=torch.long, device=out.text.device)
        return self.alignment(
            out.text, out.image, inputs["attention_mask"], out.image_mask, matches
        ).plan
