"""Linear evaluation of a frozen backbone with its sweep in one pass (arXiv 2204.07141, A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor, nn

from lit_ssl.answers import count_right
from lit_ssl.checkpoints.encoders import load_encoder
from lit_ssl.contracts.batches import inputs_of, labelled_batch
from lit_ssl.distributed import is_distributed
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.methods.classification.sweep_output import (
    SWEEP_FILES,
    SweepPoint,
    sweep_markdown,
    sweep_table,
    write_sweep,
)
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.rates import set_rates
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.probe_features import ProbeFeatures
from lit_ssl.models.probes import ProbeHead, ProbeHeads, probe_losses
from lit_ssl.optim import Schedule
from lit_ssl.optim.stacked_sgd import StackedSGD
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import total_steps
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.private import validate_the_end
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import origin_of, run_folder, tensorboards
from lit_ssl.trainer.selection import check_selection, check_tested, data_sets
from lit_ssl.trainer.step_logs import log_loss
from lit_ssl.trainer.validation import why_not_validated
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["LinearEvaluation"]


class LinearEvaluation(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """Linear classifiers on a frozen backbone, all points of a sweep trained together.

    Each batch goes through the backbone once, in eval mode and without gradients; then one head for
    every combination of features, learning rate and weight decay takes its step, all in a few
    batched operations. A head trains exactly as it would alone; one that diverges is marked and
    leaves the others alone. A single recipe is a sweep of one.

    Batches are ``(images, labels)``; labels of −1 do not count. The best head on the validation
    images is tested; the others never see a test image. Heads, their validation accuracies and the
    backbone are in the checkpoint. ``val/linear_best_acc1`` and ``test/linear_acc1`` are logged;
    the whole sweep is printed, and written to ``linear_sweep.json``, ``.csv`` and a page,
    ``index.html``, beside the run.

    Args:
        backbone: as in [`ImageClassifier`][lit_ssl.methods.ImageClassifier].
        backbone_kwargs: arguments of a backbone given by name, e.g. ``in_chans``, ``img_size``.
        num_classes: number of classes, ≥ 2; ``lit-ssl`` takes it from the data module.
        weights: checkpoint of a run, official checkpoint, or any other file of
            ``lit_ssl.checkpoints.origins.read_weights``; None: those that the backbone has.
        online: take MSN's trained backbone out of that file, not its slow copy.
        features: kinds of features: ``pooled``, ``token-n`` (class tokens of the last n blocks,
            before the final norm), ``mean`` (of the patches), ``token-n+mean``. None: ``token-1``
            for a ViT, ``pooled`` for others.
        learning_rates: of SGD, > 0; they are not scaled with the batch.
        weight_decays: of the linear layers' weights, ≥ 0.
        momentum: of SGD (Nesterov), in (0, 1).
        prefix: of the backbone's names in the file, as in
            [`FrozenEncoder`][lit_ssl.methods.FrozenEncoder].

    Raises:
        ValueError: for values outside their ranges, and where the best of several heads would be
            chosen on the test images.

    Source: MSN, arXiv 2204.07141, appendix A.3 (head, optimiser, schedule: cosine to 0).
    """

    val_acc1: Tensor

    def __init__(
        self,
        backbone: str | nn.Module = "vit_small_patch16_224",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        weights: str | None = None,
        online: bool = False,
        features: Sequence[str] | None = None,
        learning_rates: Sequence[float] = (0.4, 1.6, 6.4, 25.6),
        weight_decays: Sequence[float] = (0.0,),
        momentum: float = 0.9,
        prefix: str | None = None,
    ) -> None:
        super().__init__()
        classes = _check(num_classes, learning_rates, weight_decays)
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)
        self.num_classes = classes
        self.weights = weights
        self.online = online
        self.prefix = prefix
        self.momentum = momentum
        with weights_follow(weights is not None):
            self.backbone, width = create_backbone(backbone, backbone_kwargs)
        self.backbone.requires_grad_(False)
        self.extract = ProbeFeatures(self.backbone, width, features)
        self.embed_dim = self.extract.widths[0]
        self.points = [
            SweepPoint(kind, float(lr), float(decay))
            for kind, lr, decay in product(self.extract.kinds, learning_rates, weight_decays)
        ]
        self.per_kind = len(self.points) // len(self.extract.kinds)
        self.heads = nn.ModuleList(
            ProbeHeads(self.per_kind, size, classes) for size in self.extract.widths
        )
        # accuracies of the last validation, NaN where there is none: they choose the head to test
        empty = torch.full((len(self.points),), torch.nan, dtype=torch.float32)
        self.register_buffer("val_acc1", empty)
        # equal on all processes, and NaN at first: nothing for DDP or a strategy to bring together
        self._ddp_params_and_buffers_to_ignore = ["val_acc1"]
        self.nonfinite_allowed = ("heads.", "val_acc1")  # some heads of a sweep may diverge
        self._counts: Tensor | None = None
        self._tested: tuple[int, ProbeHead] | None = None
        self._validated: list[Any] = []  # data sets of the last validation, which chose the head
        self._scaler: Any = None
        self._folder: Path | None = None
        self.train()  # the backbone is in eval mode from the start

    # features

    @property
    def encoder(self) -> nn.Module:
        """The frozen network, with timm's parameter names."""
        return self.backbone

    def networks_to_compile(self) -> list[nn.Module]:
        """What ``forward`` calls of the backbone, and the heads."""
        return [*self.extract.networks(), *self.heads]

    def forward(self, images: Tensor) -> Tensor:
        """Features of the first kind: ``[B, C, H, W]`` → ``[B, embed_dim]``.

        Args:
            images: normalised, of a size that the backbone takes.
        """
        return self._features(images)[0]

    @torch.no_grad()
    def _features(self, images: Tensor) -> list[Tensor]:
        return self.extract(images)

    def train(self, mode: bool = True) -> LinearEvaluation:
        """Switch to training or evaluation; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> LinearEvaluation:
        """Convert or move; the accuracies, which choose a head, are never rounded."""
        exact = self.val_acc1
        super()._apply(fn, recurse)
        if self.val_acc1.dtype.itemsize < exact.dtype.itemsize:
            self.val_acc1 = exact.to(self.val_acc1.device)
        return self

    def load_start(self) -> None:
        """Load the ``weights``, if any; never below heads trained on others."""
        if self.weights is not None:
            weights = load_encoder(self.backbone, self.weights, self.online, self.prefix)
            say_start(self, weights.source, {"backbone": True, "heads": False})

    # training

    def _logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One ``[heads, B, num_classes]`` for each kind of features."""
        return [heads(rows) for heads, rows in zip(self.heads, features, strict=True)]

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step of all heads; returns the sum of their losses, and features."""
        images, labels = labelled_batch(batch, self.num_classes, look=batch_idx == 0)
        features = self._features(images)
        losses = torch.cat([probe_losses(logits, labels) for logits in self._logits(features)])
        finite = losses.isfinite()
        lowest = torch.where(finite, losses.detach(), torch.inf).min()
        log_loss(self, lowest, len(labels), "train/best_loss")
        # a sum: each head gets the gradient of its own loss; NaN only where all have diverged
        loss = torch.where(finite, losses, 0.0).sum() + torch.where(finite.any(), 0.0, torch.nan)
        return {"loss": loss, "features": features[0]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD whose learning rate and weight decay differ from head to head."""
        total_steps(self.trainer)  # a run of unknown length is refused now
        linear = [heads.weight for heads in self.heads]
        rest = [p for n, p in self.heads.named_parameters() if not n.endswith(".weight")]
        groups = [
            {"params": linear, "name": "weights", "decay": True},
            {"params": rest, "name": "norms_and_biases", "decay": False},
        ]
        kind = self.points[: self.per_kind]
        rates, decays = [p.lr for p in kind], [p.weight_decay for p in kind]
        return StackedSGD(groups, rates, decays, self.momentum)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's factor of the learning rates, then step."""
        schedule = Schedule(0.0, 1.0, 0.0, total_steps(self.trainer))
        set_rates(self.trainer, optimizer, schedule(self.trainer.global_step), 1.0)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_fit_start(self) -> None:
        """Refuse what would tie heads together, or choose among them on test images.

        Raises:
            ValueError: if the Trainer clips gradients, or validation images are the test images.
        """
        if self.trainer.gradient_clip_val:
            raise InputError(
                "LinearEvaluation trains its heads independently, and gradient_clip_val would clip "
                "them by their common norm: leave it out"
            )
        self._check_choice()
        # Heads are float32, also under 16-mixed: nothing to scale, and the scaler would skip the
        # step of all heads for one that overflows.
        plugin = self.trainer.precision_plugin
        self._scaler = getattr(plugin, "scaler", None)
        if self._scaler is not None:
            plugin.scaler = None  # type: ignore[attr-defined]

        validate_the_end(self.trainer)  # else a fit without a due validation has no best head

    def _check_choice(self) -> None:
        """Refuse to choose among several heads on the test images."""
        if len(self.points) > 1:
            check_selection(
                getattr(self.trainer, "datamodule", None),
                f"the best of {len(self.points)} heads",
                "give one learning rate, weight decay and kind of features",
            )

    def on_train_start(self) -> None:
        """Warn of a sweep without validation: no head can be chosen at its end."""
        why = why_not_validated(self.trainer)
        if why is not None and len(self.points) > 1:
            rank_zero_warn(
                f"the best of {len(self.points)} heads is chosen on the validation images, but "
                f"nothing is validated in this fit: {why}. Validate before the test"
            )

    def on_fit_end(self) -> None:
        """Print the sweep; give the Trainer its gradient scaler back."""
        if self._scaler is not None:
            self.trainer.precision_plugin.scaler = self._scaler  # type: ignore[attr-defined]
        self._show()

    # validation of all heads

    def on_validation_start(self) -> None:
        """Refuse a choice on the test images in ``trainer.validate`` too.

        Raises:
            ValueError: if there are several heads, and validation images are the test images.
        """
        self._check_choice()
        self._validated = data_sets(self.trainer.val_dataloaders)

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._counts = torch.zeros(len(self.points) + 1, device=self.device)

    @by_name
    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count the hits of all heads; returns features and labels."""
        images, labels = labelled_batch(batch, self.num_classes)
        features = self._features(images)
        hits = [count_right(logits, labels) for logits in self._logits(features)]
        assert self._counts is not None
        self._counts += torch.cat([*hits, (labels != -1).sum()[None]])
        return {"features": features[0], "labels": labels}

    def on_validation_epoch_end(self) -> None:
        """Accuracy of each head over all processes; the best one is logged.

        Raises:
            ValueError: if no head has finite weights, or no image a known label.
        """
        counts, self._counts = self._counts, None
        if self.trainer.sanity_checking or counts is None:
            return
        accuracy = _accuracies(counts, "validation")
        finite = torch.cat([heads.finite() for heads in self.heads])  # type: ignore[operator]
        self.val_acc1.copy_(accuracy.where(finite, torch.nan))
        best = self.best_head
        self.log("val/linear_best_acc1", self.val_acc1[best], prog_bar=True, sync_dist=True)
        self._write()

    def on_validation_end(self) -> None:
        """Print the sweep after ``trainer.validate``; a fit prints it once, at its end."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._show()

    @property
    def best_head(self) -> int:
        """Number of the head in ``points`` with the best accuracy in the last validation.

        Raises:
            ValueError: if there was no validation, or all heads have diverged.
        """
        if len(self.points) == 1:
            return 0
        if bool(self.val_acc1.isnan().all()):
            raise InputError(
                f"none of the {len(self.points)} heads has a validation accuracy: either none has "
                "been trained and validated (give ckpt_path of a finished run), or all of them "
                "diverged (lower the learning rates)"
            )
        return int(self.val_acc1.nan_to_num(-1.0).argmax())

    # test of the chosen head

    def on_test_start(self) -> None:
        """Take out the chosen head.

        Raises:
            ValueError: if it was chosen on the very images that are tested.
        """
        if len(self.points) > 1:
            check_tested(self.trainer, self._validated, f"the best of {len(self.points)} heads")
        self.on_predict_start()

    def on_predict_start(self) -> None:
        """Take out the chosen head."""
        best = self.best_head
        kind, index = divmod(best, self.per_kind)
        heads = self.heads[kind]
        assert isinstance(heads, ProbeHeads)
        self._tested = kind, heads.select(index)
        self._counts = torch.zeros(2, device=self.device)

    @by_name
    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count the hits of the chosen head; returns features and labels."""
        images, labels = labelled_batch(batch, self.num_classes)
        features = self._features(images)
        hits = count_right(self._chosen_logits(features), labels)
        assert self._counts is not None
        self._counts += torch.stack([hits, (labels != -1).sum()])
        return {"features": features[0], "labels": labels}

    def _chosen_logits(self, features: Sequence[Tensor]) -> Tensor:
        assert self._tested is not None
        kind, head = self._tested
        return head(features[kind])

    def on_test_epoch_end(self) -> None:
        """Accuracy of the chosen head over all processes."""
        counts, self._counts = self._counts, None
        assert counts is not None
        accuracy = _accuracies(counts, "test").squeeze(0)
        self.log("test/linear_acc1", accuracy, prog_bar=True, sync_dist=True)
        self._write(test_acc1=accuracy.item())

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[B, num_classes]`` of the chosen head."""
        images = inputs_of(batch)
        return self._chosen_logits(self._features(images)).softmax(dim=1)

    # output

    def rows(self) -> list[dict[str, Any]]:
        """The sweep as it was validated last: one dict for each head."""
        accuracies = self.val_acc1.tolist()
        return [
            {"head": n, **point._asdict(), "val_acc1": None if acc != acc else acc}
            for n, (point, acc) in enumerate(zip(self.points, accuracies, strict=True))
        ]

    def _write(self, **summary: float) -> None:
        folder = run_folder(self.trainer, [*SWEEP_FILES, PAGE])
        if folder is not None and self.trainer.is_global_zero:
            best = self.best_head
            chosen = {"chosen": best, **self.points[best]._asdict()}
            chosen["val_acc1"] = self.rows()[best]["val_acc1"]
            with may_be_lost(self.trainer, "the report of the sweep"):
                write_sweep(folder, self.rows(), {**chosen, **summary, **origin_of(self.trainer)})
            self._report(folder, **summary)

    def _report(self, folder: Path, **summary: float) -> None:
        """Add the sweep to the page that the end of the run writes."""
        best = self.best_head
        title = f"{len(self.points)} heads, best on the validation images first"
        point = self.points[best]
        lines = [
            f"Chosen on the validation images: features {point.features}, lr {point.lr:g}, weight "
            f"decay {point.weight_decay:g}."
        ]
        if "test_acc1" in summary:
            lines.append(f"The chosen head on the test images: {100 * summary['test_acc1']:.2f} %.")
        tables = [sweep_table(self.rows(), best, title)]
        files = [folder / name for name in SWEEP_FILES]
        add_report(self.trainer, folder, "sweep", Report("Linear heads", tables, lines, files))
        self._folder = folder

    def teardown(self, stage: str) -> None:
        """Write the page of the sweep."""
        folder, self._folder = self._folder, None
        page = None if folder is None else finish_page(self.trainer, folder)
        if page is not None:
            print(f"page: {page}", flush=True)

    @rank_zero_only
    def _show(self) -> None:
        if bool(self.val_acc1.isnan().all()):
            return
        from rich.console import Console

        title = f"{len(self.points)} heads, best on the validation images first"
        Console().print(sweep_table(self.rows(), self.best_head, title))
        with may_be_lost(self.trainer, "the table of the sweep in TensorBoard"):
            for board in tensorboards(self.trainer):
                board.add_text("linear_sweep", sweep_markdown(self.rows()))


def _accuracies(counts: Tensor, split: str) -> Tensor:
    """Accuracies over all processes, from right ones and, last, known labels on this one.

    Raises:
        ValueError: if no label is known.
    """
    if is_distributed():
        torch.distributed.all_reduce(counts)
    if counts[-1] == 0:
        raise InputError(
            f"LinearEvaluation needs labels, but all those of the {split} images are −1: serve "
            "images with labels"
        )
    return counts[:-1] / counts[-1]


def _check(
    num_classes: int | None, learning_rates: Sequence[float], weight_decays: Sequence[float]
) -> int:
    if num_classes is None or num_classes < 2:
        raise InputError(
            f"LinearEvaluation needs num_classes >= 2, not {num_classes}: give it (lit-ssl takes "
            "it from data modules that know it)"
        )
    for name, values in (("learning_rates", learning_rates), ("weight_decays", weight_decays)):
        least = min(values, default=-1.0)
        if least < 0 or (least == 0 and name == "learning_rates") or len(set(values)) < len(values):
            raise InputError(
                f"LinearEvaluation needs {name}, each once, learning rates > 0 and weight decays "
                f">= 0, not {list(values)}"
            )
    return num_classes
